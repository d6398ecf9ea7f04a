"""
Fields of the connection form for the keys of the extra.

Airflow 3.2 and newer reads them from the provider's metadata, earlier versions from the hook.
"""

from __future__ import annotations

from typing import Any, NamedTuple

#: Type of the connections that name a Ray cluster, and the id of the connection that is used by default.
CONN_TYPE = "ray_jobs"
DEFAULT_CONN_ID = "ray_default"


class Field(NamedTuple):
    """
    A field of the form.

    :param label: name of the field.
    :param description: what to write; error messages quote it.
    :param kind: ``text``, ``secret``, ``number``, ``flag``, or ``json`` for an object written as JSON.
    :param default: default value of a number.
    """

    label: str
    description: str
    kind: str = "text"
    default: float = 0.0


#: By key of the extra, in the order of the form.
FIELDS = {
    "token": Field("Token", "token for Ray's token authentication (or set the connection's password)", "secret"),
    "token_file": Field("Token file", "path of a file with the token, read at every request"),
    "token_callable": Field(
        "Token function", "package.module.function that returns the token, called at most every 30 seconds"
    ),
    "headers": Field("Headers", "object of HTTP headers", "json"),
    "cookies": Field("Cookies", "object of cookies", "json"),
    "metadata": Field("Metadata", "object of strings, stored with every job", "json"),
    "verify": Field("Verify TLS", "true, false, or the path of a CA file or folder"),
    "client_cert": Field("Client certificate", "path of a client certificate (PEM)"),
    "client_key": Field("Client key", "path of the client certificate's key, unless it is in the same file"),
    "dashboard_url": Field("Dashboard URL", "address of the dashboard for people, if it differs from that of the API"),
    "history_url": Field(
        "History URL",
        "URL of a job's page in a history server, with {submission_id}, and {session} for Ray's session",
    ),
    "connect_timeout": Field("Connect timeout", "seconds", "number", 10.0),
    "read_timeout": Field("Read timeout", "seconds", "number", 60.0),
    "unreachable_timeout": Field(
        "Unreachable timeout", "seconds without contact after which a wait gives up", "number", 600.0
    ),
    "max_upload_size": Field(
        "Upload limit", "maximum size of a package of local files, in MiB; Ray's own limit is 100", "number", 100.0
    ),
    "package_folder": Field(
        "Package folder",
        "URL of a folder for packages of local files, which the nodes can read: s3://conn_id@bucket/prefix, "
        "gs://conn_id@bucket/prefix or file:///mounted/folder",
    ),
    "deployment": Field("Deployment", "name of this Airflow deployment, if several share the cluster"),
    "create_cluster_if_needed": Field(
        "Create the cluster if needed", "true or false; for the module of a module:// address", "flag"
    ),
}

#: Fields whose values are as secret as a token; metadata is public.
_HIDDEN = ("headers", "cookies")

_TYPES = {"number": "number", "flag": "boolean"}

LABELS = {"login": "Login, for basic auth", "password": "Token, or the login's password"}

PLACEHOLDERS = {
    "host": "ray-head.example.com, or https://example.com/path/prefix",
    "port": "8265",
    "schema": "http",
    "login": "leave empty for a token",
}


def _is_secret(key: str) -> bool:
    return FIELDS[key].kind == "secret" or key in _HIDDEN


def _explained(key: str) -> str:
    field = FIELDS[key]
    example = '; JSON, as {"name": "value"}' if field.kind == "json" else ""
    return f"{field.description[0].upper()}{field.description[1:]}{example}."


def connection_fields() -> dict[str, Any]:
    """Return the fields in the form of ``conn-fields`` in ``airflow/provider_info.schema.json`` (Airflow 3.2)."""
    fields = {}
    for key, field in FIELDS.items():
        schema: dict[str, Any] = {"type": [_TYPES.get(field.kind, "string"), "null"]}
        if _is_secret(key):
            schema["format"] = "password"
        fields[key] = {"label": field.label, "description": _explained(key), "schema": schema}
    return fields


def field_behaviour() -> dict[str, Any]:
    """Return labels and placeholders for Airflow's own fields, in the form of a hook's ``get_ui_field_behaviour``."""
    return {"hidden_fields": [], "relabeling": LABELS, "placeholders": PLACEHOLDERS}


def form_widgets() -> dict[str, Any]:
    """
    Return the fields in the form of a hook's ``get_connection_form_widgets`` (Airflow before 3.2).

    All are text fields: the form of Airflow 2 does not accept an empty number.

    :raises ImportError: the libraries of the form are not installed, so there is no form.
    """
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import PasswordField, StringField

    widgets = {}
    for key, field in FIELDS.items():
        kind, widget = (
            (PasswordField, BS3PasswordFieldWidget()) if _is_secret(key) else (StringField, BS3TextFieldWidget())
        )
        widgets[key] = kind(lazy_gettext(field.label), widget=widget, description=_explained(key))
    return widgets


#: Default of ``max_upload_size``, in bytes.
DEFAULT_UPLOAD_LIMIT = int(FIELDS["max_upload_size"].default * 2**20)

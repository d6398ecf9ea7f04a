"""
Reads Airflow connections of type ``ray_jobs``.

:func:`read_connection` turns a connection into a :class:`ClusterConnection`, and reports wrong values before a request
is sent. The module imports neither Airflow nor an HTTP library.
"""

from __future__ import annotations

import os
import ssl
import sys
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.cluster import addresses
from airflow_provider_rayjobs.cluster import authentication as auth
from airflow_provider_rayjobs.cluster.extra import AirflowConnection, Extra, fail
from airflow_provider_rayjobs.cluster.fields import CONN_TYPE, FIELDS
from airflow_provider_rayjobs.cluster.urls import history_page
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError
from airflow_provider_rayjobs.text.safe_text import safe_text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

#: How to write a connection, for messages. Airflow can't parse a URI whose scheme contains an underscore.
_HOW_TO_WRITE = (
    'as a URI, write ray-jobs://host:port with a hyphen, since Airflow can\'t parse "ray_jobs://"; '
    'as JSON, {"conn_type": "ray_jobs", "host": "…"}'
)

#: Fields that must be positive numbers.
_AMOUNTS = tuple(key for key, field in FIELDS.items() if field.kind == "number")


@dataclass(frozen=True)
class ClusterConnection:
    """
    A cluster's address, and how to talk to it.

    :param conn_id: id of the Airflow connection.
    :param address: ``http(s)://host[:port][/prefix]`` without a slash at the end.
    :param headers: sent with every request; include the token, unless it rotates.
    :param cookies: sent with every request.
    :param token: a token that rotates.
    :param login: a token that rotates, for a proxy in front of the cluster: it takes ``Authorization``.
    :param metadata: merged into every job's metadata.
    :param verify: TLS verification: on, off, or the path of a CA file or folder.
    :param client_cert: paths of a client certificate and its key; may be the same file.
    :param connect_timeout: seconds to open a connection.
    :param read_timeout: seconds between two bytes of an answer.
    :param unreachable_timeout: seconds without contact after which a wait gives up.
    :param max_upload_size: maximum size of a package of local files, in MiB; by default the limit of Ray's dashboard.
    :param package_folder: URL of a folder in object storage for the packages of local files; empty: they go to the
        cluster. ``max_upload_size`` does not count there.
    :param dashboard_url: address of the dashboard for people, without a slash at the end; empty if it is ``address``.
    :param history_url: URL of a job's page in a history server, with ``{submission_id}`` and ``{session}``; or empty.
    :param deployment: name of the Airflow deployment; empty to derive one.
    """

    conn_id: str
    address: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    token: auth.RotatingToken | None = field(default=None, repr=False)
    login: auth.RotatingToken | None = field(default=None, repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)
    verify: bool | str = True
    client_cert: tuple[str, str] | None = None
    connect_timeout: float = FIELDS["connect_timeout"].default
    read_timeout: float = FIELDS["read_timeout"].default
    unreachable_timeout: float = FIELDS["unreachable_timeout"].default
    max_upload_size: float = FIELDS["max_upload_size"].default
    package_folder: str = ""
    dashboard_url: str = ""
    history_url: str = ""
    deployment: str = ""

    def request_headers(self, *, fresh: bool = True) -> dict[str, str]:
        """
        Return the headers of one request; may block if the token rotates.

        :param fresh: whether to fetch a rotating token; a signal handler uses the last one instead.
        :raises RayClusterUnreachableError: the token can't be fetched at the moment.
        """
        headers = dict(self.headers)
        if self.login is not None:
            headers["Authorization"] = f"Bearer {self._current(self.login, fresh)}"
        if self.token is not None:
            headers = auth.with_token(headers, self._current(self.token, fresh))
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return headers

    def _current(self, token: auth.RotatingToken, fresh: bool) -> str:
        try:
            return (not fresh and token.last) or token.current()
        except ValueError as e:
            # Treated like an unreachable cluster, so that it is retried.
            raise RayClusterUnreachableError(
                f"{self.address}: can't get the connection's token: {e}", maybe_sent=False, address=self.address
            ) from e

    @property
    def rotating(self) -> list[auth.RotatingToken]:
        """The tokens that rotate."""
        return [token for token in (self.token, self.login) if token is not None]

    def job_page(self, submission_id: str) -> str:
        """Return the URL of a job's page in the Ray dashboard."""
        return f"{self.dashboard_url or self.address}/#/jobs/{quote(submission_id, safe='', errors='replace')}"

    def history_page(self, submission_id: str, session: str | None) -> str:
        """
        Return the URL of a job's page in the history server; empty if there is none.

        :param session: name of the head's session, if it is known.
        """
        return history_page(self.history_url, submission_id, session)

    @property
    def upload_limit(self) -> int:
        """Maximum size of a package, in bytes."""
        return sys.maxsize if self.package_folder else int(self.max_upload_size * 2**20)

    @cached_property
    def credentials(self) -> auth.Credentials:
        """The kind of credentials that every request carries."""
        found = auth.Credentials.TOKEN if self.token else auth.credentials_in(self.headers, self.cookies)
        return auth.Credentials.OTHER if self.login and found is auth.Credentials.NONE else found

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that messages must not show: the values of all headers and cookies, and the newest tokens."""
        values = [*self.headers.values(), *self.cookies.values(), *self._tokens]
        return tuple(value for value in (*values, *auth.without_scheme(values)) if value)

    @property
    def masked(self) -> tuple[str, ...]:
        """Texts that are masked in all of a job's texts: cookies, headers with a sensitive name, the newest tokens."""
        return (*auth.secret_values(self.headers, self.cookies), *self._tokens)

    @property
    def _tokens(self) -> tuple[str, ...]:
        """The newest tokens of those that rotate."""
        return tuple(known for token in self.rotating for known in token.recent)


def read_connection(
    conn_id: str,
    connection: AirflowConnection,
    environ: Mapping[str, str] = os.environ,
    allowed_modules: Collection[str] = (),
    credential_folders: Collection[str] = (),
    create: bool = True,
) -> ClusterConnection:
    """
    Read an Airflow connection; may block if ``ray`` or a module resolves the address.

    :param conn_id: id of the connection, for messages.
    :param connection: the connection. ``host`` is a name, a full URL with an optional path prefix, or one of Ray's
        other forms (``ray://…``, ``auto``, ``module://…``). A port without a host means ``localhost``. If nothing is
        set, the address is ``RAY_API_SERVER_ADDRESS``, then ``RAY_ADDRESS``, then ``http://localhost:8265``.
    :param environ: the environment with these variables.
    :param allowed_modules: the modules that a connection may name.
    :param credential_folders: the folders that may contain tokens and certificates; empty to allow all.
    :param create: whether a module may create a cluster if the connection sets ``create_cluster_if_needed``.
    :raises RayConnectionConfigError: the connection has another type, or a value is wrong; the message names the field
        and says what to write.
    :raises RayClusterUnreachableError: ``ray`` or the module can't resolve the address.
    """
    _check_type(conn_id, connection.conn_type)
    extra = Extra(conn_id, connection, credential_folders)
    _check_host(conn_id, connection, extra)
    given = addresses.given_address(connection.host or "", connection.port, connection.schema, environ)
    pairs: dict[str, Any] = {key: extra.strings(key) for key in ("cookies", "metadata", "headers")}
    _check_pairs(conn_id, **pairs)
    authorization, token, rotating = _credentials(conn_id, connection, extra, allowed_modules)
    if authorization:
        if "authorization" in map(str.lower, pairs["headers"]):
            fail(conn_id, "headers", "contains Authorization although a login is set; remove one of the two")
        pairs["headers"]["Authorization"] = authorization
    options: dict[str, Any] = {
        "verify": extra.verify(),
        "client_cert": _client_cert(conn_id, extra),
        "deployment": extra.text("deployment"),
        "package_folder": extra.package_folder("package_folder"),
        "dashboard_url": extra.url("dashboard_url"),
        "history_url": extra.history_url("history_url"),
        **{name: extra.amount(name) for name in _AMOUNTS},
    }
    create = extra.flag("create_cluster_if_needed") and create
    if given.module:
        info = addresses.ask_module(conn_id, given, allowed_modules, create, **pairs)
        given = addresses.GivenAddress(given.where, str(info.address))
        pairs = {key: _as_strings(conn_id, given.where, getattr(info, key, None)) for key in pairs}
        _check_pairs(conn_id, **pairs)
    elif given.needs_ray:
        given = addresses.GivenAddress(given.where, addresses.ask_ray(conn_id, given))
    if token:
        pairs["headers"] = auth.with_token(pairs["headers"], token)
    return ClusterConnection(
        conn_id=conn_id, address=addresses.parse(conn_id, given), token=rotating, **pairs, **options
    )


def _check_type(conn_id: str, conn_type: str | None) -> None:
    """Refuse a connection of another type: its credentials are not meant for a Ray cluster."""
    if not conn_type:
        fail(conn_id, "", f"has no type; it must have the type {CONN_TYPE!r}: {_HOW_TO_WRITE}")
    if conn_type != CONN_TYPE:
        fail(
            conn_id,
            "",
            f"has the type {conn_type!r}, not {CONN_TYPE!r}; use another connection, or change it: {_HOW_TO_WRITE}",
        )


def _check_host(conn_id: str, connection: AirflowConnection, extra: Extra) -> None:
    """Refuse a connection that has values but no host: they are meant for a cluster that it does not name."""
    if (connection.host or "").strip() or connection.port:
        return
    # Only the names: if Airflow split a URI wrongly, any value may contain the password.
    given = [name for name in ("schema", "login", "password") if getattr(connection, name)] + extra.given
    if given:
        are_set = f"{', '.join(given)} {'is' if len(given) == 1 else 'are'} set"
        fail(conn_id, "host", f"is empty, although {are_set}; set it to the cluster's host: {_HOW_TO_WRITE}")


def _check_pairs(
    conn_id: str, *, headers: Mapping[str, str], cookies: Mapping[str, str], metadata: Mapping[str, str]
) -> None:
    auth.check_pairs(conn_id, "headers", headers)
    auth.check_pairs(conn_id, "cookies", cookies, forbidden=';, "\\')
    if cookies and "cookie" in map(str.lower, headers):
        fail(conn_id, "headers", "contains Cookie although cookies are set; remove one of the two")
    if ours := [name for name in metadata if name.startswith(keys.PREFIX)]:
        fail(conn_id, "metadata", f"{ours[0]!r}: keys that begin with {keys.PREFIX!r} are reserved for the provider")


def _as_strings(conn_id: str, where: str, pairs: Any) -> dict[str, str]:
    """Check and return the headers, cookies or metadata of a module."""
    if not all(isinstance(text, str) for pair in (pairs or {}).items() for text in pair):
        fail(conn_id, where, "the module returned headers, cookies or metadata that are not strings")
    return dict(pairs or {})


def _credentials(
    conn_id: str, connection: AirflowConnection, extra: Extra, allowed_modules: Collection[str]
) -> tuple[str, str, auth.RotatingToken | None]:
    """Return the ``Authorization`` for basic auth, the fixed token, and the rotating token; each may be empty."""
    login, password = (connection.login or "").strip(), connection.password or ""
    if login and not password:
        fail(conn_id, "login", "is set, but the password is empty; for a token, set only the password")
    if safe_text(login + password) != login + password:
        fail(
            conn_id,
            "password",
            "must not contain NUL or lone surrogates, and neither must the login: HTTP headers can't carry them",
        )
    texts = {key: extra.text(key) for key in ("token", "token_file", "token_callable")}
    given = [key for key, text in texts.items() if text] + ["password"] * bool(password and not login)
    if len(given) > 1:
        fail(conn_id, given[0], f"sets a token, and so does {given[1]}; remove one of the two")
    token = texts["token"] or ("" if login else password.strip())
    if token and (problem := auth.token_problem(token)):
        fail(conn_id, "token", problem)
    rotating = None
    if texts["token_file"]:
        rotating = auth.token_from_file(extra.path("token_file"), extra.check_folder)
    elif texts["token_callable"]:
        rotating = auth.token_from_callable(conn_id, texts["token_callable"], allowed_modules)
    return auth.basic(login, password) if login else "", token, rotating


def _client_cert(conn_id: str, extra: Extra) -> tuple[str, str] | None:
    if not extra.text("client_cert"):
        if extra.text("client_key"):
            fail(conn_id, "client_key", "is set without client_cert; set both, or none")
        return None
    cert = extra.path("client_cert")
    key = extra.path("client_key") if extra.text("client_key") else cert
    try:
        # Without the empty password, OpenSSL would ask on the terminal for that of an encrypted key.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password=lambda: b"")
    except (OSError, ValueError) as e:
        fail(conn_id, "client_cert", f"can't load {str(cert)!r} with the key in {str(key)!r} ({e})")
    return str(cert), str(key)

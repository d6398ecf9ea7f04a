"""
URLs in a connection: those that people open in a browser, the page of a job in a history server, and folders in object
storage.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

#: Placeholders of ``history_url`` for every cluster, and those for clusters that KubeRay makes.
JOB_PLACEHOLDERS = ("submission_id", "session")
KUBERAY_PLACEHOLDERS = ("namespace", "cluster")

#: Schemes of folders in object storage that both Airflow and Ray's nodes can read.
FOLDER_SCHEMES = ("s3", "gs", "file")

_PLAIN = re.compile(r"[A-Za-z0-9._/-]*")

_PLACEHOLDER = re.compile(r"\{(\w+)\}")

#: The beginning of a URL up to the path; without a placeholder, so that no value decides where the link leads.
_FIXED_HOST = re.compile(r"https?://[^/?#{}]+(?=[/?#]|$)", re.IGNORECASE)


def is_web_address(text: str) -> bool:
    """Whether a text is a URL that begins with ``http://`` or ``https://``, without a login."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    known = parts.scheme in ("http", "https") and parts.hostname and parts.username is None and port != 0
    return bool(known) and re.search(r"\s", text) is None


def history_problem(template: str, placeholders: Collection[str] = JOB_PLACEHOLDERS) -> str:
    """
    Return what is wrong with the template of a history server's URL; empty if nothing is.

    :param placeholders: the names that may stand in braces.
    """
    if unknown := [name for name in _PLACEHOLDER.findall(template) if name not in placeholders]:
        return f"has the placeholder {{{unknown[0]}}}; allowed are {_in_braces(placeholders)}"
    plain = _PLACEHOLDER.sub("x", template)
    if set("{}") & set(plain):
        return f"may contain braces only around {_in_braces(placeholders)}; write %7B and %7D for others"
    if not is_web_address(plain):
        return "must be a URL that begins with http:// or https://, without a login"
    if not _FIXED_HOST.match(template):
        return "must not have a placeholder in its host"
    return ""


def _in_braces(names: Collection[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)


def filled(template: str, values: Mapping[str, str | None]) -> str:
    """
    Put values into a template's placeholders, quoted; other placeholders stay.

    :return: an empty string if a value that the template needs is missing, or would change the path.
    """
    for name in _PLACEHOLDER.findall(template):
        if name in values and values[name] in (None, "", ".", ".."):
            return ""
    return _PLACEHOLDER.sub(
        lambda found: quote(values[found[1]] or "", safe="", errors="replace") if found[1] in values else found[0],
        template,
    )


def history_page(template: str, submission_id: str, session: str | None) -> str:
    """
    Return the URL of a job's page in a history server; empty if there is none.

    :param template: the cluster's ``history_url``.
    :param session: name of the head's session, if it is known.
    """
    return filled(template, {"submission_id": submission_id, "session": session})


def folder_problem(url: str) -> str:
    """Return what is wrong with the URL of a folder in object storage; empty if nothing is."""
    scheme, _, rest = url.partition("://")
    if scheme not in FOLDER_SCHEMES:
        return f"must begin with {', '.join(f'{known}://' for known in FOLDER_SCHEMES)}"
    if problem := storage_problem(url):
        return problem
    place, _, path = rest.partition("/")
    bucket = place.rpartition("@")[2]
    if not _PLAIN.fullmatch(f"{bucket}/{path}") or ".." in path.split("/"):
        return "may contain letters, digits and . _ - / only, because Ray's versions read other characters differently"
    return ""


def storage_problem(url: str) -> str:
    """Return what is wrong with the URL of a folder in a storage of any kind; empty if nothing is."""
    scheme, _, rest = url.partition("://")
    place, _, path = rest.partition("/")
    login, _, bucket = place.rpartition("@")
    if ":" in login:
        return "must not contain a password; write the id of an Airflow connection before the @"
    if scheme == "file" and (place or not path.strip("/")):
        return "must have an absolute path, as in file:///mounted/folder"
    if scheme != "file" and not bucket:
        return f"must have a bucket, as in {scheme}://conn_id@bucket/prefix"
    return ""


def without_connection(url: str) -> str:
    """Return the URL of a folder in object storage without the Airflow connection before the ``@``."""
    scheme, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"

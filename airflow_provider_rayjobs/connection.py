"""
The cluster that an Airflow connection of type ``ray_jobs`` names.

:func:`read_connection` turns the connection into a :class:`ClusterConnection` and names every wrong value before a
request is sent. It imports neither Airflow nor an HTTP library.
"""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from urllib.parse import urlsplit, urlunsplit

from airflow_provider_rayjobs.exceptions import RayConnectionConfigError
from airflow_provider_rayjobs.identity import METADATA_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # of RFC 9110

DEFAULT_PORT = 8265
DEFAULT_ADDRESS = f"http://localhost:{DEFAULT_PORT}"

#: What Ray's own client reads when no address is given, in this order.
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")

#: Keys of the connection's extra, with what each is.
EXTRA_KEYS = {
    "token": "token for Ray's token authentication (or the connection's password)",
    "headers": "object of HTTP headers",
    "cookies": "object of cookies",
    "metadata": "object of strings, stored with every job",
    "verify": "true, false, or the path of a CA file or folder",
    "connect_timeout": "seconds",
    "read_timeout": "seconds",
    "unreachable_timeout": "seconds without contact after which a wait gives up",
    "max_upload_size": "most MiB of a package of local files; Ray's own limit is 100",
    "deployment": "name of this Airflow deployment, when several share the cluster",
}


class AirflowConnection(Protocol):
    """What is read of an Airflow ``Connection``, of any version."""

    host: str | None
    port: int | None
    schema: str | None
    login: str | None
    password: str | None
    extra: str | None

    @property
    def extra_dejson(self) -> dict[str, Any]:
        """The extra, decoded."""


@dataclass(frozen=True)
class ClusterConnection:
    """
    Where a cluster is and how to talk to it.

    :param conn_id: id of the Airflow connection.
    :param address: ``http(s)://host[:port][/prefix]`` without a slash at the end.
    :param headers: sent with every request; holds the token, if there is one.
    :param cookies: sent with every request.
    :param metadata: merged into every job's metadata.
    :param verify: TLS verification: on, off, or the path of a CA file or folder.
    :param connect_timeout: seconds to open a connection.
    :param read_timeout: seconds between two bytes of an answer.
    :param unreachable_timeout: seconds without contact after which a wait gives up.
    :param max_upload_size: most MiB that a package of local files may have; the limit of Ray's dashboard by default.
    :param deployment: name of the Airflow deployment, or an empty text to derive one.
    """

    conn_id: str
    address: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)
    verify: bool | str = True
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    unreachable_timeout: float = 600.0
    max_upload_size: float = 100.0
    deployment: str = ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must never reach a log: values of headers and cookies, and tokens without their scheme."""
        values = [*self.headers.values(), *self.cookies.values()]
        bare = [value.split(" ", 1)[1] for value in values if value.lower().startswith(("bearer ", "basic "))]
        return tuple(value for value in (*values, *bare) if value)


def read_connection(
    conn_id: str, connection: AirflowConnection, environ: Mapping[str, str] = os.environ
) -> ClusterConnection:
    """
    Read an Airflow connection.

    :param conn_id: its id, for messages.
    :param connection: the connection. ``host`` is a name, or a whole URL with an optional path prefix. An empty host
        means ``RAY_API_SERVER_ADDRESS``, then ``RAY_ADDRESS``, then ``http://localhost:8265``.
    :param environ: the environment to read these variables from.
    :raises RayConnectionConfigError: a value is wrong; the message names the field and what to write.
    """
    extra = _Extra(conn_id, connection)
    headers = extra.strings("headers")
    token = _token(conn_id, connection, extra)
    if token:
        if any(name.lower() == "authorization" for name in headers):
            _fail(conn_id, "headers", "holds Authorization although a token is set; keep one of the two")
        headers["Authorization"] = f"Bearer {token}"
    cookies = extra.strings("cookies")
    for where, pairs, forbidden in (("headers", headers, ""), ("cookies", cookies, ';, "\\')):
        for name, value in pairs.items():
            if not _TOKEN.fullmatch(name):
                _fail(conn_id, where, f"{name!r} has characters that no name in an HTTP header can have")
            if not value.isprintable() or not value.isascii() or value != value.strip() or set(value) & set(forbidden):
                _fail(conn_id, where, f"the value of {name!r} has characters that no HTTP header can carry")
    metadata = extra.strings("metadata")
    if ours := [name for name in metadata if name.startswith(METADATA_PREFIX)]:
        _fail(
            conn_id,
            "metadata",
            f"{ours[0]!r}: keys that begin with {METADATA_PREFIX!r} are the provider's own",
        )
    return ClusterConnection(
        conn_id=conn_id,
        address=_address(conn_id, connection, environ),
        headers=headers,
        cookies=cookies,
        metadata=metadata,
        verify=extra.verify(),
        connect_timeout=extra.seconds("connect_timeout", ClusterConnection.connect_timeout),
        read_timeout=extra.seconds("read_timeout", ClusterConnection.read_timeout),
        unreachable_timeout=extra.seconds("unreachable_timeout", ClusterConnection.unreachable_timeout),
        max_upload_size=extra.seconds("max_upload_size", ClusterConnection.max_upload_size),
        deployment=extra.text("deployment"),
    )


def _fail(conn_id: str, where: str, problem: str) -> NoReturn:
    raise RayConnectionConfigError(conn_id, where, problem)


def _token(conn_id: str, connection: AirflowConnection, extra: _Extra) -> str:
    token = extra.text("token")
    if token and connection.password:
        _fail(conn_id, "token", "is set twice, as password and in the extra; keep one of the two")
    if connection.login:
        _fail(conn_id, "login", "is not used; put the token into the password and leave the login empty")
    token = (token or connection.password or "").strip()
    if not token.isprintable() or not token.isascii() or " " in token:
        _fail(conn_id, "token", "has characters that no HTTP header can carry")
    return token


def _address(conn_id: str, connection: AirflowConnection, environ: Mapping[str, str]) -> str:
    host = (connection.host or "").strip()
    if not host:
        if connection.port:
            host = "localhost"
        else:
            name = next((name for name in ADDRESS_VARIABLES if environ.get(name)), None)
            return _parse_address(conn_id, name or "host", environ[name] if name else DEFAULT_ADDRESS, None, None)
    return _parse_address(conn_id, "host", host, connection.port, connection.schema)


def _parse_address(conn_id: str, where: str, text: str, port: int | None, schema: str | None) -> str:
    """Put scheme, host, port and path prefix together; a whole URL keeps what it says."""
    shape = "write http(s)://host:port, the address of the Ray dashboard"
    if "@" in text:
        _fail(conn_id, where, "holds a user or password; put the token into the connection's password")
    text, query = re.split("[?#]", text + "?", maxsplit=1)  # a query may hold a secret, which no message shows
    whole = "://" in text
    scheme = (schema or "http").strip().lower().removesuffix("://")
    try:
        url = urlsplit(text if whole else f"{scheme}://{_bracketed(text)}")
        found_port = url.port
    except ValueError as e:
        _fail(conn_id, where, f"{text!r} is no address ({e}); {shape}")
    if url.scheme not in ("http", "https"):
        _fail(conn_id, where if whole else "schema", f"{url.scheme!r} is not supported; {shape}")
    if schema and url.scheme != scheme:
        _fail(conn_id, "schema", f"is {schema}, but the host says {url.scheme}; keep one of the two")
    if text == "auto" or not url.hostname or query.strip("?") or any(c.isspace() for c in text):
        _fail(conn_id, where, f"{text!r} is no address; {shape}")
    if found_port and port and found_port != port:
        _fail(conn_id, "port", f"is {port}, but the host says {found_port}; keep one of the two")
    given = port if found_port is None else found_port
    number = DEFAULT_PORT if given is None and not whole else given
    if number is not None and not 0 < int(number) < 65536:
        _fail(conn_id, "port", f"{number} is no port")
    name = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return urlunsplit((url.scheme, f"{name}:{number}" if number else name, url.path.rstrip("/"), "", ""))


def _bracketed(host: str) -> str:
    """Write a bare IPv6 address as URLs want it."""
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


class _Extra:
    """Typed access to the connection's extra; every failure names the key."""

    def __init__(self, conn_id: str, connection: AirflowConnection) -> None:
        self._conn_id = conn_id
        try:
            # Airflow's extra_dejson is {} for what it can't decode.
            if not isinstance(json.loads(connection.extra or "{}"), dict):
                raise ValueError
            self._extra = connection.extra_dejson
        except ValueError:
            _fail(conn_id, "extra", "is no JSON object")
        for key in self._extra:
            if key not in EXTRA_KEYS:
                _fail(conn_id, key, f"is not known; the extra takes {', '.join(sorted(EXTRA_KEYS))}")

    def _wrong(self, key: str, problem: str) -> NoReturn:
        _fail(self._conn_id, key, f"{problem}; it takes {EXTRA_KEYS[key]}")

    def _get(self, key: str) -> Any:
        value = self._extra.get(key)
        return None if value == "" else value

    def text(self, key: str) -> str:
        value = self._get(key)
        if value is not None and not isinstance(value, str):
            self._wrong(key, "is no text")
        return (value or "").strip()

    def strings(self, key: str) -> dict[str, str]:
        value = self._json(key)
        if not isinstance(value, dict):
            self._wrong(key, "is no object")
        for name, item in value.items():
            if not isinstance(item, str):
                self._wrong(key, f"the value of {name!r} is no text")
        return dict(value)

    def _json(self, key: str) -> Any:
        """Return an object; the form gives it as text."""
        value = self._get(key)
        if not isinstance(value, str):
            return {} if value is None else value
        try:
            return json.loads(value)
        except ValueError:
            self._wrong(key, "is no JSON")

    def seconds(self, key: str, default: float) -> float:
        value = self._get(key)
        if value is None:
            return default
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 < number < math.inf:
            self._wrong(key, f"{value!r} is no positive number")
        return number

    def verify(self) -> bool | str:
        value = self._get("verify")
        if value is None or isinstance(value, bool):
            return True if value is None else value
        if not isinstance(value, str):
            self._wrong("verify", f"{value!r} can't be used")
        words: Mapping[str, bool] = {"true": True, "false": False}
        if value.strip().lower() in words:
            return words[value.strip().lower()]
        path = Path(value.strip()).expanduser()
        if not path.exists():
            self._wrong("verify", f"{str(path)!r} does not exist on this machine")
        return str(path)

"""
The cluster that an Airflow connection of type ``ray_jobs`` names.

:func:`read_connection` turns the connection into a :class:`ClusterConnection` and names every wrong value before a
request is sent. It imports neither Airflow nor an HTTP library.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import ssl
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from urllib.parse import quote, urlsplit

from airflow_provider_rayjobs import addresses
from airflow_provider_rayjobs import authentication as auth
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError, RayConnectionConfigError
from airflow_provider_rayjobs.form import FIELDS
from airflow_provider_rayjobs.identity import METADATA_PREFIX
from airflow_provider_rayjobs.protocol import MOST_LEVELS, has_levels
from airflow_provider_rayjobs.safe_text import is_safe, safe_text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

#: Type of the connections that name a Ray cluster.
CONN_TYPE = "ray_jobs"

#: How a connection is written, for messages. Airflow can't split a URI whose scheme has an underscore.
_HOW_TO_WRITE = (
    'write ray-jobs://host:port in a URI, with "-", for Airflow finds neither type nor host behind "ray_jobs://"; '
    'or JSON such as {"conn_type": "ray_jobs", "host": "…"}'
)

#: Positive numbers, each with a default below.
_AMOUNTS = tuple(key for key, field in FIELDS.items() if field.kind == "number")


class AirflowConnection(Protocol):
    """What is read of an Airflow ``Connection``, of any version."""

    conn_type: str | None
    host: str | None
    port: int | None
    schema: str | None
    login: str | None
    password: str | None
    extra: str | None


@dataclass(frozen=True)
class ClusterConnection:
    """
    Where a cluster is and how to talk to it.

    :param conn_id: id of the Airflow connection.
    :param address: ``http(s)://host[:port][/prefix]`` without a slash at the end.
    :param headers: sent with every request; with the token, if there is one that does not change.
    :param cookies: sent with every request.
    :param token: a token that changes.
    :param metadata: merged into every job's metadata.
    :param verify: TLS verification: on, off, or the path of a CA file or folder.
    :param client_cert: paths of a client certificate and its key; the second may be the first.
    :param connect_timeout: seconds to open a connection.
    :param read_timeout: seconds between two bytes of an answer.
    :param unreachable_timeout: seconds without contact after which a wait gives up.
    :param max_upload_size: most MiB that a package of local files may have; the limit of Ray's dashboard by default.
    :param dashboard_url: address of the dashboard for people, without a slash at the end; empty for that of the API.
    :param deployment: name of the Airflow deployment, or an empty text to derive one.
    """

    conn_id: str
    address: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    token: auth.RotatingToken | None = field(default=None, repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)
    verify: bool | str = True
    client_cert: tuple[str, str] | None = None
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    unreachable_timeout: float = 600.0
    max_upload_size: float = 100.0
    dashboard_url: str = ""
    deployment: str = ""

    def request_headers(self, *, fresh: bool = True) -> dict[str, str]:
        """
        Return the headers of one request; may block when there is a token that changes.

        :param fresh: whether to ask for such a token again; a signal handler takes the last one.
        :raises RayClusterUnreachableError: the token can't be had now.
        """
        headers = dict(self.headers)
        if self.token is not None:
            try:
                token = (not fresh and self.token.last) or self.token.current()
            except ValueError as e:
                # As with a cluster that is not there: it is tried again, and waits bear with it.
                raise RayClusterUnreachableError(
                    f"{self.address}: the connection's token can't be had: {e}", maybe_sent=False
                ) from e
            headers = auth.with_token(headers, token)
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return headers

    def job_page(self, submission_id: str) -> str:
        """Return the URL of a job's page in the Ray dashboard."""
        return f"{self.dashboard_url or self.address}/#/jobs/{quote(submission_id, safe='', errors='replace')}"

    @property
    def upload_limit(self) -> int:
        """Most bytes that a package may have."""
        return int(self.max_upload_size * 2**20)

    @cached_property
    def credentials(self) -> auth.Credentials:
        """What every request carries to be let in."""
        return auth.Credentials.TOKEN if self.token else auth.credentials_in(self.headers, self.cookies)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that no message may show: the values of all headers and cookies, and the last token."""
        values = [*self.headers.values(), *self.cookies.values(), self.token.last if self.token else ""]
        return tuple(value for value in (*values, *auth.bare(values)) if value)

    @property
    def masked(self) -> tuple[str, ...]:
        """Texts that are masked wherever Airflow shows any: cookies, and headers whose names speak of a secret."""
        values = auth.secret_values(self.headers, self.cookies)
        return (*values, self.token.last) if self.token and self.token.last else tuple(values)


def read_connection(
    conn_id: str,
    connection: AirflowConnection,
    environ: Mapping[str, str] = os.environ,
    allowed_modules: Collection[str] = (),
    credential_folders: Collection[str] = (),
    create: bool = True,
) -> ClusterConnection:
    """
    Read an Airflow connection; may block when ``ray`` or a module is to be asked for the address.

    :param conn_id: its id, for messages.
    :param connection: the connection. ``host`` is a name, a whole URL with an optional path prefix, or one of Ray's
        other forms (``ray://…``, ``auto``, ``module://…``). A port without a host is one of ``localhost``. A connection
        in which nothing is set means ``RAY_API_SERVER_ADDRESS``, then ``RAY_ADDRESS``, then ``http://localhost:8265``.
    :param environ: the environment to read these variables from.
    :param allowed_modules: the modules that a connection may name.
    :param credential_folders: the folders from which tokens and certificates may come; none: from anywhere.
    :param create: whether a module may create a cluster, where ``create_cluster_if_needed`` says so.
    :raises RayConnectionConfigError: the connection is of another type, or a value is wrong; the message names the
        field and what to write.
    :raises RayClusterUnreachableError: ``ray`` or the module that the address names knows of no such cluster.
    """
    _check_type(conn_id, connection.conn_type)
    extra = _Extra(conn_id, connection, credential_folders)
    _check_host(conn_id, connection, extra)
    given = addresses.given_address(connection.host or "", connection.port, connection.schema, environ)
    pairs: dict[str, Any] = {key: extra.strings(key) for key in ("cookies", "metadata", "headers")}
    _check_pairs(conn_id, **pairs)
    authorization, token, rotating = _credentials(conn_id, connection, extra, allowed_modules)
    if authorization:
        if "authorization" in map(str.lower, pairs["headers"]):
            _fail(conn_id, "headers", "holds Authorization although a login is set; keep one of the two")
        pairs["headers"]["Authorization"] = authorization
    options: dict[str, Any] = {
        "verify": extra.verify(),
        "client_cert": _client_cert(conn_id, extra),
        "deployment": extra.text("deployment"),
        "dashboard_url": extra.url("dashboard_url"),
        **{name: extra.amount(name) for name in _AMOUNTS},
    }
    create = extra.flag("create_cluster_if_needed") and create
    if given.module:
        info = addresses.ask_module(conn_id, given, allowed_modules, create, **pairs)
        given = addresses.Given(given.where, str(info.address))
        pairs = {key: _as_strings(conn_id, given.where, getattr(info, key, None)) for key in pairs}
        _check_pairs(conn_id, **pairs)
    elif given.needs_ray:
        given = addresses.Given(given.where, addresses.ask_ray(conn_id, given))
    if token:
        pairs["headers"] = auth.with_token(pairs["headers"], token)
    return ClusterConnection(
        conn_id=conn_id, address=addresses.parse(conn_id, given), token=rotating, **pairs, **options
    )


def _fail(conn_id: str, where: str, problem: str) -> NoReturn:
    raise RayConnectionConfigError(conn_id, where, problem)


def _check_type(conn_id: str, conn_type: str | None) -> None:
    """Refuse a connection of another type: its credentials would be sent where they do not belong."""
    if not conn_type:
        _fail(conn_id, "", f"has no type, but must be of type {CONN_TYPE!r}; {_HOW_TO_WRITE}")
    if conn_type != CONN_TYPE:
        _fail(conn_id, "", f"is of type {conn_type!r}, not {CONN_TYPE!r}; name one of that type, or {_HOW_TO_WRITE}")


def _check_host(conn_id: str, connection: AirflowConnection, extra: _Extra) -> None:
    """Refuse a connection that has something set, but no host: what is set was meant for some cluster."""
    if (connection.host or "").strip() or connection.port:
        return
    # The names alone: of a URI that was split wrongly, each may hold the password.
    given = [name for name in ("schema", "login", "password") if getattr(connection, name)] + extra.given
    if given:
        are_set = f"{', '.join(given)} {'is' if len(given) == 1 else 'are'} set"
        _fail(conn_id, "host", f"is empty, although {are_set}; name the cluster there: {_HOW_TO_WRITE}")


def _check_pairs(
    conn_id: str, *, headers: Mapping[str, str], cookies: Mapping[str, str], metadata: Mapping[str, str]
) -> None:
    auth.check_pairs(conn_id, "headers", headers)
    auth.check_pairs(conn_id, "cookies", cookies, forbidden=';, "\\')
    if cookies and "cookie" in map(str.lower, headers):
        _fail(conn_id, "headers", "holds Cookie although cookies are set; keep one of the two")
    if ours := [name for name in metadata if name.startswith(METADATA_PREFIX)]:
        _fail(conn_id, "metadata", f"{ours[0]!r}: keys that begin with {METADATA_PREFIX!r} are the provider's own")


def _as_strings(conn_id: str, where: str, pairs: Any) -> dict[str, str]:
    """Return what a module gave as headers, cookies or metadata."""
    if not all(isinstance(text, str) for pair in (pairs or {}).items() for text in pair):
        _fail(conn_id, where, "the module gave headers, cookies or metadata that are no texts")
    return dict(pairs or {})


def _credentials(
    conn_id: str, connection: AirflowConnection, extra: _Extra, allowed_modules: Collection[str]
) -> tuple[str, str, auth.RotatingToken | None]:
    """Return the value of Authorization for basic auth, a token that stays, and one that changes."""
    login, password = (connection.login or "").strip(), connection.password or ""
    if login and not password:
        _fail(conn_id, "login", "has no password; a token alone goes into the password, without a login")
    if safe_text(login + password) != login + password:
        _fail(conn_id, "password", "or the login holds a NUL character, or half of a surrogate pair; no header can")
    texts = {key: extra.text(key) for key in ("token", "token_file", "token_callable")}
    given = [key for key, text in texts.items() if text] + ["password"] * bool(password and not login)
    if len(given) > 1:
        _fail(conn_id, given[0], f"is one token and {given[1]} another; keep one of the two")
    token = texts["token"] or ("" if login else password.strip())
    if token and (problem := auth.token_problem(token)):
        _fail(conn_id, "token", problem)
    rotating = None
    if texts["token_file"]:
        rotating = auth.token_from_file(extra.path("token_file"), extra.check_folder)
    elif texts["token_callable"]:
        rotating = auth.token_from_callable(conn_id, texts["token_callable"], allowed_modules)
    return auth.basic(login, password) if login else "", token, rotating


def _client_cert(conn_id: str, extra: _Extra) -> tuple[str, str] | None:
    if not extra.text("client_cert"):
        if extra.text("client_key"):
            _fail(conn_id, "client_key", "is given without client_cert")
        return None
    cert = extra.path("client_cert")
    key = extra.path("client_key") if extra.text("client_key") else cert
    try:
        # An encrypted key would make OpenSSL ask for its password on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password=lambda: b"")
    except (OSError, ValueError) as e:
        _fail(conn_id, "client_cert", f"{str(cert)!r} and the key in {str(key)!r} can't be used ({e})")
    return str(cert), str(key)


def _is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    known = parts.scheme in ("http", "https") and parts.hostname and parts.username is None and port != 0
    return bool(known) and re.search(r"\s", text) is None


def read_json(text: str) -> Any:
    """
    Read JSON with its numbers as texts, as they are written.

    Airflow's database class for connections (3.3, not 2.11) reads each value in a URI's query as JSON, where it can: a
    token of digits is a number then.

    :raises ValueError: it is not JSON, or is nested so deeply that Python might give up on it later.
    """
    with contextlib.suppress(RecursionError):
        value = json.loads(text, parse_int=str, parse_float=_Fraction, parse_constant=str)
        if has_levels(value, MOST_LEVELS):
            return value
    raise ValueError("it is nested too deeply")


class _Fraction(str):
    """
    A number that is not whole, as it is written in the extra.

    In a URI it was written otherwise, perhaps: of ``1e5`` Airflow makes 100000.0, and of ``1.10`` 1.1.
    """

    __slots__ = ()


def _as_text(value: Any) -> Any:
    """Return the text of ``true`` and ``false``; anything else as it is."""
    return str(value).lower() if isinstance(value, bool) else value


class _Extra:
    """Typed access to the connection's extra; every failure names the key."""

    def __init__(self, conn_id: str, connection: AirflowConnection, credential_folders: Collection[str]) -> None:
        self._conn_id = conn_id
        self._folders = credential_folders
        try:
            # Not Airflow's extra_dejson, which is {} for what it can't decode.
            self._extra = read_json(connection.extra or "{}")
            if not isinstance(self._extra, dict):
                raise ValueError
        except ValueError:
            _fail(conn_id, "extra", "is no JSON object")
        for key, value in self._extra.items():
            self._check_safe(key, value)
            if key not in FIELDS:
                _fail(conn_id, key, f"is not known; the extra takes {', '.join(sorted(FIELDS))}")

    @property
    def given(self) -> list[str]:
        """Return the keys that have a value."""
        return [key for key, value in self._extra.items() if value or (key == "verify" and value is False)]

    def _wrong(self, key: str, problem: str) -> NoReturn:
        _fail(self._conn_id, key, f"{problem}; it takes {FIELDS[key].description}")

    def _get(self, key: str) -> Any:
        value = self._extra.get(key)
        return None if value == "" else value

    def text(self, key: str) -> str:
        value = _as_text(self._get(key))
        if value is not None and not isinstance(value, str):
            self._wrong(key, "must be a string")
        self._refuse_fraction(key, key, value)
        return (value or "").strip()

    def _refuse_fraction(self, key: str, name: str, value: object) -> None:
        if isinstance(value, _Fraction):
            _fail(
                self._conn_id,
                key,
                f"{name!r} is a number, but must be a string; write the connection as JSON, with quotes",
            )

    def strings(self, key: str) -> dict[str, str]:
        value = self._json(key)
        if not isinstance(value, dict):
            self._wrong(key, "is no object")
        texts = {name: _as_text(item) for name, item in value.items()}
        for name, item in texts.items():
            if not isinstance(item, str):
                self._wrong(key, f"the value of {name!r} must be a string")
            self._refuse_fraction(key, name, item)
        return texts

    def _json(self, key: str) -> Any:
        """Return an object; the form gives it as text."""
        value = self._get(key)
        if not isinstance(value, str):
            return {} if value is None else value
        try:
            found = read_json(value)
        except ValueError:
            self._wrong(key, "is not valid JSON")
        self._check_safe(key, found)  # JSON in JSON may escape what the text does not hold
        return found

    def _check_safe(self, key: str, value: Any) -> None:
        if not is_safe(value):
            _fail(self._conn_id, key, "holds a NUL character, or half of a surrogate pair")

    def amount(self, key: str) -> float:
        value = self._get(key)
        if value is None:
            default: float = getattr(ClusterConnection, key)
            return default
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 < number < math.inf:
            self._wrong(key, f"{value!r} is no positive number")
        return number

    def url(self, key: str) -> str:
        text = self.text(key)
        if text and not _is_web_address(text):
            self._wrong(key, "is no URL that begins with http:// or https://, without a login")
        return text.partition("#")[0].rstrip("/")

    def path(self, key: str) -> Path:
        path = Path(self.text(key))
        try:
            path = path.expanduser()
            self.check_folder(path)  # first: whether another file exists is nobody's business
            exists = path.exists()
        except ValueError as e:
            _fail(self._conn_id, key, str(e))
        except (OSError, RuntimeError):  # a name that is too long, a user that is not known
            exists = False
        if not exists:
            # What is no path may be the token itself.
            shown = repr(str(path)) if key != "token_file" or path.is_absolute() else "the file that it names"
            self._wrong(key, f"{shown} does not exist on this machine")
        return path

    def check_folder(self, path: Path) -> None:
        """
        Check that the deployment lets credentials come from a path; links in it count by where they lead.

        :raises ValueError: it does not.
        """
        if self._folders and not any(path.resolve().is_relative_to(Path(name).resolve()) for name in self._folders):
            raise ValueError(
                "it is not in one of the folders from which credentials may come; a deployment lists them in Airflow's "
                "option [ray_jobs] credential_folders"
            )

    def _switch(self, key: str) -> bool | None:
        """Return what is said in one of the ways to say true or false; None for anything else."""
        value = self._get(key)
        words: Mapping[object, bool] = {"true": True, "false": False}
        return value if isinstance(value, bool) else words.get(str(value).strip().lower())

    def flag(self, key: str) -> bool:
        if self._get(key) is None:
            return False
        switch = self._switch(key)
        if switch is None:
            self._wrong(key, f"{self._get(key)!r} is neither true nor false")
        return switch

    def verify(self) -> bool | str:
        value, switch = self._get("verify"), self._switch("verify")
        if value is None or switch is not None:
            return switch is not False
        if not isinstance(value, str):
            self._wrong("verify", f"{value!r} can't be used")
        return str(self.path("verify"))

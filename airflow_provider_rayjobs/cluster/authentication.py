"""Credentials of requests (Ray's token, basic auth, cookies), and which values are secret."""

from __future__ import annotations

import base64
import importlib
import re
import threading
import time
from enum import Enum
from typing import TYPE_CHECKING

from airflow_provider_rayjobs.exceptions import RayConnectionConfigError, RayJobsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

#: Where a Ray head looks for its token, in this order (``_private/authentication/http_token_authentication.py``).
TOKEN_HEADERS = ("Authorization", "X-Ray-Authorization")

#: The cookie in which Ray's dashboard also accepts its token.
TOKEN_COOKIE = "ray-authentication-token"  # noqa: S105 - its name

#: Headers whose names match this contain secrets.
_SECRET_NAME = re.compile("auth|token|secret|key|cookie|pass|session|credential|signature|jwt", re.IGNORECASE)

#: Shorter values are not masked: they occur in ordinary text. Airflow 3 does the same.
_SHORTEST_SECRET = 5

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # `token` of RFC 9110

#: Maximum number of bytes to read from a token file.
_TOKEN_FILE_LIMIT = 64 * 1024

#: Seconds to use a token of a ``token_callable``, so that a thousand jobs don't call a token service a thousand times.
TOKEN_KEPT = 30.0

#: Number of tokens of one source that are masked: the current one and those before it.
RECENT_TOKENS = 20


class Credentials(Enum):
    """The kind of credentials that a request carries."""

    NONE = "nothing"
    TOKEN = "a token that Ray can read"  # noqa: S105 - no token
    OTHER = "something else: a login, a cookie or a header for a proxy"


class RotatingToken:
    """
    A token that changes, and is therefore fetched repeatedly.

    :param ask: returns the token; may block, and may raise anything.
    :param source: where the token comes from; tokens with the same source are equal.
    :param keep: seconds to use a token before the next one is fetched.
    """

    def __init__(self, ask: Callable[[], object], source: str = "", keep: float = 0.0) -> None:
        self._ask = ask
        self._source = source
        self._keep = keep
        self._asked_at = float("-inf")
        self._refused = 0  # number of refused tokens
        self._lock = threading.RLock()  # reentrant: a signal handler may interrupt the thread that holds it
        #: The newest tokens, the current one last. A job may have printed the one of its start.
        self.recent: tuple[str, ...] = ()
        #: Called with each new token before it is used, to mask it.
        self.register: Callable[[str], object] = lambda _token: None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RotatingToken) and self._source == other._source

    def __hash__(self) -> int:
        return hash(self._source)

    @property
    def last(self) -> str:
        """The token that was fetched last; empty if none was."""
        return self.recent[-1] if self.recent else ""

    def current(self) -> str:
        """
        Return the current token.

        :raises ValueError: it can't be fetched; the message says why, without the token.
        """
        with self._lock:  # threads that waited for the lock use the token that was just fetched
            return self.last if self._is_kept() else self._fetch()

    def _is_kept(self) -> bool:
        return time.monotonic() - self._asked_at < self._keep

    def _fetch(self) -> str:
        now, refused = time.monotonic(), self._refused
        try:
            token = self._ask()
        except RayJobsError:
            raise  # a kill interrupted the function
        except Exception as e:  # the deployment's function may raise anything
            raise ValueError(f"{type(e).__name__}: {e}") from e
        if not isinstance(token, str):
            raise ValueError(f"the token must be a string, not {type(token).__name__}")
        token = token.strip()
        if problem := token_problem(token):
            raise ValueError(f"the token {problem}")
        if token != self.last:
            self.register(token)
            self.recent = (*(known for known in self.recent if known != token), token)[-RECENT_TOKENS:]
        if refused == self._refused:
            self._asked_at = now
        return token

    def drop(self) -> None:
        """Make the next request fetch a new token, because the cluster refused this one."""
        self._refused += 1
        self._asked_at = float("-inf")


def token_from_file(path: Path, check: Callable[[Path], object] = lambda path: None) -> RotatingToken:
    """
    Return the token in a file. It is read for every request: the file is small, and so no change is missed.

    :param check: called before each read; raises ValueError if the file must not be read.
    """

    def read() -> str:
        check(path)
        with path.open("rb") as file:
            return file.read(_TOKEN_FILE_LIMIT).decode()

    return RotatingToken(read, str(path))


def token_from_callable(conn_id: str, dotted_path: str, allowed_modules: Collection[str]) -> RotatingToken:
    """
    Return the token of a function without parameters, which is called at most every :data:`TOKEN_KEPT` seconds.

    :param dotted_path: ``package.module.function``.
    :param allowed_modules: the modules that may be imported.
    :raises RayConnectionConfigError: the module is not allowed, can't be imported, or lacks the function.
    """
    module, _, name = dotted_path.rpartition(".")
    function = getattr(import_allowed(conn_id, "token_callable", module, allowed_modules), name, None)
    if not callable(function):
        raise RayConnectionConfigError(conn_id, "token_callable", f"{module!r} has no function {name!r}")
    return RotatingToken(function, dotted_path, TOKEN_KEPT)


def import_allowed(conn_id: str, where: str, module: str, allowed_modules: Collection[str]) -> object:
    """
    Import a module that a connection names, if the deployment allows it.

    :raises RayConnectionConfigError: the module is not allowed, or can't be imported.
    """
    if module not in allowed_modules:
        raise RayConnectionConfigError(
            conn_id,
            where,
            f"the module {module!r} is not allowed; to allow it, add its name to Airflow's option [ray_jobs] "
            "allowed_modules",
        )
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise RayConnectionConfigError(conn_id, where, f"{module!r} can't be imported on this machine: {e}") from e


def with_token(headers: Mapping[str, str], token: str) -> dict[str, str]:
    """
    Return headers with Ray's token added.

    The head reads the second header if the first is missing. Both are sent, since a proxy may remove the first. If
    ``Authorization`` is already set (basic auth, a gateway's token), that one is for a proxy, and the token is sent
    only in the second header.
    """
    taken = {name.lower() for name in headers}
    return {**headers, **{name: f"Bearer {token}" for name in TOKEN_HEADERS if name.lower() not in taken}}


def credentials_in(headers: Mapping[str, str], cookies: Mapping[str, str]) -> Credentials:
    """Return the kind of credentials in headers and cookies."""
    values = {name.lower(): value.lower() for name, value in headers.items()}
    tokens = [values.get(name.lower(), "") for name in TOKEN_HEADERS]
    if any(token.startswith("bearer ") for token in tokens) or TOKEN_COOKIE in cookies:
        return Credentials.TOKEN
    return Credentials.OTHER if cookies or any(map(_SECRET_NAME.search, headers)) else Credentials.NONE


def basic(login: str, password: str) -> str:
    """Return the value of ``Authorization`` for basic auth."""
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()


def token_problem(token: str) -> str:
    """Return what is wrong with a token; empty if it is valid."""
    if not token:
        return "is empty"
    if not token.isprintable() or not token.isascii() or " " in token:
        return "must contain only printable ASCII characters without spaces"
    return ""


def check_pairs(conn_id: str, where: str, pairs: Mapping[str, str], forbidden: str = "") -> None:
    """
    Check headers or cookies.

    :param forbidden: characters that values must not contain.
    :raises RayConnectionConfigError: a name or a value can't be sent; the message does not show the value.
    """
    for name, value in pairs.items():
        if not _HEADER_NAME.fullmatch(name):
            raise RayConnectionConfigError(
                conn_id, where, f"{name!r} has characters that are not allowed in the name of a header or cookie"
            )
        if not value.isprintable() or not value.isascii() or value != value.strip() or set(value) & set(forbidden):
            raise RayConnectionConfigError(
                conn_id, where, f"the value of {name!r} has characters that can't be sent in an HTTP header"
            )


def without_scheme(values: Collection[str]) -> list[str]:
    """Return the credentials in header values without ``Bearer`` or ``Basic``; other values are left out."""
    return [value.split(" ", 1)[1] for value in values if value.lower().startswith(("bearer ", "basic "))]


def secret_values(headers: Mapping[str, str], cookies: Mapping[str, str]) -> list[str]:
    """Return the values to mask in all of Airflow's texts: cookies, and headers with a sensitive name."""
    values = [value for name, value in headers.items() if _SECRET_NAME.search(name)]
    values += without_scheme(list(headers.values()))
    values += cookies.values()
    return [value for value in values if len(value) >= _SHORTEST_SECRET]

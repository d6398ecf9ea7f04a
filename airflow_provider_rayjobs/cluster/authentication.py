"""What a request carries to be let in: Ray's token, basic auth and cookies; and which of it is secret."""

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

#: The cookie that Ray's dashboard takes for its token, too.
TOKEN_COOKIE = "ray-authentication-token"  # noqa: S105 - its name

#: Headers of such names hold secrets.
_SECRET_NAME = re.compile("auth|token|secret|key|cookie|pass|session|credential|signature|jwt", re.IGNORECASE)

#: Texts that are shorter are no secrets; masking them would blank out half of every log. Airflow 3 does the same.
_SHORTEST_SECRET = 5

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # `token` of RFC 9110

#: Bytes of a token file that are read.
_TOKEN_FILE_LIMIT = 64 * 1024


#: Seconds for which a function's token is used: a thousand jobs must not ask a token service a thousand times.
TOKEN_KEPT = 30.0


class Credentials(Enum):
    """What a request carries to be let in."""

    NONE = "nothing"
    TOKEN = "a token that Ray can read"  # noqa: S105 - no token
    OTHER = "something else: a login, a cookie or a header for a proxy"


class RotatingToken:
    """
    A token that changes and is therefore asked for again.

    :param ask: returns the token; may block, and may raise anything.
    :param source: names where it comes from; tokens of one source are equal.
    :param keep: seconds for which a token is used before the next is asked for.
    """

    def __init__(self, ask: Callable[[], object], source: str = "", keep: float = 0.0) -> None:
        self._ask = ask
        self._source = source
        self._keep = keep
        self._asked_at = float("-inf")
        self._refused = 0  # how many tokens were
        self._lock = threading.RLock()  # a signal handler may come back to where its own thread is
        self.last = ""
        #: Told each new token before it is used, to have it masked.
        self.register: Callable[[str], object] = lambda _token: None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RotatingToken) and self._source == other._source

    def __hash__(self) -> int:
        return hash(self._source)

    def current(self) -> str:
        """
        Return the token of now.

        :raises ValueError: there is none to be had; the message says why, without the token.
        """
        with self._lock:  # those who wait for it find the token that the first was given
            return self.last if self._is_kept() else self._fetch()

    def _is_kept(self) -> bool:
        return time.monotonic() - self._asked_at < self._keep

    def _fetch(self) -> str:
        now, refused = time.monotonic(), self._refused
        try:
            token = self._ask()
        except RayJobsError:
            raise  # a kill, which interrupted it
        except Exception as e:  # the deployment's own function raises what it likes
            raise ValueError(f"{type(e).__name__}: {e}") from e
        if not isinstance(token, str):
            raise ValueError(f"it is no text but {type(token).__name__}")
        token = token.strip()
        if problem := token_problem(token):
            raise ValueError(f"it {problem}")
        if token != self.last:
            self.register(token)
            self.last = token
        if refused == self._refused:
            self._asked_at = now
        return token

    def drop(self) -> None:
        """Have the next request ask anew: the cluster refused the token."""
        self._refused += 1
        self._asked_at = float("-inf")


def token_from_file(path: Path, check: Callable[[Path], object] = lambda path: None) -> RotatingToken:
    """
    Return the token in a file, which is read at every request: it is small, and no change of it is missed.

    :param check: asked before each time; raises ValueError when the file may not be read.
    """

    def read() -> str:
        check(path)
        with path.open("rb") as file:
            return file.read(_TOKEN_FILE_LIMIT).decode()

    return RotatingToken(read, str(path))


def token_from_callable(conn_id: str, dotted_path: str, allowed_modules: Collection[str]) -> RotatingToken:
    """
    Return the token that a function without parameters returns, asked for every :data:`TOKEN_KEPT` seconds.

    :param dotted_path: ``package.module.function``.
    :param allowed_modules: the modules that may be imported.
    :raises RayConnectionConfigError: the function may not be used, or is not there.
    """
    module, _, name = dotted_path.rpartition(".")
    function = getattr(import_allowed(conn_id, "token_callable", module, allowed_modules), name, None)
    if not callable(function):
        raise RayConnectionConfigError(conn_id, "token_callable", f"{module!r} has no function {name!r}")
    return RotatingToken(function, dotted_path, TOKEN_KEPT)


def import_allowed(conn_id: str, where: str, module: str, allowed_modules: Collection[str]) -> object:
    """
    Import a module that a connection names; only the deployment says which may be.

    :raises RayConnectionConfigError: it may not, or can't, be imported.
    """
    if module not in allowed_modules:
        raise RayConnectionConfigError(
            conn_id,
            where,
            f"{module!r} is no module that connections may name; a deployment allows modules by their names in "
            "Airflow's option [ray_jobs] allowed_modules",
        )
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise RayConnectionConfigError(conn_id, where, f"{module!r} can't be imported here: {e}") from e


def with_token(headers: Mapping[str, str], token: str) -> dict[str, str]:
    """
    Return headers with Ray's token added.

    The head looks into the second header when the first is not there. Both are sent, since nobody sees from here
    whether a proxy eats the first. An ``Authorization`` that is given (basic auth, a gateway's own token) is meant for
    a proxy, and the token goes into the second alone.
    """
    taken = {name.lower() for name in headers}
    return {**headers, **{name: f"Bearer {token}" for name in TOKEN_HEADERS if name.lower() not in taken}}


def credentials_in(headers: Mapping[str, str], cookies: Mapping[str, str]) -> Credentials:
    """Tell what of credentials these headers and cookies carry."""
    values = {name.lower(): value.lower() for name, value in headers.items()}
    tokens = [values.get(name.lower(), "") for name in TOKEN_HEADERS]
    if any(token.startswith("bearer ") for token in tokens) or TOKEN_COOKIE in cookies:
        return Credentials.TOKEN
    return Credentials.OTHER if cookies or any(map(_SECRET_NAME.search, headers)) else Credentials.NONE


def basic(login: str, password: str) -> str:
    """Return the value of ``Authorization`` for basic auth."""
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()


def token_problem(token: str) -> str:
    """Say what is wrong with a token; an empty text when nothing is."""
    if not token:
        return "is empty"
    if not token.isprintable() or not token.isascii() or " " in token:
        return "has characters that no HTTP header can carry"
    return ""


def check_pairs(conn_id: str, where: str, pairs: Mapping[str, str], forbidden: str = "") -> None:
    """
    Check headers or cookies.

    :param forbidden: characters that no value may have.
    :raises RayConnectionConfigError: a name or a value can't be sent; the value is not shown.
    """
    for name, value in pairs.items():
        if not _HEADER_NAME.fullmatch(name):
            raise RayConnectionConfigError(
                conn_id, where, f"{name!r} has characters that no name in an HTTP header can have"
            )
        if not value.isprintable() or not value.isascii() or value != value.strip() or set(value) & set(forbidden):
            raise RayConnectionConfigError(
                conn_id, where, f"the value of {name!r} has characters that no HTTP header can carry"
            )


def bare(values: Collection[str]) -> list[str]:
    """Return the credentials in values of headers, without their scheme."""
    return [value.split(" ", 1)[1] for value in values if value.lower().startswith(("bearer ", "basic "))]


def secret_values(headers: Mapping[str, str], cookies: Mapping[str, str]) -> list[str]:
    """Return what is to be masked wherever it shows up: cookies, and headers whose names speak of a secret."""
    values = [value for name, value in headers.items() if _SECRET_NAME.search(name)]
    values += bare(list(headers.values()))
    values += cookies.values()
    return [value for value in values if len(value) >= _SHORTEST_SECRET]

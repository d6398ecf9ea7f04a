"""Reads the extra of a connection; each error names the key and what it takes."""

from __future__ import annotations

import contextlib
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from urllib.parse import urlsplit

from airflow_provider_rayjobs.cluster.fields import FIELDS
from airflow_provider_rayjobs.exceptions import RayConnectionConfigError
from airflow_provider_rayjobs.text.json_levels import MOST_LEVELS, has_levels
from airflow_provider_rayjobs.text.safe_text import is_safe

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class AirflowConnection(Protocol):
    """What is read of an Airflow ``Connection``, of any version."""

    conn_type: str | None
    host: str | None
    port: int | None
    schema: str | None
    login: str | None
    password: str | None
    extra: str | None


def fail(conn_id: str, where: str, problem: str) -> NoReturn:
    """Raise the error for a wrong field of a connection."""
    raise RayConnectionConfigError(conn_id, where, problem)


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


class Extra:
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
            fail(conn_id, "extra", "is no JSON object")
        for key, value in self._extra.items():
            self._check_safe(key, value)
            if key not in FIELDS:
                fail(conn_id, key, f"is not known; the extra takes {', '.join(sorted(FIELDS))}")

    @property
    def given(self) -> list[str]:
        """Return the keys that have a value."""
        return [key for key, value in self._extra.items() if value or (key == "verify" and value is False)]

    def _wrong(self, key: str, problem: str) -> NoReturn:
        fail(self._conn_id, key, f"{problem}; it takes {FIELDS[key].description}")

    def _get(self, key: str) -> Any:
        value = self._extra.get(key)
        return None if value == "" else value

    def text(self, key: str) -> str:
        """Return a string; empty when the key has no value."""
        value = _as_text(self._get(key))
        if value is not None and not isinstance(value, str):
            self._wrong(key, "must be a string")
        self._refuse_fraction(key, key, value)
        return (value or "").strip()

    def _refuse_fraction(self, key: str, name: str, value: object) -> None:
        if isinstance(value, _Fraction):
            fail(
                self._conn_id,
                key,
                f"{name!r} is a number, but must be a string; write the connection as JSON, with quotes",
            )

    def strings(self, key: str) -> dict[str, str]:
        """Return an object of strings."""
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
            fail(self._conn_id, key, "holds a NUL character, or half of a surrogate pair")

    def amount(self, key: str) -> float:
        """Return a positive number, or the field's default."""
        value = self._get(key)
        if value is None:
            return FIELDS[key].default
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 < number < math.inf:
            self._wrong(key, f"{value!r} is no positive number")
        return number

    def url(self, key: str) -> str:
        """Return an HTTP URL without a slash at the end; empty when the key has no value."""
        text = self.text(key)
        if text and not _is_web_address(text):
            self._wrong(key, "is no URL that begins with http:// or https://, without a login")
        return text.partition("#")[0].rstrip("/")

    def path(self, key: str) -> Path:
        """Return the path of a file or folder that exists on this machine."""
        path = Path(self.text(key))
        try:
            path = path.expanduser()
            self.check_folder(path)  # first: whether another file exists is nobody's business
            exists = path.exists()
        except ValueError as e:
            fail(self._conn_id, key, str(e))
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
        """Return true or false; false when the key has no value."""
        if self._get(key) is None:
            return False
        switch = self._switch(key)
        if switch is None:
            self._wrong(key, f"{self._get(key)!r} is neither true nor false")
        return switch

    def verify(self) -> bool | str:
        """Return whether to verify TLS, or the path of a CA file or folder."""
        value, switch = self._get("verify"), self._switch("verify")
        if value is None or switch is not None:
            return switch is not False
        if not isinstance(value, str):
            self._wrong("verify", f"{value!r} can't be used")
        return str(self.path("verify"))

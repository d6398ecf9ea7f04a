"""Reads the extra of a connection; errors name the key and say what it must contain."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from airflow_provider_rayjobs.cluster.fields import FIELDS
from airflow_provider_rayjobs.cluster.urls import folder_problem, history_problem, is_web_address
from airflow_provider_rayjobs.exceptions import RayConnectionConfigError
from airflow_provider_rayjobs.text.json_levels import MOST_LEVELS, has_at_most_levels
from airflow_provider_rayjobs.text.safe_text import is_safe

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class AirflowConnection(Protocol):
    """The attributes of an Airflow ``Connection`` that are read, the same in all versions."""

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


def read_json(text: str) -> Any:
    """
    Read JSON, with numbers as strings, exactly as they are written.

    Airflow's database class for connections (3.3, not 2.11) reads each value in a URI's query as JSON if it can. So a
    token of digits becomes a number.

    :raises ValueError: the text is not JSON, or is nested so deeply that Python might fail on it later.
    """
    with contextlib.suppress(RecursionError):
        value = json.loads(text, parse_int=str, parse_float=_Float, parse_constant=str)
        if has_at_most_levels(value, MOST_LEVELS):
            return value
    raise ValueError("it is nested too deeply")


class _Float(str):
    """
    A number with a decimal point or an exponent, as it is written in the extra.

    In a URI it may have been written differently: Airflow turns ``1e5`` into 100000.0, and ``1.10`` into 1.1.
    """

    __slots__ = ()


def _as_text(value: Any) -> Any:
    """Return booleans as ``"true"`` and ``"false"``, and other values unchanged."""
    return str(value).lower() if isinstance(value, bool) else value


class Extra:
    """Typed access to the connection's extra; every error names the key."""

    def __init__(self, conn_id: str, connection: AirflowConnection, credential_folders: Collection[str]) -> None:
        self._conn_id = conn_id
        self._folders = credential_folders
        try:
            # Not Airflow's extra_dejson, which returns {} if it can't decode the text.
            self._extra = read_json(connection.extra or "{}")
            if not isinstance(self._extra, dict):
                raise ValueError
        except ValueError:
            fail(conn_id, "extra", "must be a JSON object")
        for key, value in self._extra.items():
            self._check_safe(key, value)
            if key not in FIELDS:
                fail(conn_id, key, f"is not a known key; the extra may contain {', '.join(sorted(FIELDS))}")

    @property
    def given(self) -> list[str]:
        """The keys that have a value."""
        return [key for key, value in self._extra.items() if value or (key == "verify" and value is False)]

    def _wrong(self, key: str, problem: str) -> NoReturn:
        fail(self._conn_id, key, f"{problem}; expected: {FIELDS[key].description}")

    def _get(self, key: str) -> Any:
        value = self._extra.get(key)
        return None if value == "" else value

    def text(self, key: str) -> str:
        """Return a string; empty if the key has no value."""
        value = _as_text(self._get(key))
        if value is not None and not isinstance(value, str):
            self._wrong(key, "must be a string")
        self._refuse_float(key, key, value)
        return (value or "").strip()

    def _refuse_float(self, key: str, name: str, value: object) -> None:
        if isinstance(value, _Float):
            fail(
                self._conn_id,
                key,
                f"{name!r} must be a string, not a number; write the connection as JSON, and the value with quotes",
            )

    def strings(self, key: str) -> dict[str, str]:
        """Return an object of strings."""
        value = self._json(key)
        if not isinstance(value, dict):
            self._wrong(key, "must be a JSON object")
        texts = {name: _as_text(item) for name, item in value.items()}
        for name, item in texts.items():
            if not isinstance(item, str):
                self._wrong(key, f"the value of {name!r} must be a string")
            self._refuse_float(key, name, item)
        return texts

    def _json(self, key: str) -> Any:
        """Return an object; the connection form stores it as a string of JSON."""
        value = self._get(key)
        if not isinstance(value, str):
            return {} if value is None else value
        try:
            found = read_json(value)
        except ValueError:
            self._wrong(key, "is not valid JSON")
        self._check_safe(key, found)  # JSON within JSON may contain escapes of forbidden characters
        return found

    def _check_safe(self, key: str, value: Any) -> None:
        if not is_safe(value):
            fail(self._conn_id, key, "must not contain NUL or lone surrogates")

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
            self._wrong(key, f"must be a positive number, not {value!r}")
        return number

    def url(self, key: str) -> str:
        """Return an HTTP URL without a slash at the end; empty if the key has no value."""
        text = self.text(key)
        if text and not is_web_address(text):
            self._wrong(key, "must be a URL that begins with http:// or https://, without a login")
        return text.partition("#")[0].rstrip("/")

    def history_url(self, key: str) -> str:
        """Return the template of a history server's URL; empty if the key has no value."""
        text = self.text(key)
        if text and (problem := history_problem(text)):
            self._wrong(key, problem)
        return text

    def package_folder(self, key: str) -> str:
        """Return the URL of a folder in object storage, without a slash at the end; empty if the key has no value."""
        text = self.text(key)
        if text and (problem := folder_problem(text)):
            self._wrong(key, problem)
        return text.rstrip("/")

    def path(self, key: str) -> Path:
        """Return the path of a file or folder that exists on this machine."""
        path = Path(self.text(key))
        try:
            path = path.expanduser()
            self.check_folder(path)  # first, so that errors don't reveal whether a file outside the folders exists
            exists = path.exists()
        except ValueError as e:
            fail(self._conn_id, key, str(e))
        except (OSError, RuntimeError):  # the name is too long, or the user after ~ is unknown
            exists = False
        if not exists:
            # The value may be the token itself, written into the wrong field.
            shown = repr(str(path)) if key != "token_file" or path.is_absolute() else "the file"
            self._wrong(key, f"{shown} does not exist on this machine")
        return path

    def check_folder(self, path: Path) -> None:
        """
        Check that the deployment allows credentials from a path; symbolic links are resolved first.

        :raises ValueError: it does not.
        """
        if self._folders and not any(path.resolve().is_relative_to(Path(name).resolve()) for name in self._folders):
            raise ValueError(
                "the file is not in a folder that credentials may come from; to allow its folder, add it to Airflow's "
                "option [ray_jobs] credential_folders"
            )

    def _switch(self, key: str) -> bool | None:
        """Return the boolean that a value stands for; None if it is not one."""
        value = self._get(key)
        words: Mapping[object, bool] = {"true": True, "false": False}
        return value if isinstance(value, bool) else words.get(str(value).strip().lower())

    def flag(self, key: str) -> bool:
        """Return a boolean; False if the key has no value."""
        if self._get(key) is None:
            return False
        switch = self._switch(key)
        if switch is None:
            self._wrong(key, f"must be true or false, not {self._get(key)!r}")
        return switch

    def verify(self) -> bool | str:
        """Return whether to verify TLS, or the path of a CA file or folder."""
        value, switch = self._get("verify"), self._switch("verify")
        if value is None or switch is not None:
            return switch is not False
        if not isinstance(value, str):
            self._wrong("verify", f"must be a string or a boolean, not {value!r}")
        return str(self.path("verify"))

r"""
Text that others wrote, made safe to show and to store; no I/O.

A job's output, a cluster's answers and a function's value may hold what Airflow can't keep: PostgreSQL refuses NUL in
JSON, and no database and no HTTP answer takes half of a surrogate pair, by which Python stands for bytes that are not
UTF-8. Whatever leaves the provider (events, XComs, arguments of triggers, links, log lines, messages) passes through
this module, which shows such characters as ``\x00`` and ``\udc80``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: What a terminal acts upon instead of showing it; tabs and line ends are wanted.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

#: A URL from behind its scheme on; and the host of one, with a login and a port. None looks back, or at a character
#: twice: a cluster's text may be made to take long.
_URL = re.compile(r"://[^\s\"'<>]+")
_AUTHORITY = re.compile(r"[^\s\"'<>/?#]*")
_WORD = re.compile(r"\S*")


def safe_text(text: str) -> str:
    """Return a text that every log, JSON document and database takes."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode(errors="backslashreplace").decode()
    return text.replace("\0", r"\x00") if "\0" in text else text


def safe_value(value: Any) -> Any:
    """Return a JSON value, all whose texts and keys are safe; what else it may hold stays as it is."""
    if isinstance(value, str):
        return safe_text(value)
    if isinstance(value, Mapping):
        return {safe_value(key): safe_value(item) for key, item in value.items()}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(map(safe_value, value))
    return value


def is_safe(value: Any) -> bool:
    """Whether :func:`safe_value` leaves a value as it is."""
    if isinstance(value, str):
        return safe_text(value) == value
    if isinstance(value, Mapping):
        return all(is_safe(key) and is_safe(item) for key, item in value.items())
    return all(map(is_safe, value)) if type(value) in (list, tuple, set, frozenset) else True


def for_terminal(text: str) -> str:
    """Return a text that a terminal shows as it is: control characters, such as those of escape sequences, as text."""
    return _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", safe_text(text))


def without_credentials(value: Any) -> Any:
    """Return a JSON value without the logins and the queries that are in its URLs."""
    if isinstance(value, str):
        return without_logins(_URL.sub(_without_query, value))
    if isinstance(value, Mapping):
        return {key: without_credentials(item) for key, item in value.items()}
    return [without_credentials(item) for item in value] if isinstance(value, list | tuple) else value


def without_logins(text: str) -> str:
    """Return a text without the logins that are in its URLs."""
    if "://" not in text:
        return text
    first, *rests = text.split("://")
    return "://".join([first, *("***" + rest[len(login) :] if (login := login_in(rest)) else rest for rest in rests)])


def login_in(rest: str) -> str:
    """
    Return the login of a URL, an empty text if it has none.

    A password with a slash, a quote or the like, which should be quoted but often is not, counts as well: then what is
    in the place of the port is not a number.

    :param rest: what comes behind ``://``, with or without the text behind the URL.
    """
    authority = _found(_AUTHORITY, rest)
    port = authority.rpartition(":")[2] if not authority.endswith("]") else ""  # of an IPv6 address
    if "@" not in authority and ":" in authority and port and not port.isdigit():
        authority = _found(_WORD, rest)
    return authority.rpartition("@")[0]


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.match(text)
    return match[0] if match else ""


def _without_query(url: re.Match[str]) -> str:
    path, mark, query = url[0].partition("?")
    return f"{path}{mark}{query and '***'}"

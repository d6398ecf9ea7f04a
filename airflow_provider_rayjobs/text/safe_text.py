r"""
Makes untrusted text safe to show and to store; no I/O.

A job's output, a cluster's answers and a function's value may contain characters that Airflow can't store: PostgreSQL
rejects NUL in JSON, and no database and no HTTP response can hold lone surrogates, with which Python represents bytes
that are not UTF-8. This module writes them as ``\x00`` and ``\udc80``. Everything that leaves the provider passes
through it: events, XComs, arguments of triggers, links, log lines and messages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: Control characters, which a terminal would act upon; except tabs and line ends.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

#: The part of a URL after its scheme, and its host with login and port. The patterns don't backtrack, since a cluster's
#: text may be crafted to take long.
_URL = re.compile(r"://[^\s\"'<>]+")
_AUTHORITY = re.compile(r"[^\s\"'<>/?#]*")
_WORD = re.compile(r"\S*")


def safe_text(text: str) -> str:
    """Return a text that every log, JSON document and database can hold."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode(errors="backslashreplace").decode()
    return text.replace("\0", r"\x00") if "\0" in text else text


def safe_value(value: Any) -> Any:
    """Return a JSON value with all its strings and keys made safe; other values are unchanged."""
    if isinstance(value, str):
        return safe_text(value)
    if isinstance(value, Mapping):
        return {safe_value(key): safe_value(item) for key, item in value.items()}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(map(safe_value, value))
    return value


def is_safe(value: Any) -> bool:
    """Whether :func:`safe_value` leaves a value unchanged."""
    if isinstance(value, str):
        return safe_text(value) == value
    if isinstance(value, Mapping):
        return all(is_safe(key) and is_safe(item) for key, item in value.items())
    return all(map(is_safe, value)) if type(value) in (list, tuple, set, frozenset) else True


def for_terminal(text: str) -> str:
    """Return a text for a terminal: control characters, such as those of escape sequences, are shown in hex."""
    return _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", safe_text(text))


def one_line(text: str, longest: int | None = None) -> str:
    """
    Return a cluster's text as one safe line, without the logins of its URLs.

    :param longest: maximum length, in characters. The text is cut last: the beginning of a login would not be
        recognized. For the same reason, other secrets must be removed before.
    """
    return " ".join(safe_text(without_logins(text)).split())[:longest]


def without_credentials(value: Any) -> Any:
    """Return a JSON value without the logins and queries of its URLs."""
    if isinstance(value, str):
        return without_logins(_URL.sub(_without_query, value))
    if isinstance(value, Mapping):
        return {key: without_credentials(item) for key, item in value.items()}
    return [without_credentials(item) for item in value] if isinstance(value, list | tuple) else value


def without_logins(text: str) -> str:
    """Return a text without the logins of its URLs."""
    if "://" not in text:
        return text
    first, *rests = text.split("://")
    return "://".join([first, *("***" + rest[len(login) :] if (login := login_in(rest)) else rest for rest in rests)])


def login_in(rest: str) -> str:
    """
    Return the login of a URL; empty if it has none.

    The password may contain characters that should be percent-encoded but often are not, such as a slash. They show in
    the place of the port, which is then not a number.

    :param rest: the text after ``://``; may go on behind the URL.
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

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

#: In URLs: a login, and a query, which may be a signature.
_LOGIN_IN_URL = re.compile(r"(?<=://)[^/\s\"'<>]*@")
_QUERY_IN_URL = re.compile(r"(://[^\s\"'<>?]+\?)[^\s\"'<>]+")


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


def for_terminal(text: str) -> str:
    """Return a text that a terminal shows as it is: control characters, such as those of escape sequences, as text."""
    return _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", safe_text(text))


def without_credentials(value: Any) -> Any:
    """Return a JSON value without the logins and the queries that are in its URLs."""
    if isinstance(value, str):
        return _QUERY_IN_URL.sub(r"\1***", without_logins(value))
    if isinstance(value, Mapping):
        return {key: without_credentials(item) for key, item in value.items()}
    return [without_credentials(item) for item in value] if isinstance(value, list | tuple) else value


def without_logins(text: str) -> str:
    """Return a text without the logins that are in its URLs."""
    return _LOGIN_IN_URL.sub("***@", text) if "://" in text else text

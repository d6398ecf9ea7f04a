"""Checks of strings and dicts that Ray passes to processes. DAG files import this, so it loads nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Maximum size of an argument or environment variable on Linux, in bytes (``MAX_ARG_STRLEN`` without the final NUL).
LARGEST_STRING = 131_071


def check_env_vars(name: str, env_vars: Any) -> None:
    """Check that environment variables can be passed to a process; messages never show values."""
    check_strings(name, env_vars)
    for key, value in env_vars.items():
        if not key or "=" in key or not is_passable(key):
            raise ValueError(f"{name} has the key {key!r}, which is not a valid name for an environment variable")
        if not is_passable(value):
            raise ValueError(
                f"{name}[{key!r}] must not contain NUL or lone surrogates: environment variables can't hold them"
            )
        size = len(f"{key}={value}".encode())
        if size > LARGEST_STRING:
            raise ValueError(
                f"{name}[{key!r}] has {size:,} bytes with its name; on Linux, an environment variable has at most "
                f"{LARGEST_STRING:,}. Put it where the cluster can read it: into a file of the working_dir, or if it "
                "is secret, into a secret store"
            )


def check_strings(name: str, value: Any) -> None:
    """Check that a value is a mapping of strings to strings."""
    check_mapping(name, value)
    for key, item in value.items():
        if not isinstance(key, str):
            raise TypeError(f"{name} has the key {key!r}; keys must be strings")
        if not isinstance(item, str):
            raise TypeError(f"{name}[{key!r}] must be a string, not {type(item).__name__}; convert it with str(...)")


def check_mapping(name: str, value: Any) -> None:
    """Check that a value is a mapping."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict, not {type(value).__name__}")


def is_passable(text: str) -> bool:
    """Whether a text can be passed to a process: it contains no NUL and no lone surrogates."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)

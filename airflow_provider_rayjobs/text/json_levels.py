"""Limits how deeply JSON values may be nested."""

from __future__ import annotations

from typing import Any

#: Maximum nesting of objects and lists in a job's ``runtime_env`` and other objects, and in a connection's extra.
MOST_LEVELS = 100


def has_at_most_levels(value: Any, most: int) -> bool:
    """Whether the objects and lists of a JSON value are nested at most ``most`` levels deep."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most > 0 and all(has_at_most_levels(item, most - 1) for item in items)

"""How deeply JSON values may be nested."""

from __future__ import annotations

from typing import Any

#: Containers in containers of a ``runtime_env`` or other object of a job, or of a connection's extra, at most.
MOST_LEVELS = 100


def has_levels(value: Any, most: int) -> bool:
    """Whether a JSON value has at most ``most`` containers in containers."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most > 0 and all(has_levels(item, most - 1) for item in items)

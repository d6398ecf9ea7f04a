"""Replaces values that differ between heads by fixed ones, so that only differences between Ray releases remain."""

from __future__ import annotations

import re
from typing import Any

#: Fixed values by key, for times, memory, and numbers of processes and actors.
_BY_KEY: dict[str, Any] = {
    "start_time": 1767225600000,
    "end_time": 1767225605000,
    "pid": "4711",
    "num_after_truncation": 8,
    "total": 8,
    "memory": [0.0, 4000000000.0],
    "object_store_memory": [0.0, 128000000.0],
}

#: Keys whose values differ between requests, and which nothing reads.
_DROPPED = frozenset(
    {
        *("autoscalerReport", "autoscalerUpdateTime", "autoscalingStatus", "gcsRequestTime", "monitorPid"),
        *("nonTerminatedNodesTime", "time"),
    }
)

_IN_TEXT = [
    (r"[^\s\"'(]*/site-packages/", "/site-packages/"),
    (r"[^\s\"'(]*/lib/python3\.\d+/", "/python/"),
    (r"session_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_\d+_\d+", "session_2026-01-01_00-00-00_000000_1"),
    (r"/tmp/rj[^/\s\"']*", "/tmp/rj"),
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d([.,]\d+)?", "2026-01-01 00:00:00,000"),
    (r"\b\d+\.\d+\.\d+\.\d+\b", "127.0.0.1"),
    (r"(?<=127\.0\.0\.1:)\d+", "52365"),
    (r"^[0-9a-f]{8}$", "02000000"),  # Ray's internal id of a job
    (r"\b0x[0-9a-f]+", "0x7f0000000000"),
    (r"(?<=pid=)\d+", "4711"),
    (r"(?<=actual body size )\d+", "105906176"),
]
_HEX = re.compile(r"\b[0-9a-f]{24,}\b")


def stable(value: Any, key: str = "") -> Any:
    """
    Return a decoded response with fixed values instead of those that differ between runs.

    :param key: the key of the value.
    """
    if isinstance(value, dict):
        return {stable_text(name): stable(item, name) for name, item in value.items() if name not in _DROPPED}
    if key in _BY_KEY and value:
        return _BY_KEY[key]
    if isinstance(value, list):
        return [stable(item) for item in value]
    if isinstance(value, str) and key != "ray_commit":
        return stable_text(value)
    return value


def stable_text(text: str) -> str:
    """Return text with fixed values instead of paths, times, addresses and ids."""
    for pattern, fixed in _IN_TEXT:
        text = re.sub(pattern, fixed, text)
    return _HEX.sub(lambda match: "ab" * (len(match.group()) // 2), text)

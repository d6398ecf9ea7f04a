"""Stands in for Airflow's Stats, and keeps what is sent."""

from __future__ import annotations

from typing import Any


class KeptStats:
    """What Airflow's Stats takes."""

    def __init__(self) -> None:
        #: Kind, name, value and tags of each.
        self.sent: list[tuple[str, str, Any, dict[str, str]]] = []

    def incr(self, stat: str, count: int, *, tags: dict[str, str]) -> None:
        """Keep a count."""
        self.sent.append(("counter", stat, count, tags))

    def timing(self, stat: str, dt: Any, *, tags: dict[str, str]) -> None:
        """Keep a time, in seconds."""
        self.sent.append(("timer", stat, dt.total_seconds(), tags))

    def gauge(self, stat: str, value: float, *, tags: dict[str, str]) -> None:
        """Keep a value."""
        self.sent.append(("gauge", stat, value, tags))

    def of(self, name: str) -> list[Any]:
        """Return the values of a metric, whose name is given without ``ray_jobs.``."""
        return [value for _, stat, value, _ in self.sent if stat == f"ray_jobs.{name}"]

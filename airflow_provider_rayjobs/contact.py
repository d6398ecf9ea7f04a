"""Losing contact with a cluster, and for how long it is borne."""

from __future__ import annotations

import time
from typing import Any


class Contact:
    """
    Counts how long a cluster has been unreachable.

    :param budget: seconds without contact that are borne.
    :param log: where the loss and the return of contact are told, once each.
    """

    def __init__(self, budget: float, log: Any) -> None:
        self._budget = budget
        self._log = log
        self._lost_at: float | None = None

    @property
    def lost(self) -> bool:
        """Whether the last request found no contact."""
        return self._lost_at is not None

    def back(self) -> None:
        """Note that the cluster answered."""
        if self._lost_at is not None:
            self._log.info("Contact with the cluster is back after %.0f s", time.monotonic() - self._lost_at)
            self._lost_at = None

    def failed(self, error: Exception) -> str | None:
        """
        Note that the cluster did not answer.

        :return: None while the budget lasts, then what to tell.
        """
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
            self._log.warning("No contact with the cluster; trying on for %.0f s: %s", self._budget, error)
        lasted = now - self._lost_at
        if lasted < self._budget:
            return None
        return (
            f"the cluster was unreachable for {lasted:.0f} s (the connection's unreachable_timeout is "
            f"{self._budget:.0f} s). Last error: {error}"
        )

"""Losing contact with a cluster, and for how long a task waits until it is back."""

from __future__ import annotations

import math
import time
from typing import Any


class Contact:
    """
    Counts how long a cluster has been unreachable.

    :param budget: seconds without contact after which to give up.
    :param log: where the loss and the return of contact are told, once each.
    """

    def __init__(self, budget: float, log: Any) -> None:
        self._budget = budget
        self._log = log
        self._lost_at: float | None = None
        self._error: Exception | None = None

    @property
    def lost(self) -> bool:
        """Whether the last request found no contact."""
        return self._lost_at is not None

    def back(self) -> None:
        """Note that the cluster answered."""
        if self._lost_at is not None:
            self._log.info("Contact with the cluster is back after %.0f s", time.monotonic() - self._lost_at)
            self._lost_at = None

    @property
    def left(self) -> float:
        """Seconds until the budget is used up, as things stand."""
        return math.inf if self._lost_at is None else self._lost_at + self._budget - time.monotonic()

    def failed(self, error: Exception, since: float | None = None) -> str | None:
        """
        Note that the cluster did not answer.

        :param since: seconds of the monotonic clock since when it has not; by default, since now.
        :return: as :meth:`given_up`.
        """
        if self._lost_at is None:
            self._lost_at = time.monotonic() if since is None else since
            self._log.warning("No contact with the cluster; trying on for %.0f s: %s", self._budget, error)
        self._error = error
        return self.given_up()

    def given_up(self) -> str | None:
        """Return None while there is contact or the budget lasts, then what to tell."""
        if self._lost_at is None or self.left > 0:
            return None
        return (
            f"the cluster was unreachable for {time.monotonic() - self._lost_at:.0f} s (the connection's "
            f"unreachable_timeout is {self._budget:.0f} s). Last error: {self._error}"
        )

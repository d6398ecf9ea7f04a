"""Measures how long a cluster has been unreachable, and decides when a task gives up."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Contact:
    """
    Measures how long a cluster has been unreachable.

    :param budget: seconds without contact after which to give up.
    :param log: logger for the loss and the return of contact; each is logged once.
    :param public: removes secrets from the text of an error, which may quote a job's text.
    """

    def __init__(self, budget: float, log: Any, public: Callable[[str], str] = str) -> None:
        self._budget = budget
        self._log = log
        self._public = public
        self._lost_at: float | None = None
        self._error: Exception | None = None
        self._was_slow = False

    @property
    def lost(self) -> bool:
        """Whether the last request got no answer."""
        return self._lost_at is not None

    def back(self) -> None:
        """Note that the cluster answered."""
        if self._lost_at is not None:
            self._log.info("Contact with the cluster is back after %.0f s", time.monotonic() - self._lost_at)
            self._lost_at = None

    @property
    def left(self) -> float:
        """Seconds until the budget is used up; infinite while there is contact."""
        return math.inf if self._lost_at is None else self._lost_at + self._budget - time.monotonic()

    def is_slow(self, address: str) -> None:
        """Note that a request has no answer yet; logged once."""
        if self._lost_at is None and not self._was_slow:
            self._was_slow = True
            self._log.info("No answer from %s yet; waiting", address)

    def failed(self, error: Exception, since: float | None = None) -> str | None:
        """
        Note that the cluster did not answer.

        :param since: when contact was lost, in seconds of the monotonic clock; now by default.
        :return: as :meth:`given_up`.
        """
        if self._lost_at is None:
            self._lost_at = time.monotonic() if since is None else since
            text = self._public(str(error))
            self._log.warning("No contact with the cluster; retrying for up to %.0f s: %s", self._budget, text)
        self._error = error
        return self.given_up()

    def given_up(self) -> str | None:
        """Return None while there is contact or the budget lasts, then the text of the error."""
        if self._lost_at is None or self.left > 0:
            return None
        return (
            f"the cluster was unreachable for {time.monotonic() - self._lost_at:.0f} s (the connection's "
            f"unreachable_timeout is {self._budget:.0f} s). Last error: {self._public(str(self._error))}"
        )

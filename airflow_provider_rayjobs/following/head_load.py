"""
How much of the Ray head's time the requests of a poller cost, and whether a list is cheaper than single requests.

Measured on Ray 2.60: ``GET /api/jobs/{id}`` takes 1.7 ms of the head, the list ``GET /api/jobs/`` 0.32 ms for each job
on record. So the list is cheaper if more than about a fifth of all jobs on record are followed. Reading it takes this
process about 0.08 ms per job. No I/O here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

#: Seconds of the head that a request for one job takes, and the list per job on record.
LOOK_COST = 0.0017
LIST_COST = 0.00032

#: Seconds that reading the list takes this process, per job on record.
READ_COST = 0.00008

#: Largest share of the head's time that is used. If the jobs need more, the requests come later.
SHARE = 0.5

#: Seconds of the head's time that requests may take at once before they are slowed down.
BURST = 1.0

#: Fewer jobs than this are always requested one by one. A longer list than this is not requested: the head answers
#: nothing else while it makes one, and fails at about 100,000 jobs.
LEAST_WATCHED = 20
MOST_LISTED = 20_000

#: A list that is requested only to learn how many jobs are on record may cost at most this part of what single requests
#: have cost since the last list.
PROBE_SHARE = 1 / 20


def list_interval(delays: Collection[float], record: int) -> float:
    """
    Return the seconds between two lists; infinity if single requests are cheaper, or tell earlier.

    A list describes the moment when the head began to make it. So it comes earlier than the shortest delay by the time
    that it takes, but never so often that the head has no time for others.

    :param delays: the seconds between two requests that each job asks for.
    :param record: number of jobs on record.
    """
    if record > MOST_LISTED:
        return math.inf
    shortest, cost = min(delays), LIST_COST * record
    took = cost + READ_COST * record
    interval = max(shortest - took, cost / SHARE)
    alone = LOOK_COST * sum(1 / delay for delay in delays)
    in_time = interval + took <= shortest * max(1.0, alone / SHARE) * (1 + 1e-9)
    return interval if in_time and cost / interval < alone else math.inf


class HeadLoad:
    """Counts what the requests cost one head, and how many jobs it has on record."""

    def __init__(self) -> None:
        self.on_record: int | None = None
        self._spent = 0.0  # by single requests since the last list
        self._free_at = -math.inf

    def pause(self, cost: float, now: float) -> float:
        """
        Count a request.

        :param cost: seconds of the head's time.
        :param now: seconds of a monotonic clock.
        :return: seconds to wait before it is sent, so that the head has time for others.
        """
        self._free_at = max(self._free_at, now - BURST) + cost / SHARE
        return max(self._free_at - now, 0.0)

    def looked(self) -> None:
        """Count a request for one job."""
        self._spent += LOOK_COST

    def estimate(self, record: int) -> None:
        """Note the estimated number of jobs on record."""
        self.on_record = record

    def listed(self, record: int) -> None:
        """Note the number of jobs in a list."""
        self.on_record, self._spent = record, 0.0

    def list_cost(self, watched: int) -> float:
        """Return the seconds of the head that a list takes; infinity if the number of jobs is unknown or too large."""
        if self.on_record is None or watched < LEAST_WATCHED:
            return math.inf
        record = max(self.on_record, watched)
        return LIST_COST * record if record <= MOST_LISTED else math.inf

    def list_interval(self, delays: Collection[float]) -> float:
        """
        Return the seconds between two lists; infinity if jobs are to be requested one by one.

        :param delays: the seconds between two requests that each job asks for.
        """
        watched = len(delays)
        if watched < LEAST_WATCHED:
            return math.inf
        known = max(self.on_record or 0, watched)
        if self.on_record is not None:
            interval = list_interval(delays, known)
            if interval < math.inf or known > MOST_LISTED:
                return interval
        # A list is too expensive for what is known to be on record, or nothing is known. Jobs may have been deleted.
        cost = LIST_COST * known if self.on_record is not None else LOOK_COST * watched
        return list_interval(delays, watched) if cost < PROBE_SHARE * self._spent else math.inf

"""
Estimates what requests for jobs cost the Ray head, and chooses the cheapest way to poll them; no I/O.

Measured on Ray 2.60: one ``GET /api/jobs/{id}`` takes 1.7 ms of the head's time, the list ``GET /api/jobs/`` 0.32 ms
for each job on record. So the list is cheaper when more than about a fifth of all jobs on record are followed. Reading
the list takes this process about 0.08 ms for each job.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

#: Seconds of the head's time that one job's request takes, and the list for each job on record.
LOOK_COST = 0.0017
LIST_COST = 0.00032

#: Seconds that this process needs to read the list, for each job on record.
READ_COST = 0.00008

#: Largest share of the head's time that is used; requests beyond it are delayed.
SHARE = 0.5

#: Seconds of the head's time that requests may use at once before they are delayed.
BURST = 1.0

#: Delays that are sampled to find the best interval, and how many of them are tried.
SAMPLE = 200
CANDIDATES = 20

#: Fewer jobs than this are always requested one by one. With more than ``MOST_LISTED`` on record no list is requested:
#: the head answers nothing else meanwhile, and at about 100,000 jobs it breaks off.
LEAST_WATCHED = 20
MOST_LISTED = 20_000

#: A list that is requested only to count the jobs on record may cost a fifth of the single requests since the last list
#: the first time, and a twentieth later.
CAUTION_FIRST = 5
CAUTION_AGAIN = 20


class Plan(NamedTuple):
    """
    How all jobs are polled.

    :param interval: seconds between two lists; infinite for no lists.
    :param covers: jobs with this delay or a longer one, in seconds, are left to the list.
    """

    interval: float
    covers: float


NO_LIST = Plan(math.inf, math.inf)


def best_plan(delays: Collection[float], record: int) -> Plan:
    """
    Return the plan that costs the head least.

    A list shows the jobs as they were when the head began to make it. So it is requested earlier than its jobs ask for,
    by the time that it takes to make and to read; but never so often that the head has no time for others.

    :param delays: the seconds between two requests that each job asks for.
    :param record: number of jobs on record.
    """
    if record > MOST_LISTED:
        return NO_LIST
    alone = LOOK_COST * sum(1 / delay for delay in delays)
    best, least = NO_LIST, alone
    cost = LIST_COST * record
    took, shortest = cost + READ_COST * record, cost / SHARE
    ordered = sorted(delays)
    step = -(-len(ordered) // SAMPLE)  # for very many jobs a sample is as good, and does not block the event loop
    sample = ordered[step // 2 :: step]
    scale = len(ordered) / len(sample)
    for covers in dict.fromkeys([ordered[0], *sample[:: -(-len(sample) // CANDIDATES)]]):
        in_time = covers - took
        interval = max(in_time, shortest)
        if interval > in_time and interval + took > covers * alone / SHARE:
            continue  # single requests would be earlier, even with their delays
        looks = scale * sum(1 / delay for delay in sample if delay < covers)
        load = cost / interval + LOOK_COST * looks
        if load < least:
            best, least = Plan(interval, covers), load
    return best


class HeadLoad:
    """Tracks what requests cost one head, and how many jobs it has on record."""

    def __init__(self) -> None:
        self.on_record: int | None = None
        self._listed = False  # on_record is from a list, not an estimate
        self._spent = 0.0  # seconds of the head's time, on single requests since the last list
        self._free_at = -math.inf

    def pause(self, cost: float, now: float) -> float:
        """
        Record a request.

        :param cost: seconds of the head's time.
        :param now: seconds of a monotonic clock.
        :return: seconds to wait before it is sent, so that the head has time for others.
        """
        self._free_at = max(self._free_at, now - BURST) + cost / SHARE
        return max(self._free_at - now, 0.0)

    def looked(self) -> None:
        """Record a request for one job."""
        self._spent += LOOK_COST

    def estimate(self, record: int) -> None:
        """Set about how many jobs are on record."""
        self.on_record = record

    def listed(self, record: int) -> None:
        """Set how many jobs the list held."""
        self.on_record, self._listed, self._spent = record, True, 0.0

    def list_cost(self, watched: int) -> float:
        """Return the seconds of the head's time that a list will take; infinite if unknown or too many."""
        if self.on_record is None or watched < LEAST_WATCHED:
            return math.inf
        record = max(self.on_record, watched)
        return LIST_COST * record if record <= MOST_LISTED else math.inf

    def plan(self, delays: Collection[float]) -> Plan:
        """
        Return the best plan for all jobs.

        :param delays: the seconds between two requests that each job asks for.
        """
        watched = len(delays)
        if watched < LEAST_WATCHED:
            return NO_LIST
        known = max(self.on_record or 0, watched)
        if self.on_record is not None:
            best = best_plan(delays, known)
            if best is not NO_LIST or known > MOST_LISTED:
                return best
        # As far as is known a list does not pay. It is tried now and then: jobs may have been deleted.
        risk = LIST_COST * (known if self.on_record is not None else watched * LOOK_COST / LIST_COST)
        if self._spent > risk * (CAUTION_AGAIN if self._listed else CAUTION_FIRST):
            return best_plan(delays, watched)
        return NO_LIST

"""
What looks at jobs cost the Ray head, and the cheapest way to look; no I/O.

Measured on Ray 2.60: one ``GET /api/jobs/{id}`` takes 1.7 ms of the head, the list ``GET /api/jobs/`` 0.32 ms for each
job that the cluster ever had. So the list pays when more than about a fifth of all jobs on record are followed. To read
it takes this process some 0.08 ms for each job.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

#: Seconds of the head that a look at one job takes, and the list for each job on record.
LOOK_COST = 0.0017
LIST_COST = 0.00032

#: Seconds that reading the list takes us, for each job on record.
READ_COST = 0.00008

#: The most of the head's time that is used; beyond it the looks come later.
SHARE = 0.5

#: Seconds of looks that may come at once before that counts.
BURST = 1.0

#: How many delays are looked at to find the best interval, and how many of them are tried.
SAMPLE = 200
CANDIDATES = 20

#: Fewer jobs than this are always looked at one by one, and no list is asked for beyond so many on record: the head
#: answers nothing else meanwhile, and at some 100,000 it breaks off.
LEAST_WATCHED = 20
MOST_LISTED = 20_000

#: A list that only finds out how many jobs are on record must be so little beside what was spent on looks since the
#: last one: a fifth the first time, a twentieth later.
CAUTION_FIRST = 5
CAUTION_AGAIN = 20


class Plan(NamedTuple):
    """
    How all jobs are looked at.

    :param interval: seconds between two lists; infinite when there is none.
    :param covers: jobs that ask for so many seconds between looks, or more, are left to the list.
    """

    interval: float
    covers: float


NO_LIST = Plan(math.inf, math.inf)


def best_plan(delays: Collection[float], record: int) -> Plan:
    """
    Return the plan with which the head has least to do.

    A list tells what was so when the head began with it, so it comes earlier than its jobs ask for by the time that it
    takes to make and to read; but never so often that the head has no time for others.

    :param delays: the seconds between two looks that each job asks for.
    :param record: number of jobs on record.
    """
    if record > MOST_LISTED:
        return NO_LIST
    alone = LOOK_COST * sum(1 / delay for delay in delays)
    best, least = NO_LIST, alone
    cost = LIST_COST * record
    took, shortest = cost + READ_COST * record, cost / SHARE
    ordered = sorted(delays)
    step = -(-len(ordered) // SAMPLE)  # of very many jobs a sample tells as much, and does not hold the event loop up
    sample = ordered[step // 2 :: step]
    scale = len(ordered) / len(sample)
    for covers in dict.fromkeys([ordered[0], *sample[:: -(-len(sample) // CANDIDATES)]]):
        in_time = covers - took
        interval = max(in_time, shortest)
        if interval > in_time and interval + took > covers * alone / SHARE:
            continue  # looks alone, held back for the head's sake, would still tell earlier
        looks = scale * sum(1 / delay for delay in sample if delay < covers)
        load = cost / interval + LOOK_COST * looks
        if load < least:
            best, least = Plan(interval, covers), load
    return best


class HeadLoad:
    """Keeps the account of what one head was asked for, and what is known of its record."""

    def __init__(self) -> None:
        self.on_record: int | None = None
        self._listed = False  # on_record is from a list, no estimate
        self._spent = 0.0  # on single looks since the last list
        self._free_at = -math.inf

    def pause(self, cost: float, now: float) -> float:
        """
        Enter a request into the account.

        :param cost: seconds of the head.
        :param now: seconds of a monotonic clock.
        :return: seconds to wait before it is sent, so that the head keeps time for others.
        """
        self._free_at = max(self._free_at, now - BURST) + cost / SHARE
        return max(self._free_at - now, 0.0)

    def looked(self) -> None:
        """Note a look at one job."""
        self._spent += LOOK_COST

    def estimate(self, record: int) -> None:
        """Note about how many jobs are on record."""
        self.on_record = record

    def listed(self, record: int) -> None:
        """Note how many jobs the list held."""
        self.on_record, self._listed, self._spent = record, True, 0.0

    def list_cost(self, watched: int) -> float:
        """Return the seconds of the head that a list will take, as far as is known; infinite when it is not."""
        if self.on_record is None or watched < LEAST_WATCHED:
            return math.inf
        record = max(self.on_record, watched)
        return LIST_COST * record if record <= MOST_LISTED else math.inf

    def plan(self, delays: Collection[float]) -> Plan:
        """
        Return how all jobs are best looked at.

        :param delays: the seconds between two looks that each job asks for.
        """
        watched = len(delays)
        if watched < LEAST_WATCHED:
            return NO_LIST
        known = max(self.on_record or 0, watched)
        if self.on_record is not None:
            best = best_plan(delays, known)
            if best is not NO_LIST or known > MOST_LISTED:
                return best
        # With so many on record, or with more when nothing is known, a list does not pay. Jobs may have been deleted.
        risk = LIST_COST * (known if self.on_record is not None else watched * LOOK_COST / LIST_COST)
        if self._spent > risk * (CAUTION_AGAIN if self._listed else CAUTION_FIRST):
            return best_plan(delays, watched)
        return NO_LIST

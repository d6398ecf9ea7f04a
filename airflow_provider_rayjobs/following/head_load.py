"""
How much of the Ray head's time the requests of a poller cost, and whether a list is cheaper than single requests.

Measured on Ray 2.60: ``GET /api/jobs/{id}`` takes 1.7 ms of the head, the list ``GET /api/jobs/`` 0.32 ms for each job
on record. So the list is cheaper if more than about a fifth of all jobs on record are followed. Reading it takes this
process about 0.08 ms per job.

Beside more old jobs, a list of actors is cheaper: each job has an actor, which ends with it, and the head selects those
that are alive, in 0.1 ms for each. But it tells only that a running job still runs. No I/O here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

#: Seconds of the head that a request for one job takes, and the list per job on record.
LOOK_COST = 0.0017
LIST_COST = 0.00032

#: Seconds that reading the list takes this process, per job on record.
READ_COST = 0.00008

#: Seconds of the head that the list of live actors takes, and those for each actor; seconds from a job's end to that of
#: its actor.
ALIVE_COST = 0.0015
ALIVE_COST_EACH = 0.0001
ALIVE_LAG = 0.1

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


class Plan(NamedTuple):
    """
    How all jobs are polled.

    :param interval: seconds between two lists; infinity for no lists.
    :param covers: jobs with this delay or a longer one, in seconds, are left to the list; others are requested singly.
    :param of_actors: whether it is the list of live actors, to which only running jobs are left.
    """

    interval: float
    covers: float
    of_actors: bool = False


NO_LIST = Plan(math.inf, math.inf)


def best_plan(delays: Collection[float], record: int) -> Plan:
    """
    Return the cheapest of three plans: no list, a list at the pace of the quickest job, or one at that of the slowest.

    Delays are capped by ``poll_interval``, so the slowest ones are mostly equal: between the two paces there is hardly
    ever a cheaper one. A list describes the moment when the head began to make it. So it is requested earlier than its
    jobs ask for, by the time that it takes, but never so often that the head has no time for others.

    :param delays: the seconds between two requests that each job asks for.
    :param record: number of jobs on record.
    """
    if record > MOST_LISTED:
        return NO_LIST
    return _cheapest(delays, LIST_COST * record, READ_COST * record)


def _cheapest(delays: Collection[float], cost: float, more: float) -> Plan:
    """
    Return the cheapest of no list, or lists at the pace of the quickest job, or of the slowest.

    :param cost: seconds of the head that a list takes.
    :param more: further seconds until its news are here.
    """
    took = cost + more
    alone = LOOK_COST * sum(1 / delay for delay in delays)
    best, least = NO_LIST, alone
    for covers in (min(delays), max(delays)):
        interval = max(covers - took, cost / SHARE)
        if interval > covers - took and interval + took > covers * alone / SHARE:
            continue  # single requests would be earlier, even if they are slowed down
        load = cost / interval + LOOK_COST * sum(1 / delay for delay in delays if delay < covers)
        if load < least:
            best, least = Plan(interval, covers), load
    return best


class HeadLoad:
    """Counts what the requests cost one head, and how many jobs it has on record."""

    def __init__(self) -> None:
        self.on_record: int | None = None
        #: Number of live actors, when they were last listed; None before that.
        self.alive: float | None = None
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

    def alive_cost(self, expected: int = 0) -> float:
        """
        Return the seconds of the head that the list of live actors takes.

        :param expected: number of live actors, as long as they were not listed.
        """
        return ALIVE_COST + ALIVE_COST_EACH * (expected if self.alive is None else self.alive)

    def plan(self, delays: Collection[float], running: Collection[float] = ()) -> Plan:
        """
        Return how to poll all jobs.

        :param delays: the seconds between two requests that each job asks for.
        :param running: those of the jobs of which it is enough to know that their actors are alive.
        """
        if (plan := self._plan_with_list(delays)) is not NO_LIST or len(running) < LEAST_WATCHED:
            return plan
        plan = _cheapest(running, self.alive_cost(len(running)), ALIVE_LAG)
        return plan if plan is NO_LIST else plan._replace(of_actors=True)

    def _plan_with_list(self, delays: Collection[float]) -> Plan:
        watched = len(delays)
        if watched < LEAST_WATCHED:
            return NO_LIST
        known = max(self.on_record or 0, watched)
        if self.on_record is not None:
            best = best_plan(delays, known)
            if best is not NO_LIST or known > MOST_LISTED:
                return best
        # A list is too expensive for what is known to be on record, or nothing is known. Jobs may have been deleted.
        cost = LIST_COST * known if self.on_record is not None else LOOK_COST * watched
        return best_plan(delays, watched) if cost < PROBE_SHARE * self._spent else NO_LIST

"""When the jobs of a benchmark begin and end; the head and the followers calculate it alike."""

from __future__ import annotations

import math
import random

#: Run times of jobs, in seconds, spread evenly over their logarithm.
SHORTEST, LONGEST = 10.0, 600.0

#: Seconds at the beginning in which no job ends.
QUIET = 5.0


class Timetable:
    """
    So many jobs run at any time: when one ends, another begins. Most began before the benchmark, as after a restart of
    a triggerer.

    :param number: of jobs at a time.
    :param begin: Unix seconds.
    :param seconds: how long the benchmark lasts.
    :param age: seconds since when all jobs have been running at the beginning; half of them end within the time,
        and none begins. 0: each has an age and a run time of its own.
    """

    def __init__(self, number: int, begin: float, seconds: float, age: float = 0.0) -> None:
        chance = random.Random(7)  # noqa: S311 - no secret, and the same for all who calculate it
        self.begin = begin
        self.start: dict[str, float] = {}
        self.end: dict[str, float] = {}
        for _ in range(number):
            if age:
                self._add(begin - age, begin + chance.uniform(QUIET, 2 * seconds))
                continue
            # At any moment each run time of this spread is as frequent as any other: there are fewer long jobs, but
            # they are met for longer.
            run_time = chance.uniform(SHORTEST, LONGEST)
            end = begin + chance.uniform(QUIET, run_time)
            self._add(end - run_time, end)
            while end < begin + seconds:
                start, end = end, end + math.exp(chance.uniform(math.log(SHORTEST), math.log(LONGEST)))
                self._add(start, end)

    def _add(self, start: float, end: float) -> None:
        name = f"j{len(self.start)}"
        self.start[name], self.end[name] = start, end

    def ended_by(self, now: float) -> list[str]:
        """Return the names of the jobs that have ended then."""
        return [name for name, end in self.end.items() if end <= now]

    def names(self) -> list[str]:
        """Return the names of all jobs."""
        return list(self.start)

    def begun_by(self, now: float) -> list[str]:
        """Return the names of the jobs that have begun then."""
        return [name for name, start in self.start.items() if start <= now]

    def status(self, name: str, now: float) -> str | None:
        """Return a job's status, None when it does not exist."""
        end = self.end.get(name)
        if end is None or now < self.start[name]:
            return None
        return "RUNNING" if now < end else "SUCCEEDED"

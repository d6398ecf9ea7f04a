"""Start and end times of a benchmark's jobs; the head and the followers calculate the same ones."""

from __future__ import annotations

import math
import random

#: Run times of jobs, in seconds, spread evenly over their logarithm.
SHORTEST, LONGEST = 10.0, 600.0

#: Seconds at the beginning in which no job ends.
QUIET = 5.0


class Timetable:
    """
    The same number of jobs runs at any time: when one ends, another begins. Most began before the benchmark, as after a
    restart of a triggerer.

    :param number: number of jobs at a time.
    :param begin: beginning of the benchmark, in Unix seconds.
    :param seconds: duration of the benchmark.
    :param age: age of all jobs at the beginning, in seconds; half of them end within the time, and none begins.
        0: the jobs have different ages and run times.
    """

    def __init__(self, number: int, begin: float, seconds: float, age: float = 0.0) -> None:
        chance = random.Random(7)  # noqa: S311 - no secret; the same for every caller
        self.begin = begin
        self.start: dict[str, float] = {}
        self.end: dict[str, float] = {}
        for _ in range(number):
            if age:
                self._add(begin - age, begin + chance.uniform(QUIET, 2 * seconds))
                continue
            # Among the jobs that run at a given moment, all run times are equally frequent: there are fewer long jobs,
            # but each of them runs longer.
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
        """Return the names of the jobs that have ended at that time."""
        return [name for name, end in self.end.items() if end <= now]

    def names(self) -> list[str]:
        """Return the names of all jobs."""
        return list(self.start)

    def begun_by(self, now: float) -> list[str]:
        """Return the names of the jobs that have begun at that time."""
        return [name for name, start in self.start.items() if start <= now]

    def status(self, name: str, now: float) -> str | None:
        """Return a job's status; None if it does not exist."""
        end = self.end.get(name)
        if end is None or now < self.start[name]:
            return None
        return "RUNNING" if now < end else "SUCCEEDED"

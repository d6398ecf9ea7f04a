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
    Jobs of which most run already at the beginning, as after a restart of a triggerer; a quarter end within the time.

    :param number: of jobs.
    :param begin: Unix seconds.
    :param seconds: how long the benchmark lasts.
    :param age: seconds since when all jobs have been running at the beginning; 0: each has a run time of its own.
    """

    def __init__(self, number: int, begin: float, seconds: float, age: float = 0.0) -> None:
        chance = random.Random(7)  # noqa: S311
        self.number = number
        self.begin = begin
        self.start: dict[str, float] = {}
        self.end: dict[str, float] = {}
        for index in range(number):
            run_time = math.exp(chance.uniform(math.log(SHORTEST), math.log(LONGEST)))
            end = begin + chance.uniform(QUIET, 4 * seconds)
            self.end[f"j{index}"], self.start[f"j{index}"] = end, begin - age if age else end - run_time

    def ended_by(self, now: float) -> list[str]:
        """Return the names of the jobs that have ended then."""
        return [name for name, end in self.end.items() if end <= now]

    def names(self) -> list[str]:
        """Return the names of all jobs."""
        return list(self.end)

    def status(self, name: str, now: float) -> str | None:
        """Return a job's status, None when it does not exist."""
        end = self.end.get(name)
        if end is None:
            return None
        return "RUNNING" if now < end else "SUCCEEDED"

"""A case: one fault, at one moment of a task's life, in one mode; and what must come of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.field.bench import Bench
    from tests.field.run import Run

MODES = ("sync", "deferrable")

#: What a task is about when the fault comes, in the order of its life.
MOMENTS = {
    "queued": "the task's message is in the broker",
    "uploading": "the job's files are being uploaded to the cluster",
    "pending": "the job is pending on the cluster",
    "running": "the driver runs until the fault is over",
    "ending": "the driver ends just after the fault",
    "ended": "the driver ended two seconds before the fault",
}

#: A number that must be met, or the least and the most of what a race may leave.
Amount = int | tuple[int, int]


@dataclass(frozen=True)
class Expected:
    """What must come of a case.

    :param state: of the task, or several of which one; ``deleted`` where its run is.
    :param starts: drivers that started.
    :param ends: drivers that ran to their end.
    :param tries: tries of the task; None: any.
    :param error: the class that a log must name, or several of which one; none may be named where it is empty.
    :param repeats: whether one try's log may have lines twice: another triggerer reads it from the start.
    :param whole: whether the logs have each line of each driver that ran to its end.
    """

    state: str | tuple[str, ...] = "success"
    starts: Amount = 1
    ends: Amount = 1
    tries: Amount | None = None
    error: tuple[str, ...] = ()
    repeats: bool = False
    whole: bool = True


@dataclass(frozen=True)
class Facts:
    """What came of it: on the cluster, in Airflow, and on disk.

    :param orphans: jobs that were alive a minute after the DAG run's end.
    :param missing: lines of drivers that ran to their end, in no log.
    :param repeated: lines that one try's log has more than once.
    :param trouble: what kept the session from being played as it is meant.
    :param story: the logs, for whoever looks for the reason.
    """

    state: str
    tries: int
    starts: int
    ends: int
    orphans: int
    errors: tuple[str, ...]
    missing: int
    repeated: int
    trouble: str
    story: str = field(repr=False)


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    :param name: in words.
    :param hits: the process, or who acts.
    :param fire: lets it happen to runs, and returns when it is over and what was killed is there again.
    :param expected: what must come of it, for a moment and a mode; None where it can't happen.
    :param shared: whether it hits tasks one by one, so that others' tasks may run beside these.
    :param prepare: what is done before the runs are triggered.
    :param moments: at which it is played.
    :param kind: of the DAG, if it is not that of the moment.
    :param slice: the moment and the mode of the case that `--slice` takes; None: it takes none.
    """

    name: str
    hits: str
    fire: Callable[[Bench, Sequence[Run]], None]
    expected: Callable[[str, str], Expected | None]
    shared: bool = False
    prepare: Callable[[Bench], None] = lambda _bench: None
    moments: tuple[str, ...] = tuple(MOMENTS)
    kind: str = ""
    slice: tuple[str, str] | None = None

    def cases(self) -> list[Case]:
        """Return its cases."""
        named = [(moment, mode, self.expected(moment, mode)) for moment in self.moments for mode in MODES]
        return [Case(self, moment, mode, expected) for moment, mode, expected in named if expected is not None]


@dataclass(frozen=True)
class Case:
    """One fault at one moment in one mode."""

    fault: Fault
    moment: str
    mode: str
    expected: Expected

    @property
    def name(self) -> str:
        """The id of its test."""
        return f"{self.fault.hits}: {self.fault.name}, {self.moment}, {self.mode}"

    @property
    def in_slice(self) -> bool:
        """Whether `--slice` takes it."""
        return self.fault.slice == (self.moment, self.mode)

    def problems(self, facts: Facts) -> list[str]:
        """Compare what came of it with what must."""
        must = self.expected
        counted = [
            ("tries", facts.tries, must.tries),
            ("starts", facts.starts, must.starts),
            ("ends", facts.ends, must.ends),
            ("orphans", facts.orphans, 0),
            ("lines missing", facts.missing, 0 if must.whole else None),
            ("lines repeated", facts.repeated, None if must.repeats else 0),
        ]
        return [
            *([f"session: {facts.trouble[:200]}"] if facts.trouble else []),
            *([f"state {facts.state}, not {must.state}"] if not self._has_state(facts) else []),
            *(
                [f"error {facts.errors}, not {must.error}"]
                if must.error and not {*must.error} & {*facts.errors}
                else []
            ),
            *(f"{what} {number}, not {_text(due)}" for what, number, due in counted if not _is(number, due)),
        ]

    def _has_state(self, facts: Facts) -> bool:
        must = self.expected.state
        return facts.state in ((must,) if isinstance(must, str) else must)


def _is(number: int, amount: Amount | None) -> bool:
    least, most = _bounds(amount)
    return least <= number <= most


def _text(amount: Amount | None) -> str:
    least, most = _bounds(amount)
    return str(least) if least == most else f"{least} to {most}"


def _bounds(amount: Amount | None) -> tuple[int, float]:
    if amount is None:
        return 0, math.inf
    return amount if isinstance(amount, tuple) else (amount, amount)

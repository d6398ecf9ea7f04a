"""A case: one fault at one moment of a task in one mode, and the expected result."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.field.bench import Bench
    from tests.field.run import Run

MODES = ("sync", "deferrable")

#: The moments of a task at which a fault is injected, in their order.
MOMENTS = {
    "queued": "the task's message is in the broker",
    "uploading": "the job's files are being uploaded to the cluster",
    "pending": "the job is pending on the cluster",
    "running": "the driver runs until the fault is over",
    "ending": "the driver ends just after the fault",
    "ended": "the driver ended two seconds before the fault",
}

#: An exact number, or, if a race decides, the least and the most.
Amount = int | tuple[int, int]


@dataclass(frozen=True)
class Expected:
    """The expected result of a case.

    :param state: the state of the task, or several possible ones; ``deleted`` if its run is deleted.
    :param starts: how many drivers start.
    :param ends: how many drivers run to their end.
    :param tries: tries of the task; None: any number.
    :param error: error classes of which one must be in a log; empty: not checked.
    :param repeats: whether a try's log may have lines twice, because another triggerer reads the log from its start.
    :param whole: whether the logs must have each line of each driver that runs to its end.
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
    """The results of a case: on the cluster, in Airflow, and on disk.

    :param orphans: jobs that were alive a minute after the end of the DAG run.
    :param missing: lines of drivers that ran to their end, but that no log has.
    :param repeated: lines that one try's log has more than once.
    :param trouble: an error of the session itself.
    :param story: the logs, for debugging.
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
    """A fault.

    :param name: its description.
    :param hits: the affected process, or the actor.
    :param fire: injects the fault into runs, and returns when it is over and killed processes run again.
    :param expected: the expected result for a moment and a mode; None if the fault can't happen then.
    :param shared: whether it affects single tasks, so that tasks of other cases can run at the same time.
    :param prepare: called before the runs are triggered.
    :param moments: the moments at which it is injected.
    :param kind: the kind of DAG, if not the one of the moment.
    :param slice: the moment and the mode of the case that `--slice` selects; None: none.
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
        """Whether `--slice` selects it."""
        return self.fault.slice == (self.moment, self.mode)

    def problems(self, facts: Facts) -> list[str]:
        """Return the differences between the results and the expected ones."""
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

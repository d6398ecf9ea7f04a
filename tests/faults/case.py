"""A case: one fault at one step of a task's life, and what must become of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults.bench import Bench, Facts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.workers import Workers
    from tests.support.ray_head import RayHead


@dataclass(frozen=True)
class Case:
    """One fault, and the expected end.

    :param step: of the task's life.
    :param fault: in words.
    :param play: what happens; runs the task until Airflow has its outcome.
    :param deferrable: whether the task waits in the triggerer.
    :param jobs: how many jobs the cluster may take, at most.
    :param ends: how many drivers must run to their end: as many as there are intended runs.
    :param state: of the task at the end.
    :param thorough: played only with ``FAULTS_ALL=1``: its like is among the others, and each costs a job or two.
    """

    step: str
    fault: str
    play: Callable[[Bench], None]
    deferrable: bool = False
    jobs: int = 1
    ends: int = 1
    state: str = "success"
    thorough: bool = False

    @property
    def mode(self) -> str:
        """How the task waits."""
        return "deferrable" if self.deferrable else "sync"

    @property
    def name(self) -> str:
        """The id of its test."""
        return f"{self.step}: {self.fault}" + (" (deferrable)" if self.deferrable else "")

    def run(self, folder: Path, head: RayHead, workers: Workers) -> Facts:
        """Play it, and check what the witnesses saw.

        :raises AssertionError: a duplicate, an orphan, a lost run or a wrong outcome.
        """
        bench = Bench(self.name, folder, head, workers, deferrable=self.deferrable)
        with bench.proxy:
            try:
                self.play(bench)
                return self.check(bench)
            finally:
                bench.end()

    def check(self, bench: Bench) -> Facts:
        """Compare what the witnesses saw with what must be."""
        facts = bench.facts()
        problems = [
            problem
            for problem, wrong in (
                ("an orphan", facts.orphans > 0),
                ("a duplicate", facts.ends > self.ends or facts.jobs > self.jobs),
                ("a lost run", facts.ends < self.ends),
                (f"the task is {facts.state}", facts.state != self.state),
            )
            if wrong
        ]
        assert not problems, f"{', '.join(problems)}: {facts}; {bench.story()}"
        return facts

"""A case: one fault at one step of a task, and the expected result."""

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
    """One fault, and the expected result.

    :param step: the step of the task.
    :param fault: description of the fault.
    :param play: runs the task with the fault until Airflow has its outcome.
    :param deferrable: whether the task waits in the triggerer.
    :param jobs: the most jobs that the cluster may accept.
    :param ends: how many drivers must run to their end: the number of intended runs.
    :param state: the final state of the task.
    :param thorough: run only with ``FAULTS_ALL=1``, because other cases are similar, and each takes a job or two.
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
        """Run the case, and check the results.

        :raises AssertionError: for a duplicate, an orphan, a lost run or a wrong outcome.
        """
        bench = Bench(self.name, folder, head, workers, deferrable=self.deferrable)
        self.prepare(bench)
        with bench.proxy:
            try:
                self.play(bench)
                return self.check(bench)
            finally:
                bench.end()

    def prepare(self, bench: Bench) -> None:
        """Change the environment before the first try."""

    def check(self, bench: Bench) -> Facts:
        """Compare the results with the expected ones."""
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

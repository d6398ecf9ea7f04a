"""Submits each case through both sides on one head, and collects the results."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.parity import outcome
from tests.parity.case import Here
from tests.support.faulty_proxy import FaultyProxy
from tests.support.witness import TERMINAL

if TYPE_CHECKING:
    from pathlib import Path

    from tests.parity.case import Case
    from tests.parity.sides import Side
    from tests.support.ray_head import RayHead

#: How many jobs of a side may run in parallel: each is a process of about 100 MB.
AT_ONCE = 6
#: If no job ends for this many seconds, the others are no longer waited for.
PATIENCE = 60.0


@dataclass
class Made:
    """
    A submission and its result.

    :param answer: the result of the call.
    :param posted: whether the job was sent.
    :param job: the result of the job.
    """

    answer: dict[str, Any]
    posted: bool
    job: dict[str, Any] = field(default_factory=dict)

    @property
    def submission_id(self) -> str | None:
        """The id of the job, if there is one."""
        return self.answer.get("value")


class Stage:
    """
    Submits cases.

    :param head: the cluster.
    :param sides: the clients.
    :param folder: the files of the cases.
    """

    def __init__(self, head: RayHead, sides: list[Side], folder: Path) -> None:
        self._head = head
        self._sides = sides
        self._folder = folder
        self._made: dict[tuple[str, str], Made] = {}

    def made(self, case: Case, side: str) -> Made:
        """Return the result of a case."""
        return self._made[case.name, side]

    def has(self, *cases: Case) -> bool:
        """Return whether these cases were submitted."""
        return all((case.name, side.name) in self._made for case in cases for side in self._sides)

    def play(self, cases: list[Case]) -> None:
        """Submit all cases, both sides in parallel, and wait until all jobs that can end have ended."""
        with ThreadPoolExecutor(len(self._sides)) as pool:
            list(pool.map(lambda side: self._play(side, cases), self._sides))
        self._collect()

    def _play(self, side: Side, cases: list[Case]) -> None:
        waiting: set[str] = set()
        # The proxy records what it sends.
        with FaultyProxy(self._head.host, self._head.port) as proxy:
            # Jobs that stay PENDING come last, because each of them keeps Ray busy.
            for case in sorted(cases, key=lambda case: case.held):
                made = self._made[case.name, side.name] = self._submit(case, side, proxy)
                if made.submission_id and not case.held:
                    waiting.add(made.submission_id)
                self._wait(waiting, AT_ONCE)
        self._wait(waiting, 0)

    def _submit(self, case: Case, side: Side, proxy: FaultyProxy) -> Made:
        here = Here(self._folder, proxy.url, f"parity-{case.name}-{side.name}")
        before = len(proxy.requests)
        answer = side.submit(case, here)
        posts = [request for request in proxy.requests[before:] if request.method == "POST"]
        made = Made(answer, bool(posts))
        if made.submission_id:
            names = ["Cookie", *case.client(here).get("headers", {})]
            made.job["headers"] = {name: posts[-1].headers.get(name.lower()) for name in names}
        return made

    def _wait(self, waiting: set[str], limit: int) -> None:
        """Wait until at most ``limit`` jobs run, or until none has ended for a while."""
        moved = time.monotonic()
        while len(waiting) > limit and time.monotonic() - moved < PATIENCE:
            # One by one: the list of all jobs keeps the head busy.
            if ended := {job for job in waiting if (self._head.job(job) or {}).get("status") in TERMINAL}:
                waiting -= ended
                moved = time.monotonic()
            time.sleep(0.5)

    def _collect(self) -> None:
        jobs = {job["submission_id"]: job for job in self._head.jobs()}
        actors = outcome.supervisors(self._head)
        for made in self._made.values():
            if submission_id := made.submission_id:
                log = self._head.logs(submission_id)
                made.job |= outcome.of_job(jobs[submission_id], actors.get(submission_id), log)

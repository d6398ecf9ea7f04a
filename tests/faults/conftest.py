"""Runs all selected cases in parallel; their tests then read the results."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults import cases_head
from tests.faults.case import Case
from tests.faults.cases_head import Fall
from tests.faults.table import Line, render
from tests.faults.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.bench import Facts
    from tests.support.databases import Database
    from tests.support.ray_head import RayHead

HERE = Path(__file__).parent

#: How many cases run in parallel. They wait most of the time; the head and the tries share the CPUs.
AT_ONCE = int(os.environ.get("FAULTS_AT_ONCE", "6"))

_lines: list[Line] = []
_leftovers: list[int] = []
_times: list[float] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    thorough = [item for item in items if getattr(_case_of(item), "thorough", False)]
    if thorough and not os.environ.get("FAULTS_ALL"):
        config.hook.pytest_deselected(items=thorough)
        items[:] = [item for item in items if item not in thorough]
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.faults)
            # The first test waits for a head, and each test for the cases that run before its own.
            item.add_marker(pytest.mark.timeout(1800))


def _case_of(item: pytest.Item) -> Case | None:
    """Return the case of a test, if it has one."""
    callspec = getattr(item, "callspec", None)
    case = callspec and callspec.params.get("case")
    return case if isinstance(case, Case) else None


class Stage:
    """Runs cases on one head, several in parallel; those with a killed head on another one.

    :param folder: for the files of the cases.
    :param cases: the cases to run.
    """

    def __init__(self, folder: Path, head: RayHead, workers: Workers, cases: list[Case]) -> None:
        self.head = head
        self._folder = folder
        self._workers = workers
        self._pool = ThreadPoolExecutor(AT_ONCE + 1, thread_name_prefix="case")
        falls = [case for case in cases if isinstance(case, Fall)]
        self._fall = self._pool.submit(cases_head.play, falls, folder, workers, record) if falls else None
        self._played = {case.name: self._pool.submit(self._play, case) for case in cases if not isinstance(case, Fall)}

    def result(self, case: Case) -> Facts:
        """Return the results of a case, or raise its error."""
        if self._fall is None or not isinstance(case, Fall):
            return self._played[case.name].result()
        outcome = self._fall.result()[case.name]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def wait(self) -> None:
        """Wait until all cases have run."""
        wait(self._played.values())
        if self._fall is not None:
            wait([self._fall])

    def close(self) -> None:
        """Cancel the queued cases, and wait for the running ones."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _play(self, case: Case) -> Facts:
        begin, facts = time.monotonic(), None
        try:
            facts = case.run(self._folder, self.head, self._workers)
        finally:
            record(case, facts, time.monotonic() - begin)
        return facts


def record(case: Case, facts: Facts | None, seconds: float) -> None:
    """Add a case to the table."""
    _lines.append(Line(case.step, case.fault, case.mode, case.ends, facts, seconds))


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[Path], Database]) -> Iterator[Workers]:
    """The server that runs the tries; it starts at the same time as the heads."""
    home = tmp_path_factory.mktemp("faults-airflow") / "home"
    database = new_database(home)
    database.create()
    server = Workers(home, database)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def stage(
    request: pytest.FixtureRequest, workers: Workers, ray_head: RayHead, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """All selected cases, queued on the shared head."""
    workers.wait_ready()
    _times.append(time.monotonic())
    cases = [case for item in request.session.items if (case := _case_of(item))]
    stage = Stage(tmp_path_factory.mktemp("faults-cases"), ray_head, workers, cases)
    yield stage
    stage.close()


@pytest.fixture(scope="session")
def leftovers() -> list[int]:
    """The list to which the last test appends how many jobs are still alive."""
    return _leftovers


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, and write it to the file that ``FAULTS_TABLE`` names."""
    if not _lines:
        return
    seconds = time.monotonic() - _times[0] if _times else 0.0
    text = render(_lines, seconds, _leftovers[-1] if _leftovers else None)
    terminalreporter.section("faults")
    terminalreporter.write(text)
    if path := os.environ.get("FAULTS_TABLE"):
        Path(path).write_text(text)

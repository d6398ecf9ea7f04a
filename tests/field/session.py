"""A session: brings the runs of several cases to their moments, injects the faults, and returns the results."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.field.airflow import WORKERS
from tests.field.broker import LATER
from tests.field.faults import FAULTS
from tests.field.run import Run
from tests.support.airflow_records import wait

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.field.bench import Bench
    from tests.field.case import Case, Facts, Fault

# Seconds.
LONGEST_START = 150.0
LONGEST_END = 200.0
#: Additional time for each of many jobs, because each starts two processes, on two cores.
FOR_EACH = 6.0
#: How long a job may run after the end of its DAG run before it counts as an orphan.
ORPHAN_AFTER = 60.0
#: How long uploads are held after the start of the fault.
HELD_AFTER_FAULT = 2.0


def play(bench: Bench, cases: Sequence[Case], name: str) -> dict[str, Facts]:
    """Run cases together; return the results of each, by its name.

    :param cases: the cases of one fault, or of several shared ones.
    :param name: unique among the sessions on this bench.
    """
    runs = [Run(bench, case, name) for case in cases]
    faults = [fault for fault in FAULTS if any(run.case.fault is fault for run in runs)]
    troubles: dict[Fault | None, str] = {}
    with _recorded(troubles, None):
        for fault in faults:
            fault.prepare(bench)
        _bring_to_moments(bench, runs)
        with ThreadPoolExecutor(len(faults)) as threads:
            for fault in faults:
                threads.submit(_fire, bench, fault, _of(fault, runs), troubles)
            time.sleep(HELD_AFTER_FAULT)
            bench.uploads_released.set()
        bench.heal()
        _let_end(bench, runs)
        wait(
            lambda: all(run.is_over() for run in runs),
            LONGEST_END + FOR_EACH * len(runs),
            lambda: f"runs do not end: {[run.case.name for run in runs if not run.is_over()]}",
        )
    if None in troubles:
        bench.heal()
        _let_end(bench, runs)
    orphans = _orphans(bench, runs)
    return {
        run.case.name: run.facts(orphans[run.run_id], troubles.get(run.case.fault) or troubles.get(None, ""))
        for run in runs
    }


@contextmanager
def _recorded(troubles: dict[Fault | None, str], fault: Fault | None) -> Iterator[None]:
    """Record an error as the trouble of a fault, or of the session; each of its cases reports it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the table reports any error
        troubles[fault] = f"{type(error).__name__}: {error}"


def _fire(bench: Bench, fault: Fault, runs: Sequence[Run], troubles: dict[Fault | None, str]) -> None:
    with _recorded(troubles, fault):
        fault.fire(bench, runs)


def _of(fault: Fault, runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.case.fault is fault]


def _bring_to_moments(bench: Bench, runs: Sequence[Run]) -> None:
    """Start the runs, and wait until each is at its moment, except for the last seconds."""
    uploading = [run for run in runs if run.moment == "uploading"]
    others = [run for run in runs if run.moment != "uploading"]
    bench.airflow.broker.cease(LATER, WORKERS)
    if any(run.moment == "pending" for run in runs):
        bench.hold_resource()
    _trigger(bench, others)
    before = bench.hold_uploads()  # as late as possible
    _trigger(bench, uploading)
    wait(lambda: bench.uploads() >= before + len(uploading), LONGEST_START, lambda: "uploads did not start")
    for run in runs:
        if run.moment == "ended":
            run.let_end()
    time.sleep(2)
    for run in runs:
        if run.moment == "ending":
            run.let_end()


def _trigger(bench: Bench, runs: Sequence[Run]) -> None:
    """Start runs, and wait until each is at its moment."""
    for run in runs:
        run.trigger()
    waiting = list(runs)

    def all_there() -> bool:
        jobs = bench.ray.jobs()
        waiting[:] = [run for run in waiting if not run.is_there(jobs)]
        return not waiting

    wait(
        all_there,
        LONGEST_START + FOR_EACH * len(runs),
        lambda: f"runs are not at their moments: {[run.case.name for run in waiting]}",
    )


def _let_end(bench: Bench, runs: Sequence[Run]) -> None:
    """Release everything that holds the runs."""
    bench.uploads_released.set()
    bench.release_resource()
    bench.airflow.broker.consume(LATER, WORKERS)
    for run in runs:
        run.let_end()


def _orphans(bench: Bench, runs: Sequence[Run]) -> dict[str, int]:
    """Stop the jobs that are alive too long after the end of their runs; return how many each run had."""
    deadline = time.monotonic() + ORPHAN_AFTER
    while True:
        jobs = bench.ray.jobs()
        alive = {run.run_id: run.alive(jobs) for run in runs}
        if not any(alive.values()) or time.monotonic() > deadline:
            break
        time.sleep(1)
    for ids in alive.values():
        for submission_id in ids:
            bench.ray.stop_job(submission_id)
    return {run_id: len(ids) for run_id, ids in alive.items()}

"""The head is killed and restarts without its jobs. All cases share one restart, because a head starts slowly."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults.bench import SUBMIT, Bench, Facts
from tests.faults.case import Case
from tests.faults.workers import PATIENCE
from tests.support import faults
from tests.support.ray_head import RayHead

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.workers import Process, Workers

#: Seconds that the cluster may be unreachable: longer than the start of a head on a busy machine.
LONG_AWAY = 280.0

#: Seconds until a task must notice that its job is lost, after the new head accepts jobs.
NOTICED_WITHIN = 20.0


@dataclass(frozen=True)
class Fall(Case):
    """A case of a killed head; ``play`` runs after the restart.

    :param before: runs before the head is killed, and brings the task to the right moment.
    """

    before: Callable[[Bench], None] = lambda bench: None


def _follow(bench: Bench) -> None:
    """Start a process that waits for a running job."""
    bench.args["entrypoint"] = bench.job(3600)
    bench.extra["unreachable_timeout"] = LONG_AWAY
    process = bench.start()
    if bench.args["deferrable"]:
        assert process.wait() == 0
        bench.start("trigger")
    bench.wait_job("RUNNING")


def _finish(bench: Bench, timeout: float = NOTICED_WITHIN) -> str:
    """Wait for the end of the process and of its try; the next job is a short one."""
    process = _current(bench)
    process.wait(timeout)
    bench.args["entrypoint"] = bench.job()
    return bench.finish(process)


def _current(bench: Bench) -> Process:
    assert bench.current is not None
    return bench.current


def _loss_is_reported(bench: Bench) -> None:
    assert _finish(bench) == "up_for_retry", bench.story()
    assert bench.said("RayJobLostError"), bench.story()
    log = bench.log.read_text(errors="replace")
    new = bench.head.session_name()
    assert f"became {new}" in log, bench.story()
    assert "the head restarted (session session_" in log, bench.story()
    bench.until_success()


def _kill_and_leave(bench: Bench) -> None:
    _follow(bench)
    _current(bench).kill()
    bench.args["entrypoint"] = bench.job()


def _stand_before_submission(bench: Bench) -> None:
    """Hold the task's submission in the proxy."""
    bench.extra |= {"unreachable_timeout": LONG_AWAY, "read_timeout": LONG_AWAY}
    arrived = threading.Event()

    def hold() -> None:
        arrived.set()
        bench.fallen.wait(PATIENCE)

    bench.on(SUBMIT, faults.call(hold, "received"))
    bench.start()
    assert arrived.wait(PATIENCE), bench.story()


def _submitted_to_the_new_head(bench: Bench) -> None:
    assert _finish(bench, PATIENCE) == "success", bench.story()


def _down_for_too_long(bench: Bench) -> None:
    bench.args["entrypoint"] = bench.job(3600)
    bench.extra["unreachable_timeout"] = 3.0
    bench.start()
    bench.wait_job("RUNNING")


def _found_gone(bench: Bench) -> None:
    """The first try gave up while the head was down; the next one finds no job."""
    assert _finish(bench) == "up_for_retry", bench.story()
    assert bench.said("unreachable"), bench.story()
    bench.until_success()


CASES = [
    Fall("head killed, restarted", "while the job runs", _loss_is_reported, before=_follow),
    Fall("head killed, restarted", "while the job runs", _loss_is_reported, before=_follow, deferrable=True),
    Fall(
        "head killed, restarted",
        "before the retry of a killed try",
        lambda bench: bench.until_success(),
        before=_kill_and_leave,
    ),
    Fall(
        "head killed, restarted",
        "between version and submission",
        _submitted_to_the_new_head,
        before=_stand_before_submission,
    ),
    Fall("head killed, restarted", "down for too long", _found_gone, before=_down_for_too_long),
]


def play(
    cases: list[Fall], folder: Path, workers: Workers, record: Callable[[Case, Facts | None, float], None]
) -> dict[str, Facts | BaseException]:
    """Run the cases on a head that is killed once; return the result of each, by its name.

    :param record: called with each case, its results and its seconds.
    """
    begin = time.monotonic()
    results: dict[str, Facts | BaseException] = {}
    with RayHead(num_cpus=2) as head, ThreadPoolExecutor(len(cases)) as pool:
        benches = {case.name: Bench(case.name, folder, head, workers, deferrable=case.deferrable) for case in cases}

        def prepare(case: Fall) -> None:
            benches[case.name].proxy.start()
            case.before(benches[case.name])

        def conclude(case: Fall) -> Facts:
            bench = benches[case.name]
            case.play(bench)
            return case.check(bench)

        def run(act: Callable[[Fall], Facts | None], acting: list[Fall]) -> list[Fall]:
            """Call a function for all cases in parallel; return the cases without a result."""
            running = {case: pool.submit(act, case) for case in acting}
            for case, future in running.items():
                outcome = future.exception() or future.result()
                if outcome is not None:
                    results[case.name] = outcome
                    record(case, outcome if isinstance(outcome, Facts) else None, time.monotonic() - begin)
            return [case for case in acting if case.name not in results]

        try:
            standing = run(prepare, cases)
            head.kill()
            for bench in benches.values():
                bench.fallen.set()
            head.start()
            head.wait_ready()
            run(conclude, standing)
        finally:
            for bench in benches.values():
                bench.proxy.stop()
    return results

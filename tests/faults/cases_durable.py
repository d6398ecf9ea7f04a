"""Faults of a task on Airflow's ``ResumableJobMixin``, beside the same faults of the provider's operator.

``docs/exactly-once.md`` has the results as a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tests.faults.bench import STATUS, SUBMIT, Bench
from tests.faults.case import Case
from tests.faults.cases_kill import LONG, killed_at, killed_when
from tests.support import faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.bench import Facts


class Result(NamedTuple):
    """What becomes of the work.

    :param told: the words of the page.
    :param statuses: of the jobs, the oldest first. Each that SUCCEEDED has run to its end.
    """

    told: str
    statuses: tuple[str, ...]


ONCE = Result("runs once", ("SUCCEEDED",))
TWICE = Result("**runs twice**", ("SUCCEEDED", "SUCCEEDED"))
ANEW = Result("runs anew", ("SUCCEEDED", "SUCCEEDED"))
RETRIED = Result("a new job", ("FAILED", "SUCCEEDED"))
OLD = Result("**does not run**: returns the old result", ("SUCCEEDED",))
FOLLOWED = Result("**does not run**: follows the old job", ("SUCCEEDED",))
STOPPED = Result("the old job is stopped, a new one runs", ("STOPPED", "SUCCEEDED"))


class Window(NamedTuple):
    """A fault, and what becomes of the work with each operator."""

    name: str
    play: Callable[[Bench], None]
    mixin: Result
    ours: Result


def _id_not_stored(bench: Bench) -> None:
    bench.args["entrypoint"] = bench.job(LONG)
    bench.env["AIRFLOW__STATE_STORE__BACKEND"] = "tests.faults.on_the_mixin.FullStore"
    state = bench.attempt()
    assert bench.said("no space left on device"), bench.story()
    bench.env.clear()
    if state != "success":
        bench.until_success()


def _failed(bench: Bench) -> None:
    mark = bench.file.with_suffix(".mark")
    bench.args["entrypoint"] = bench.job(then=f"[ -e {mark} ] || {{ touch {mark}; exit 3; }}")
    bench.until_success(2)


def _cleared_after_success(bench: Bench) -> None:
    bench.until_success()
    bench.do("clear")
    bench.until_success()


def _cleared_while_it_runs(bench: Bench) -> None:
    bench.args["entrypoint"] = bench.job(2 * LONG)
    process = bench.start()
    bench.wait_job("RUNNING")
    process.kill()
    bench.do("lost")
    bench.do("clear")
    bench.until_success()


WINDOWS = (
    Window(
        "the worker dies before the submission leaves",
        killed_at(SUBMIT, "received", then=faults.cut_request_after(0)),
        ONCE,
        ONCE,
    ),
    Window(
        "the worker dies after Ray has accepted the job, before its id is stored",
        killed_at(SUBMIT, "answered"),
        TWICE,
        ONCE,
    ),
    Window("Airflow can't store the id", _id_not_stored, TWICE, ONCE),
    Window("the worker dies while the job runs", killed_when("RUNNING"), ONCE, ONCE),
    Window(
        "the worker dies when the job has SUCCEEDED",
        killed_at(STATUS, "answered", status="SUCCEEDED"),
        ONCE,
        ONCE,
    ),
    Window("the job FAILED, and Airflow retries", _failed, RETRIED, RETRIED),
    Window("somebody clears the task after its success", _cleared_after_success, OLD, ANEW),
    Window(
        "somebody clears the task after its worker died; the job still runs", _cleared_while_it_runs, FOLLOWED, STOPPED
    ),
)


@dataclass(frozen=True)
class Side(Case):
    """A window with one of the two operators."""

    on_mixin: bool = False
    result: Result = ONCE

    def prepare(self, bench: Bench) -> None:
        """Choose the operator."""
        bench.args["on_mixin"] = self.on_mixin

    def check(self, bench: Bench) -> Facts:
        """Compare with what the page tells."""
        facts = bench.facts()
        told = (list(self.result.statuses), self.result.statuses.count("SUCCEEDED"), "success")
        assert (facts.statuses, facts.ends, facts.state) == told, bench.story()
        return facts


CASES = [
    Side(who, window.name, window.play, ends=result.statuses.count("SUCCEEDED"), on_mixin=on_mixin, result=result)
    for window in WINDOWS
    for who, on_mixin, result in (("mixin", True, window.mixin), ("provider", False, window.ours))
]

"""The task's process is killed (SIGKILL) at each step; the next try continues with the existing job."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.faults.bench import LOG, STATUS, SUBMIT, TOO_LATE, VERSION, Bench
from tests.faults.case import Case
from tests.support import faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.faults import Fault, Moment

#: Duration in seconds of a job that must still run when the next try starts.
LONG = 10.0


def killed_at(
    request: tuple[str, str], at: Moment, *, status: str = "", first: int = 1, then: Fault | None = None
) -> Callable[[Bench], None]:
    """Return a scenario: the first try is killed at a moment of a request, and the second one succeeds."""

    def play(bench: Bench) -> None:
        bench.args["entrypoint"] = bench.job(1 if status == "SUCCEEDED" else LONG)
        bench.kill_at(signal.SIGKILL, request, at, status=status, first=first, then=then)
        process = bench.start()
        assert process.wait() == -signal.SIGKILL, bench.story()
        time.sleep(1.5)  # until pending requests have arrived
        bench.until_success()

    return play


def killed_when(status: str) -> Callable[[Bench], None]:
    """Return a scenario: the waiting process is killed when the job has a status."""

    def play(bench: Bench) -> None:
        bench.args["entrypoint"] = bench.job(2 if status == "SUCCEEDED" else LONG)
        process = bench.start()
        bench.wait_job(status)
        process.kill()
        bench.until_success()

    return play


def _second_try_killed(request: tuple[str, str], at: Moment, first: int = 1) -> Callable[[Bench], None]:
    """Return a scenario: the first try is killed while its job runs, the second one at a moment of a request."""

    def play(bench: Bench) -> None:
        bench.args["entrypoint"] = bench.job(2 * LONG)
        process = bench.start()
        bench.wait_job("RUNNING")
        process.kill()
        bench.kill_at(signal.SIGKILL, request, at, first=first)
        assert bench.start().wait() == -signal.SIGKILL, bench.story()
        bench.until_success()

    return play


def _look_up_fails_with(fault: Fault, times: int = 1, tries: int = 1) -> Callable[[Bench], None]:
    """Return a scenario: the look-up of the killed first try's job fails."""

    def play(bench: Bench) -> None:
        bench.args["entrypoint"] = bench.job(2 * LONG)
        process = bench.start()
        bench.wait_job("RUNNING")
        process.kill()
        rule = bench.on(STATUS, fault, times=times)
        bench.until_success(tries)
        assert rule.hits >= 1, "the fault was not applied"

    return play


def _steps() -> list[Case]:
    return [
        Case("kill -9", "during the request for the version", killed_at(VERSION, "received")),
        Case(
            "kill -9",
            "before the submission leaves",
            killed_at(SUBMIT, "received", then=faults.cut_request_after(0)),
        ),
        Case(
            "kill -9",
            "before the submission arrives, cut in its body",
            killed_at(SUBMIT, "received", then=faults.cut_request_after(500)),
        ),
        Case("kill -9", "before the submission arrives", killed_at(SUBMIT, "received", then=faults.delay_request(1))),
        Case("kill -9", "before the submission is answered", killed_at(SUBMIT, "forwarded")),
        Case("kill -9", "response to the submission under way", killed_at(SUBMIT, "answered")),
        Case("kill -9", "response to the submission delivered", killed_at(SUBMIT, "delivered")),
        Case("kill -9", "first status request", killed_at(STATUS, "answered")),
        Case("kill -9", "job PENDING", killed_at(STATUS, "delivered", status="PENDING")),
        Case("kill -9", "job RUNNING", killed_at(STATUS, "delivered", status="RUNNING")),
        Case("kill -9", "log opened", killed_at(LOG, "forwarded")),
        Case("kill -9", "job SUCCEEDED, response delivered", killed_at(STATUS, "delivered", status="SUCCEEDED")),
        Case("kill -9", "job SUCCEEDED, response under way", killed_at(STATUS, "answered", status="SUCCEEDED")),
        Case("kill -9", "log drained after the end", killed_when("SUCCEEDED")),
        Case("kill -9, twice", "second look-up sent", _second_try_killed(STATUS, "forwarded")),
        Case("kill -9, twice", "second look-up answered", _second_try_killed(STATUS, "delivered")),
        Case("kill -9, twice", "reattached", _second_try_killed(STATUS, "delivered", first=3)),
        Case("kill -9, twice", "reattached, log opened", _second_try_killed(LOG, "forwarded")),
    ]


def _look_ups() -> list[Case]:
    named = {
        "refused": faults.refuse(),
        "answer lost": faults.swallow_response(),
        "answer cut in its body": faults.cut_response_after(250),
        "hangs": faults.hang(),
        "answer after the time-out": faults.delay_response(TOO_LATE),
        "502 of a proxy": faults.answer(502),
        "forwarded, then 504": faults.forward_then_answer(504),
        "a web page with 404": faults.answer(404, "<html>not found</html>"),
    }
    # A web page is not a response of Ray, and is not retried: the try fails, and the next one continues.
    cases = [
        Case("look-up", name, _look_up_fails_with(fault, tries=2 if "web page" in name else 1))
        for name, fault in named.items()
    ]
    cases.append(
        Case("look-up", "refused until the try fails", _look_up_fails_with(faults.refuse(), times=5, tries=2), jobs=1)
    )
    return cases


def _deferrable() -> list[Case]:
    def triggerer(status: str) -> Callable[[Bench], None]:
        def play(bench: Bench) -> None:
            bench.args["entrypoint"] = bench.job(3 if status == "SUCCEEDED" else LONG)
            assert bench.start().wait() == 0
            process = bench.start("trigger")
            bench.wait_job(status)
            process.kill()
            assert bench.finish(bench.start("trigger")) == "success", bench.story()

        return play

    def resumed(bench: Bench) -> None:
        assert bench.start().wait() == 0
        assert bench.start("trigger").wait() == 0
        process = bench.start()
        bench.wait(lambda: bench.state == "running" or process.ended, 30, "the task did not resume")
        process.kill()
        if bench.state != "success":
            bench.until_success()

    return [
        Case("kill -9", "triggerer, job PENDING", triggerer("PENDING"), deferrable=True),
        Case("kill -9", "triggerer, job RUNNING", triggerer("RUNNING"), deferrable=True),
        Case("kill -9", "triggerer, job SUCCEEDED", triggerer("SUCCEEDED"), deferrable=True),
        Case("kill -9", "resumed after the end", resumed, deferrable=True),
        Case("kill -9", "before the submission is answered", killed_at(SUBMIT, "forwarded"), deferrable=True),
        Case("kill -9", "response to the submission under way", killed_at(SUBMIT, "answered"), deferrable=True),
        Case("kill -9", "first status request", killed_at(STATUS, "answered"), deferrable=True),
    ]


#: Cases that run only with ``FAULTS_ALL=1``.
_THOROUGH = {
    ("kill -9", "before the submission arrives, cut in its body"),
    ("kill -9", "log opened"),
    ("kill -9", "job SUCCEEDED, response delivered"),
    ("kill -9, twice", "reattached, log opened"),
    ("look-up", "answer lost"),
    ("look-up", "answer after the time-out"),
    ("look-up", "502 of a proxy"),
    ("look-up", "forwarded, then 504"),
}

CASES = [
    replace(case, thorough=not case.deferrable and (case.step, case.fault) in _THOROUGH)
    for case in (*_steps(), *_look_ups(), *_deferrable())
]

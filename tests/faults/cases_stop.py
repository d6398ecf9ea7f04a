"""A user or a timeout ends the task: the job is stopped, despite faults during the stop."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from tests.faults.bench import LOG, STATUS, STOP, SUBMIT, TOO_LATE, VERSION, Bench
from tests.faults.case import Case
from tests.faults.workers import KILL_DELAY
from tests.support import faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.faults import Fault, Moment

#: Duration in seconds of a job that must be stopped: far longer than any case.
FOR_EVER = 3600.0


def _assert_stopped(bench: Bench) -> None:
    """Assert that all jobs are stopped, then run the next try with a short job."""
    statuses = bench.wait_quiet()
    assert set(statuses) <= {"STOPPED"}, f"{statuses}; {bench.story()}"
    assert bench.lines("end") == 0
    bench.proxy.clear()
    bench.args |= {"entrypoint": bench.job(), "job_timeout": None}
    bench.until_success()


def _ended_at(
    request: tuple[str, str], at: Moment, *, status: str = "", first: int = 1, then: Fault | None = None
) -> Callable[[Bench], None]:
    """Return a scenario: a user clears the task at a moment of a request."""

    def play(bench: Bench) -> None:
        bench.args["entrypoint"] = bench.job(FOR_EVER)
        bench.kill_at(None, request, at, status=status, first=first, then=then)
        bench.start().wait()
        _assert_stopped(bench)

    return play


def _ended_with(fault: Fault, times: int = 1) -> Callable[[Bench], None]:
    """Return a scenario: a user clears the task while its job runs, and a fault is applied to the stop request."""

    def play(bench: Bench) -> None:
        bench.args["entrypoint"] = bench.job(FOR_EVER)
        rule = bench.on(STOP, fault, times=times)
        process = bench.start()
        bench.wait_job("RUNNING")
        bench.signal_current(None)
        process.wait()
        assert rule.hits >= 1, "the fault was not applied"
        _assert_stopped(bench)

    return play


def _timed_out_with(fault: Fault, times: int = 1) -> Callable[[Bench], None]:
    """Return a scenario: the job passes its ``job_timeout``, and a fault is applied to the stop request."""

    def play(bench: Bench) -> None:
        bench.args |= {"entrypoint": bench.job(FOR_EVER), "job_timeout": 9.0}
        rule = bench.on(STOP, fault, times=times)
        assert bench.attempt() == "up_for_retry", bench.story()
        assert bench.said("exceeded its job_timeout"), bench.story()
        assert rule.hits >= 1, "the fault was not met"
        _assert_stopped(bench)

    return play


def _succeeded_already(bench: Bench) -> None:
    """The job succeeds before the clear takes effect: nothing is stopped, and the clear runs it again."""
    bench.args["entrypoint"] = bench.job(1)
    bench.kill_at(None, STATUS, "answered", status="SUCCEEDED")
    if bench.attempt() != "success":
        bench.until_success()


def _second_try_ended(request: tuple[str, str], at: Moment, first: int = 1) -> Callable[[Bench], None]:
    """Return a scenario: the first try is killed, and the second one, which finds its job, is cleared."""

    def play(bench: Bench) -> None:
        bench.args["entrypoint"] = bench.job(FOR_EVER)
        process = bench.start()
        bench.wait_job("RUNNING")
        process.kill()
        bench.kill_at(None, request, at, first=first)
        bench.start().wait()
        _assert_stopped(bench)

    return play


def _killed_while_stopping(at: Moment) -> Callable[[Bench], None]:
    """Return a scenario: the process is killed while it stops the job that passed its ``job_timeout``."""

    def play(bench: Bench) -> None:
        bench.args |= {"entrypoint": bench.job(FOR_EVER), "job_timeout": 9.0}
        bench.kill_at(signal.SIGKILL, STOP, at)
        assert bench.start().wait() == -signal.SIGKILL, bench.story()
        _assert_stopped(bench)

    return play


def _killed_before_stopping(bench: Bench) -> None:
    """The process is killed before it sends the stop request; the next try's job_timeout counts from the submission."""
    bench.args |= {"entrypoint": bench.job(FOR_EVER), "job_timeout": 9.0}
    bench.kill_at(signal.SIGKILL, STOP, "received", then=faults.cut_request_after(0))
    assert bench.start().wait() == -signal.SIGKILL, bench.story()
    assert bench.attempt() == "up_for_retry", bench.story()
    assert bench.said("exceeded its job_timeout"), bench.story()
    _assert_stopped(bench)


#: The faults below that always run; the others run only with ``FAULTS_ALL=1``.
_ALWAYS = ("refused", "answer lost", "hangs", "502 of a proxy")

_STOP_FAULTS = {
    "refused": (faults.refuse(), 1),
    "refused twice": (faults.refuse(), 2),
    "cut before it arrives": (faults.cut_request_after(0), 1),
    "answer lost": (faults.swallow_response(), 1),
    "arrives after the time-out": (faults.delay_request(TOO_LATE), 1),
    "answer after the time-out": (faults.delay_response(TOO_LATE), 1),
    "hangs": (faults.hang(), 1),
    "502 of a proxy": (faults.answer(502), 1),
    "forwarded, then 502": (faults.forward_then_answer(502), 1),
}


def _answer_hangs(bench: Bench) -> None:
    """
    The task is ended just before its submission arrives, and the response takes longer than Airflow's grace period.

    The first stop request therefore comes too early. A process that waited for the response would never send another.
    """
    bench.args["entrypoint"] = bench.job(FOR_EVER)
    bench.extra["read_timeout"] = 60.0

    def end() -> None:
        bench.signal_current(None)
        time.sleep(1)

    bench.on(SUBMIT, faults.call(end, "received", then=faults.delay_response(KILL_DELAY + 3)))
    bench.start().wait()
    _assert_stopped(bench)


def _cleared() -> list[Case]:
    named = {
        "during the request for the version": _ended_at(VERSION, "forwarded"),
        "before the submission leaves": _ended_at(SUBMIT, "received", then=faults.cut_request_after(0)),
        "before the submission arrives": _ended_at(SUBMIT, "received", then=faults.delay_request(1)),
        "before the submission is answered": _ended_at(SUBMIT, "forwarded"),
        "response to the submission under way": _ended_at(SUBMIT, "answered"),
        "response to the submission delivered": _ended_at(SUBMIT, "delivered"),
        "first status request": _ended_at(STATUS, "answered"),
        "job PENDING": _ended_at(STATUS, "delivered", status="PENDING"),
        "job RUNNING": _ended_at(STATUS, "delivered", status="RUNNING"),
        "log opened": _ended_at(LOG, "forwarded"),
    }
    cases = [Case("cleared", name, play, jobs=2) for name, play in named.items()]
    cases.append(Case("cleared", "response to the submission hangs", _answer_hangs, jobs=2))
    cases.append(Case("cleared", "job SUCCEEDED, response under way", _succeeded_already, jobs=2))
    again = {
        "second look-up sent": _second_try_ended(STATUS, "forwarded"),
        "second look-up answered": _second_try_ended(STATUS, "delivered"),
        "reattached": _second_try_ended(STATUS, "delivered", first=3),
    }
    cases += [Case("cleared after kill -9", name, play, jobs=2) for name, play in again.items()]
    cases += [
        Case("cleared, stop request", name, _ended_with(fault, times), jobs=2, thorough=name not in _ALWAYS)
        for name, (fault, times) in _STOP_FAULTS.items()
    ]
    for name in ("before the submission arrives", "response to the submission delivered"):
        cases.append(Case("cleared", name, named[name], jobs=2, deferrable=True))
    return cases


def _timeouts() -> list[Case]:
    cases = [
        Case("job_timeout, stop request", name, _timed_out_with(fault, times), jobs=2, thorough=name not in _ALWAYS)
        for name, (fault, times) in _STOP_FAULTS.items()
    ]
    cases += [
        Case("job_timeout, stop request", name, _timed_out_with(*_STOP_FAULTS[name]), jobs=2, deferrable=True)
        for name in ("answer lost", "502 of a proxy")
    ]
    moments: dict[str, Moment] = {"forwarded": "forwarded", "answered": "delivered"}
    cases += [
        Case("job_timeout, kill -9", f"stop request {name}", _killed_while_stopping(at), jobs=2)
        for name, at in moments.items()
    ]
    cases.append(Case("job_timeout, kill -9", "before the stop request leaves", _killed_before_stopping, jobs=2))
    return cases


CASES = [*_cleared(), *_timeouts()]

"""The task's process gets SIGTERM, but nobody ended the task: its job goes on, and the next try follows it.

This happens when a worker shuts down, when heartbeats get no response, and when another process runs the task.
"""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.faults.bench import LOG, STATUS, SUBMIT, VERSION, Bench
from tests.faults.case import Case
from tests.faults.cases_kill import LONG
from tests.faults.names import RETRIES
from tests.support import faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.faults import Fault, Moment


def _asked_at(
    request: tuple[str, str], at: Moment, *, status: str = "", then: Fault | None = None
) -> Callable[[Bench], None]:
    """Return a scenario: the first try's process gets SIGTERM at a moment of a request."""

    def play(bench: Bench) -> None:
        bench.args["entrypoint"] = bench.job(1 if status == "SUCCEEDED" else LONG)
        bench.kill_at(signal.SIGTERM, request, at, status=status, then=then)
        bench.start().wait()
        time.sleep(1.5)  # until pending requests have arrived
        if bench.state != "success":
            bench.until_success()

    return play


def _asked_in_the_last_try(bench: Bench) -> None:
    """The job is stopped because no other try will follow it."""
    bench.args |= {"entrypoint": bench.job(3600)}
    process = bench.start()
    bench.wait_job("RUNNING")
    for number in range(1, RETRIES + 1):
        process.kill()
        process = bench.start()
        bench.wait(lambda n=number: bench.log.read_text(errors="replace").count("Reattached") == n, 60, "no try")
    process.terminate()
    process.wait()
    assert bench.wait_quiet() == ["STOPPED"], bench.story()


def _retries_edited(retries: int, status: str) -> Callable[[Bench], None]:
    """Return a scenario: the DAG file has other ``retries`` when the second try starts."""

    def play(bench: Bench) -> None:
        bench.args["entrypoint"] = bench.job(1 if status == "SUCCEEDED" else LONG)
        process = bench.start()
        bench.wait_job(status)
        process.kill()
        bench.args["retries"] = retries
        bench.until_success()

    return play


def _cases() -> list[Case]:
    named = {
        "during the request for the version": _asked_at(VERSION, "forwarded"),
        "before the submission leaves": _asked_at(SUBMIT, "received", then=faults.cut_request_after(0)),
        "before the submission arrives": _asked_at(SUBMIT, "received", then=faults.delay_request(1)),
        "before the submission is answered": _asked_at(SUBMIT, "forwarded"),
        "response to the submission delivered": _asked_at(SUBMIT, "delivered"),
        "first status request": _asked_at(STATUS, "answered"),
        "job PENDING": _asked_at(STATUS, "delivered", status="PENDING"),
        "job RUNNING": _asked_at(STATUS, "delivered", status="RUNNING"),
        "log opened": _asked_at(LOG, "forwarded"),
        "job SUCCEEDED, response under way": _asked_at(STATUS, "answered", status="SUCCEEDED"),
    }
    cases = [Case("SIGTERM", name, play) for name, play in named.items()]
    cases += [
        Case("SIGTERM", name, named[name], deferrable=True)
        for name in ("before the submission arrives", "response to the submission delivered")
    ]
    cases.append(Case("SIGTERM", "in the last try", _asked_in_the_last_try, ends=0, state="failed"))
    cases += [
        Case("retries edited", f"{RETRIES} to {retries}, job {status}", _retries_edited(retries, status))
        for retries in (RETRIES + 2, 1)
        for status in ("RUNNING", "SUCCEEDED")
    ]
    return cases


#: Cases that run only with ``FAULTS_ALL=1``.
_THOROUGH = {"before the submission is answered", "log opened", "first status request"}

CASES = [replace(case, thorough=not case.deferrable and case.fault in _THOROUGH) for case in _cases()]

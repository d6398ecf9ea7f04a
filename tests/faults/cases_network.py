"""Network faults at each request of a task."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.faults.bench import LOG, STATUS, SUBMIT, TOO_LATE, UNREACHABLE_TIMEOUT, VERSION, Bench
from tests.faults.case import Case
from tests.support import faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.faults import Fault, Moment

#: How often a request is sent before it fails, if nothing waits for an unreachable cluster.
ALL_ATTEMPTS = 5

#: How many lines a job prints.
LINES = 60


def meeting(
    request: tuple[str, str], fault: Fault, first: int = 1, times: int = 1, tries: int = 1
) -> Callable[[Bench], None]:
    """Return a scenario: a fault is applied to a request, and the task succeeds within a number of tries."""

    def play(bench: Bench) -> None:
        rule = bench.on(request, fault, first, times)
        bench.until_success(tries)
        assert rule.hits >= 1, "the fault was not applied"

    return play


def _version() -> list[Case]:
    named = {
        "refused": faults.refuse(),
        "answer lost": faults.swallow_response(),
        "answer cut in its head": faults.cut_response_after(40),
        "hangs": faults.hang(),
        "answer after the time-out": faults.delay_response(TOO_LATE),
        "502 of a proxy": faults.answer(502),
        "forwarded, then 502": faults.forward_then_answer(502),
    }
    cases = [Case("version", name, meeting(VERSION, fault)) for name, fault in named.items()]
    # More often than the quick retries of a request.
    cases.append(Case("version", "refused seven times", meeting(VERSION, faults.refuse(), times=ALL_ATTEMPTS + 2)))
    cases.append(Case("version", "cut off for 10 s", _cut_off(VERSION, 10, "received")))
    cases.append(Case("version", "cut off for too long", _cut_off(VERSION, None, "received")))
    return cases


#: Cases of the faults below that run only with ``FAULTS_ALL=1``.
_THOROUGH = {
    ("version", "answer lost"),
    ("version", "answer cut in its head"),
    ("version", "hangs"),
    ("version", "502 of a proxy"),
    ("submit", "refused three times"),
    ("submit", "cut before it arrives"),
    ("submit", "cut in its head"),
    ("submit", "answer lost"),
    ("submit", "answer cut in its body"),
    ("submit", "two arrive after the time-out"),
    ("submit", "502 of a proxy"),
    ("submit", "504 of a proxy"),
    ("submit", "forwarded, then 504, twice"),
    ("submit", "forwarded, then a login page"),
    ("status", "refused"),
    ("status", "answer lost"),
    ("status", "answer after the time-out"),
    ("status", "arrives after the time-out"),
    ("status", "503 of a proxy"),
    ("status", "504 of a proxy"),
    ("status", "forwarded, then 502"),
    ("log", "cut at once, three times"),
    ("log", "502 of a proxy"),
    ("log", "hangs"),
}

#: Faults of the submission. The body begins about 300 bytes into the request.
_SUBMIT = {
    "refused": (faults.refuse(), 1),
    "refused three times": (faults.refuse(), 3),
    "cut before it arrives": (faults.cut_request_after(0), 1),
    "cut in its head": (faults.cut_request_after(100), 1),
    "cut in its body": (faults.cut_request_after(500), 1),
    "answer lost": (faults.swallow_response(), 1),
    "answer lost twice": (faults.swallow_response(), 2),
    "answer cut in its head": (faults.cut_response_after(20), 1),
    "answer cut in its body": (faults.cut_response_after(200), 1),
    "arrives after the time-out": (faults.delay_request(TOO_LATE), 1),
    "arrives after the time-out, with the second one": (faults.delay_request(3.55), 1),
    "two arrive after the time-out": (faults.delay_request(TOO_LATE), 2),
    "answer after the time-out": (faults.delay_response(TOO_LATE), 1),
    "hangs": (faults.hang(), 1),
    "502 of a proxy": (faults.answer(502), 1),
    "503 of a proxy, twice": (faults.answer(503), 2),
    "504 of a proxy": (faults.answer(504), 1),
    "forwarded, then 502": (faults.forward_then_answer(502), 1),
    "forwarded, then 504, twice": (faults.forward_then_answer(504), 2),
    "forwarded, then a login page": (faults.forward_then_answer(200, "<html>log in</html>"), 1),
}


def _submit() -> list[Case]:
    cases = [Case("submit", name, meeting(SUBMIT, fault, times=times)) for name, (fault, times) in _SUBMIT.items()]
    for name in ("answer lost", "arrives after the time-out", "forwarded, then 502", "refused"):
        fault, times = _SUBMIT[name]
        cases.append(Case("submit", name, meeting(SUBMIT, fault, times=times), deferrable=True))

    def lost_and_look_up_fails(bench: Bench) -> None:
        bench.on(SUBMIT, faults.swallow_response())
        bench.on(STATUS, faults.answer(503), times=ALL_ATTEMPTS)
        bench.until_success()

    def refused_throughout(bench: Bench) -> None:
        rule = bench.on(SUBMIT, faults.refuse(), times=None)
        assert bench.attempt() == "up_for_retry", bench.story()
        assert rule.hits > 1
        bench.proxy.clear()
        bench.until_success()

    cases.append(Case("submit", "answer lost, then 503 for the look-up", lost_and_look_up_fails))
    cases.append(Case("submit", "refused until the try fails", refused_throughout))
    for mode in (False, True):
        cases.append(Case("submit", "answer lost, then cut off for 10 s", _cut_off(SUBMIT, 10), deferrable=mode))
        cases.append(Case("submit", "answer lost, then cut off for too long", _cut_off(SUBMIT, None), deferrable=mode))
    return cases


def _cut_off(request: tuple[str, str], seconds: float | None, moment: Moment = "answered") -> Callable[[Bench], None]:
    """Return a scenario: the cluster is unreachable from a moment of a request on, while the job runs.

    :param seconds: how long; None: until the try has failed.
    """

    def play(bench: Bench) -> None:
        bench.args["entrypoint"] = bench.job(8)

        def cut() -> None:
            threading.Thread(target=bench.proxy.down, daemon=True).start()
            if seconds is not None:
                bench.later(seconds, bench.proxy.up)

        bench.on(request, faults.call(cut, moment, then=faults.hang() if moment == "received" else None))
        state = bench.attempt()
        if seconds is None:
            assert state == "up_for_retry", bench.story()
            assert bench.said("RayClusterUnreachableError"), bench.story()
            assert bench.said("the cluster was unreachable for"), bench.story()
            bench.proxy.up()
            bench.until_success()
        else:
            assert state == "success", bench.story()
            if request != STATUS:  # the quick retries of a first look, and a trigger's start, may take as long
                assert bench.said("No contact with the cluster; retrying for up to 20 s"), bench.story()
                assert bench.said("Contact with the cluster is back after"), bench.story()

    return play


_STATUS = {
    "refused": (faults.refuse(), 1),
    "refused five times": (faults.refuse(), 5),
    "answer lost": (faults.swallow_response(), 2),
    "answer cut in its body": (faults.cut_response_after(250), 2),
    "answer after the time-out": (faults.delay_response(TOO_LATE), 1),
    "arrives after the time-out": (faults.delay_request(TOO_LATE), 1),
    "hangs": (faults.hang(), 2),
    "502 of a proxy": (faults.answer(502), 4),
    "503 of a proxy": (faults.answer(503), 4),
    "504 of a proxy": (faults.answer(504), 4),
    "forwarded, then 502": (faults.forward_then_answer(502), 4),
    "a web page": (faults.answer(200, "<html>log in</html>"), 2),
}


def _status() -> list[Case]:
    cases = []
    for name, (fault, times) in _STATUS.items():
        cases.append(Case("status", name, meeting(STATUS, fault, first=2, times=times)))
        if name in ("refused five times", "answer cut in its body", "hangs", "502 of a proxy"):
            cases.append(Case("status", name, meeting(STATUS, fault, first=3, times=times), deferrable=True))
    # Faults before the task is deferred.
    cases.append(
        Case("status", "first status request refused", meeting(STATUS, faults.refuse(), times=2), deferrable=True)
    )
    cases.append(
        Case(
            "status",
            "first status request refused at all attempts",
            meeting(STATUS, faults.refuse(), times=ALL_ATTEMPTS),
            deferrable=True,
        )
    )
    for mode in (False, True):
        cases.append(Case("status", "cut off for 10 s", _cut_off(STATUS, 10), deferrable=mode))
        cases.append(Case("status", "cut off for too long", _cut_off(STATUS, None), deferrable=mode))
    return cases


def _log() -> list[Case]:
    def play(fault: Fault, times: int) -> Callable[[Bench], None]:
        def reading(bench: Bench) -> None:
            print_lines = f"for i in $(seq {LINES}); do echo line-$i of {LINES}; sleep 0.05; done; sleep 2"
            bench.args["entrypoint"] = bench.job(then=print_lines)
            rule = bench.on(LOG, fault, times=times)
            bench.until_success()
            assert rule.hits >= 1, "the fault was not applied"
            # The event of a trigger has the last lines again.
            lines = [line for line in bench.log.read_text().splitlines() if "EVENT" not in line]
            numbers = [int(number) for number in re.findall(rf"line-(\d+) of {LINES}", "\n".join(lines))]
            assert numbers == list(range(1, LINES + 1)), f"lines {numbers}; {bench.story()}"

        return reading

    named = {
        "refused": (faults.refuse(), 2),
        "cut at once, three times": (faults.cut_stream_after(0), 3),
        "cut after 300 bytes, three times": (faults.cut_stream_after(300), 3),
        "cut after 700 bytes, always": (faults.cut_stream_after(700), 1000),
        "stalls after 300 bytes": (faults.stall_stream_after(300), 1),
        "502 of a proxy": (faults.answer(502), 2),
        "hangs": (faults.hang(), 1),
    }
    cases = [Case("log", name, play(*fault)) for name, fault in named.items()]
    cases += [
        Case("log", name, play(*named[name]), deferrable=True)
        for name in ("cut after 300 bytes, three times", "stalls after 300 bytes")
    ]
    return cases


CASES = [
    replace(case, thorough=not case.deferrable and (case.step, case.fault) in _THOROUGH)
    for case in (*_submit(), *_status(), *_version(), *_log())
]
assert UNREACHABLE_TIMEOUT > 10, "the task must wait longer than 10 s"

"""Which runs are intended (a retry after a failure, a clear, a second deployment), and which are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.faults.bench import LIST, STATUS, SUBMIT, Bench
from tests.faults.case import Case
from tests.support import faults

if TYPE_CHECKING:
    from collections.abc import Callable

#: Durations in seconds of a job that runs until it is stopped, and of one that runs until the next try has found it.
FOR_EVER = 3600.0
LONG = 15.0


def _assert_one_after_the_other(bench: Bench) -> None:
    """Assert that the first job ended before the second one was submitted."""
    first, second = bench.jobs()
    assert first["status"] == "STOPPED", bench.story()
    assert first["end_time"] <= second["start_time"], bench.story()


def _leave_running(bench: Bench, seconds: float, number: int = 1) -> None:
    """Kill the process while its job, the case's first or another, runs."""
    bench.args["entrypoint"] = bench.job(seconds)
    process = bench.start()
    bench.wait_job("RUNNING", number)
    process.kill()
    bench.args["entrypoint"] = bench.job()


def _failed(bench: Bench) -> None:
    bench.args["entrypoint"] = bench.job(then="exit 3")
    assert bench.attempt() == "up_for_retry", bench.story()
    bench.args["entrypoint"] = bench.job()
    bench.until_success()


def _cleared(bench: Bench) -> None:
    bench.until_success()
    bench.do("clear")
    bench.until_success()


def _cleared_with_a_job_left_behind(bench: Bench) -> None:
    _leave_running(bench, FOR_EVER)
    bench.do("lost")
    bench.do("clear")
    bench.until_success()
    _assert_one_after_the_other(bench)


def _cleared_before_the_worker_was_missed(bench: Bench) -> None:
    # Airflow does not raise max_tries here, so this looks like a retry, and the job is followed.
    _leave_running(bench, LONG)
    bench.do("clear")
    bench.until_success()


def _cleared_while_running(bench: Bench) -> None:
    bench.args["entrypoint"] = bench.job(FOR_EVER)
    process = bench.start()
    bench.wait_job("RUNNING")
    bench.do("clear")
    process.terminate()
    process.wait()
    bench.args["entrypoint"] = bench.job()
    bench.until_success()
    _assert_one_after_the_other(bench)


def _killed_without_reattachment(bench: Bench) -> None:
    bench.args["reattach"] = False
    _leave_running(bench, FOR_EVER)
    bench.until_success()
    _assert_one_after_the_other(bench)


def _ended_without_stopping(bench: Bench) -> None:
    bench.args |= {"stop_on_kill": False, "entrypoint": bench.job(LONG)}
    process = bench.start()
    bench.wait_job("RUNNING")
    bench.signal_current(None)
    process.wait()
    bench.until_success()


def _not_waited_for(bench: Bench) -> None:
    bench.args["wait_for_completion"] = False
    bench.on(SUBMIT, faults.swallow_response())
    bench.until_success()


def _explicit(play: Callable[[Bench], None]) -> Callable[[Bench], None]:
    """Return a scenario with an explicit submission id."""

    def chosen(bench: Bench) -> None:
        bench.args["submission_id"] = f"chosen-{bench.run_id}"[:80]
        play(bench)
        assert bench.jobs()[0]["submission_id"] == bench.args["submission_id"]

    return chosen


def _answer_lost(bench: Bench) -> None:
    bench.on(SUBMIT, faults.swallow_response())
    bench.until_success()


def _left_running(bench: Bench) -> None:
    _leave_running(bench, LONG)
    bench.until_success()


def _left_running_and_list_fails(bench: Bench) -> None:
    _leave_running(bench, LONG)
    bench.on(LIST, faults.answer(502), times=2)
    bench.until_success()


def _two_deployments(bench: Bench) -> None:
    bench.extra["deployment"] = "east"
    bench.until_success()
    # The other Airflow has its own database, which does not know this run.
    bench.do("forget")
    bench.extra["deployment"] = "west"
    bench.until_success()
    one, two = bench.jobs()
    assert one["submission_id"] != two["submission_id"]
    assert one["metadata"]["airflow_task"] != two["metadata"]["airflow_task"]


def _second_deployment_leaves_the_first_alone(bench: Bench) -> None:
    bench.extra["deployment"] = "east"
    _leave_running(bench, LONG)
    bench.extra["deployment"] = "west"
    bench.do("forget")
    bench.until_success()


def _created_again(bench: Bench) -> None:
    bench.until_success()
    bench.do("forget")
    bench.until_success()


def _created_again_with_a_job_left_behind(bench: Bench) -> None:
    _leave_running(bench, FOR_EVER)
    bench.do("forget")
    bench.until_success()
    _assert_one_after_the_other(bench)


def _created_again_and_killed(bench: Bench) -> None:
    bench.until_success()
    bench.do("forget")
    _leave_running(bench, LONG, number=2)
    bench.on(STATUS, faults.swallow_response())
    bench.until_success()


def _cases() -> list[Case]:
    plays: dict[tuple[str, str], tuple[Callable[[Bench], None], dict[str, Any]]] = {
        ("retry", "after the job FAILED"): (_failed, {"jobs": 2}),
        ("retry", "after kill -9, reattach=False"): (_killed_without_reattachment, {"jobs": 2}),
        ("retry", "after a clear, stop_on_kill=False"): (_ended_without_stopping, {}),
        ("clear", "after success"): (_cleared, {"jobs": 2, "ends": 2}),
        ("clear", "a job left behind"): (_cleared_with_a_job_left_behind, {"jobs": 2}),
        ("clear", "before the dead worker was missed"): (_cleared_before_the_worker_was_missed, {}),
        ("clear", "while it runs"): (_cleared_while_running, {"jobs": 2}),
        ("not waited for", "answer lost"): (_not_waited_for, {}),
        ("explicit id", "answer lost"): (_explicit(_answer_lost), {}),
        ("explicit id", "retry after the job FAILED"): (_explicit(_failed), {"jobs": 2}),
        ("explicit id", "clear"): (_explicit(_cleared), {"jobs": 2, "ends": 2}),
        ("explicit id", "clear, a job left behind"): (_explicit(_cleared_with_a_job_left_behind), {"jobs": 2}),
        ("explicit id", "kill -9"): (_explicit(_left_running), {}),
        ("explicit id", "kill -9, then 502 for the list"): (_explicit(_left_running_and_list_fails), {}),
        ("two deployments", "one after the other"): (_two_deployments, {"jobs": 2, "ends": 2}),
        ("two deployments", "side by side"): (_second_deployment_leaves_the_first_alone, {"jobs": 2, "ends": 2}),
        ("run deleted and created again", "after success"): (_created_again, {"jobs": 2, "ends": 2}),
        ("run deleted and created again", "a job left behind"): (_created_again_with_a_job_left_behind, {"jobs": 2}),
        ("run deleted and created again", "then kill -9"): (_created_again_and_killed, {"jobs": 2, "ends": 2}),
    }
    cases = [Case(step, fault, play, **expected) for (step, fault), (play, expected) in plays.items()]
    for (step, fault), (play, expected) in plays.items():
        if (step, fault) in (("retry", "after the job FAILED"), ("clear", "after success")):
            cases.append(Case(step, fault, play, deferrable=True, **expected))
    return cases


CASES = _cases()

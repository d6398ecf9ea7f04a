"""What becomes of a job when its task's process is asked to end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_rayjobs.exceptions import RayJobFailedError, RayJobInterruptedError, RayJobStoppedError
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.tasks.guard import JobGuard
from airflow_provider_rayjobs.tasks.killed import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.scripted_server import ScriptedRay

#: Why the process ends, whether a try follows, and whether the job is to be stopped.
CASES = [
    (Reason.TASK_ENDED, True, True),
    (Reason.TASK_ENDED, False, True),
    (Reason.TASK_CLEARED, True, True),
    (Reason.PROCESS_ENDS, True, False),
    (Reason.PROCESS_ENDS, False, True),
    (Reason.REPLACED, True, False),
    (Reason.REPLACED, False, False),
    (Reason.UNKNOWN, True, False),
    (Reason.UNKNOWN, False, True),
]

ENDED = (Reason.TASK_ENDED, Reason.TASK_CLEARED)


@pytest.fixture
def hook(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayJobHook]:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url}))
    made = RayJobHook("ray_x")
    yield made
    made.close()


def guard_of(hook: RayJobHook, reason: Reason, next_try: bool, *, replaced: bool = False, enabled: bool = True) -> Any:
    process: Any = SimpleNamespace(reason=lambda _: reason, has_next_try=next_try, is_replaced=lambda: replaced)
    return JobGuard(hook, logging.getLogger("task"), process, enabled=enabled)


def wait_guarded(guard: JobGuard, end: Callable[[], object]) -> None:
    """Follow the job, until something ends it."""
    with guard.guarding():
        guard.announce("j1", exists=True)
        end()
        guard.run(asyncio.sleep(30))


def stops(server: ScriptedRay) -> int:
    return len(server.received_on("POST", "/api/jobs/j1/stop"))


@pytest.mark.parametrize(("reason", "next_try", "stopped"), CASES)
def test_a_wait_that_is_interrupted(
    scripted_ray: ScriptedRay, hook: RayJobHook, reason: Reason, next_try: bool, stopped: bool
) -> None:
    scripted_ray.add_job("j1")
    guard = guard_of(hook, reason, next_try)
    before = signal.signal(signal.SIGUSR1, lambda *_: guard.kill())
    try:
        with pytest.raises(RayJobStoppedError if stopped else RayJobInterruptedError, match="j1") as raised:
            wait_guarded(guard, threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert raised.value.submission_id == "j1"
    assert scripted_ray.jobs["j1"].status == ("STOPPED" if stopped else "RUNNING")
    assert (stops(scripted_ray) > 0) is stopped


@pytest.mark.parametrize(("reason", "next_try"), [case[:2] for case in CASES])
def test_a_work_that_ended_nevertheless(
    scripted_ray: ScriptedRay, hook: RayJobHook, reason: Reason, next_try: bool
) -> None:
    """A result that is there is returned, unless the task was ended; an error of the job stays, as does a deferral."""
    scripted_ray.add_job("j1")
    guard = guard_of(hook, reason, next_try)

    def work() -> str:
        with guard.guarding():
            guard.announce("j1", exists=True)
            guard.kill()
            return "result"

    if reason in ENDED:
        with pytest.raises(RayJobStoppedError):
            work()
    else:
        assert work() == "result"
    with pytest.raises(RayJobFailedError), guard.guarding():
        raise RayJobFailedError("its own")
    with pytest.raises(TaskDeferred), guard.guarding():
        raise TaskDeferred(trigger=None, method_name="execute_complete")
    assert (scripted_ray.jobs["j1"].status == "STOPPED") is (reason in ENDED)


@pytest.mark.parametrize("reason", ENDED)
def test_a_clear_leaves_no_success_that_the_next_try_could_return(
    scripted_ray: ScriptedRay, hook: RayJobHook, reason: Reason
) -> None:
    scripted_ray.add_job("j1", "SUCCEEDED")
    guard = guard_of(hook, reason, next_try=True)
    with pytest.raises(RayJobStoppedError):
        wait_guarded(guard, guard.kill)  # it reads the last lines of the job's log, say
    assert ("j1" in scripted_ray.jobs) is (reason is Reason.TASK_ENDED)


def test_nothing_is_asked_in_the_signal_handler(scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    def reason(_: str | None) -> Reason:
        raise AssertionError("asked")

    process: Any = SimpleNamespace(reason=reason, has_next_try=True, is_replaced=lambda: False)
    guard = JobGuard(hook, logging.getLogger("task"), process, enabled=True)
    guard.announce("j1", exists=True)
    guard.kill()
    assert scripted_ray.received == []


def test_a_job_that_may_outlive_its_task_is_left(scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    scripted_ray.add_job("j1")
    guard = guard_of(hook, Reason.TASK_ENDED, next_try=False, enabled=False)
    with pytest.raises(RayJobInterruptedError):
        wait_guarded(guard, guard.kill)
    assert stops(scripted_ray) == 0


def test_a_timeout_stops_the_job_whatever_airflow_says(scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    scripted_ray.add_job("j1")
    guard = guard_of(hook, Reason.PROCESS_ENDS, next_try=True)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wait_guarded(guard, interrupt)
    assert scripted_ray.jobs["j1"].status == "STOPPED"


def test_a_process_that_was_replaced_submits_nothing(hook: RayJobHook) -> None:
    guard = guard_of(hook, Reason.REPLACED, next_try=True, replaced=True)
    guard.announce("j1")
    with pytest.raises(RayJobInterruptedError, match="another process runs it now"):
        guard.before_submission()

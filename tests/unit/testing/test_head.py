"""The scripted head as tests of DAGs use it: jobs do what they are told, faults come and go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError
from airflow_provider_rayjobs.hooks import RayJobAsyncHook, RayJobHook
from airflow_provider_rayjobs.testing import ScriptedRayHead

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedRayHead]:
    with ScriptedRayHead() as head:
        monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", head.connection(unreachable_timeout=5))
        yield head


@pytest.fixture
def hook(head: ScriptedRayHead) -> Iterator[RayJobHook]:
    with contextlib.closing(RayJobHook()) as hook:
        yield hook


def status_after(hook: RayJobHook, job: str, *, until: str) -> float:
    """Wait for a status; return how many seconds it took."""
    begin = time.monotonic()
    while hook.get_job_status(job) != until:
        assert time.monotonic() - begin < 10
        time.sleep(0.01)
    return time.monotonic() - begin


def test_each_job_succeeds_after_a_moment(hook: RayJobHook, head: ScriptedRayHead) -> None:
    job = hook.submit_job(entrypoint="true", metadata={"k": "v"}, runtime_env={"env_vars": {"A": "1"}})
    status_after(hook, job, until="SUCCEEDED")
    assert hook.get_job_info(job).driver_exit_code == 0
    (submitted,) = head.submitted
    assert (submitted.submission_id, submitted.status, submitted.entrypoint) == (job, "SUCCEEDED", "true")
    assert (submitted.metadata["k"], submitted.runtime_env) == ("v", {"env_vars": {"A": "1"}})
    assert submitted.request["submission_id"] == job


def test_jobs_end_as_told_in_the_order_of_their_submission(hook: RayJobHook, head: ScriptedRayHead) -> None:
    head.next_job(status="FAILED", runs=0, exit_code=3, log="no such file\n", error_type="JOB_ENTRYPOINT_COMMAND_ERROR")
    head.next_job(status="STOPPED", runs=0, message="stopped by hand")
    head.all_jobs(status="PENDING")
    failed, stopped, waiting = (hook.get_job_info(hook.submit_job(entrypoint="true")) for _ in range(3))
    assert (failed.status, failed.driver_exit_code) == ("FAILED", 3)
    assert "exit code 3" in failed.message
    assert "no such file" in failed.message
    assert failed.error_type == "JOB_ENTRYPOINT_COMMAND_ERROR"
    assert (stopped.status, stopped.message) == ("STOPPED", "stopped by hand")
    assert waiting.status == "PENDING"


def test_a_job_waits_runs_and_prints(hook: RayJobHook, head: ScriptedRayHead) -> None:
    head.next_job(pending=1.0, runs=0.5, log="one\ntwo\n")
    job = hook.submit_job(entrypoint="true")
    assert hook.get_job_status(job) == "PENDING"
    assert status_after(hook, job, until="RUNNING") > 0.1
    assert "".join(hook.tail_job_logs(job)) == hook.get_job_logs(job) == "one\ntwo\n"
    status_after(hook, job, until="SUCCEEDED")


def test_a_job_runs_until_it_is_stopped(hook: RayJobHook, head: ScriptedRayHead) -> None:
    head.next_job(status="RUNNING")
    job = hook.submit_job(entrypoint="true")
    assert [one.stop_requested for one in head.submitted] == [False]
    assert hook.stop_job(job)
    status_after(hook, job, until="STOPPED")
    assert [one.stop_requested for one in head.submitted] == [True]


def test_a_job_that_would_fail_is_only_stopped(hook: RayJobHook, head: ScriptedRayHead) -> None:
    head.next_job(status="FAILED", runs=3600.0, exit_code=3)
    job = hook.submit_job(entrypoint="true")
    hook.stop_job(job)
    status_after(hook, job, until="STOPPED")
    details = hook.get_job_info(job)
    assert (details.message, details.driver_exit_code) == ("Job was intentionally stopped.", None)


def test_a_deleted_job_was_submitted_all_the_same(hook: RayJobHook, head: ScriptedRayHead) -> None:
    for _ in range(2):
        job = hook.submit_job(entrypoint="true", submission_id="again")
        status_after(hook, job, until="SUCCEEDED")
        hook.delete_job(job)
    assert [one.submission_id for one in head.submitted] == ["again", "again"]


def test_a_lost_answer_makes_no_second_job(hook: RayJobHook, head: ScriptedRayHead) -> None:
    head.lose_answer()
    job = hook.submit_job(entrypoint="true")
    assert [one.submission_id for one in head.submitted] == [job]


def test_the_head_goes_away_and_comes_back_with_its_jobs(hook: RayJobHook, head: ScriptedRayHead) -> None:
    head.next_job(status="RUNNING")
    head.go_away(1.5, after_submission=True)
    job = hook.submit_job(entrypoint="true")
    begin = time.monotonic()
    assert hook.get_job_status(job) == "RUNNING"
    assert time.monotonic() - begin > 0.5


def test_a_stream_of_the_log_breaks_off_when_the_head_goes_away(head: ScriptedRayHead) -> None:
    head.next_job(status="RUNNING", log="one\n")

    async def follow() -> None:
        hook = RayJobAsyncHook()
        try:
            job = await hook.submit_job(entrypoint="true")
            with pytest.raises(RayClusterUnreachableError):  # noqa: PT012 - it breaks off after its first message
                async for text in hook.tail_job_logs(job):
                    assert text == "one\n"
                    head.go_away(0.2)
        finally:
            await hook.close()

    asyncio.run(follow())


def test_a_task_gives_up_when_the_head_stays_away(head: ScriptedRayHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SHORT", head.connection(unreachable_timeout=0.2))
    head.go_away(60)
    with contextlib.closing(RayJobHook("short")) as hook, pytest.raises(RayClusterUnreachableError):
        hook.get_version()


@pytest.mark.parametrize(("wrong", "said"), [({"status": "DONE"}, "must be one of"), ({"runs": -1}, "0 or more")])
def test_a_wrong_script_is_told_at_once(head: ScriptedRayHead, wrong: dict[str, Any], said: str) -> None:
    for method in (head.next_job, head.all_jobs):
        with pytest.raises(ValueError, match=said):
            method(**wrong)


def test_the_connection_leads_to_the_head(head: ScriptedRayHead) -> None:
    connection = json.loads(head.connection(unreachable_timeout=2))
    assert connection == {"conn_type": "ray_jobs", "host": head.address, "extra": {"unreachable_timeout": 2}}

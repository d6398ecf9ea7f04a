"""Tests for every supported Ray: each method, every field of a submission, and the life of a task.

Set RAYJOBS_RAY_BIN to test another Ray than the newest one.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.client.listing import live_jobs
from airflow_provider_rayjobs.exceptions import (
    RayAPIError,
    RayJobExistsError,
    RayJobFailedError,
    RayJobNotFoundError,
    RayRequestRefusedError,
)
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.operators import RayDeleteJobOperator, RayStopJobOperator, RaySubmitJobOperator
from tests.support.airflow_records import wait
from tests.support.ray_head import LABEL_SELECTOR_SINCE
from tests.support.tries import Tries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ray_head import RayHead

BOTH = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])


@pytest.fixture(autouse=True)
def _connection(ray_head: RayHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(ray_head.connection()))


@pytest.fixture
def hook() -> Iterator[RayJobHook]:
    hook = RayJobHook()
    yield hook
    hook.close()


def new_id() -> str:
    return f"each-{uuid.uuid4().hex[:8]}"


def live_names(hook: RayJobHook) -> set[str]:
    found = hook.get_conn().run(live_jobs())
    assert found is not None
    names, number = found
    assert number >= len(names)
    return names


def test_a_job_has_a_live_actor_while_it_runs(hook: RayJobHook, ray_head: RayHead) -> None:
    job = new_id()
    hook.submit_job(entrypoint="sleep 1000", submission_id=job)
    ray_head.wait_job(job, until={"RUNNING"})
    assert job in live_names(hook)
    hook.stop_job(job)
    ray_head.wait_job(job, until={"STOPPED"})
    wait(lambda: job not in live_names(hook), 10, lambda: f"{job} has a live actor")


@BOTH
def test_a_script_reports_its_result(tmp_path: Path, deferrable: bool) -> None:
    """The module is found beside a working_dir and modules of the user; a shell without output finds the log."""
    report = "from airflow_provider_rayjobs.job import report_result\nreport_result({'at': A * 50_000})\n"
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "main.py").write_text(f"from own import A\n{report}")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "own.py").write_text("A = 'x'\n")

    def make(entrypoint: str) -> Tries:
        env = {"working_dir": str(tmp_path / "work"), "env_vars": {"PYTHONPATH": str(tmp_path / "lib")}}
        return Tries(
            lambda: RaySubmitJobOperator(
                task_id="task", entrypoint=entrypoint, runtime_env=env, deferrable=deferrable, read_result=True
            ),
            uuid.uuid4().hex,
        )

    assert make("python main.py").run() == {"at": "x" * 50_000}
    assert make("python -m airflow_provider_rayjobs.job report_result 7 > /dev/null 2>&1; true").run() == 7
    assert make("true").run() is None
    failing = make("python main.py && exit 3")
    with pytest.raises(RayJobFailedError, match="3"):
        failing.run()
    assert failing.ti.xcoms["return_value"] == {"at": "x" * 50_000}


def test_each_verb_and_every_field(hook: RayJobHook, ray_head: RayHead, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import os, time\nprint(os.environ['A'], flush=True)\ntime.sleep(1000)\n")
    job = new_id()
    hook.submit_job(
        entrypoint="python main.py",
        submission_id=job,
        runtime_env={"working_dir": str(tmp_path), "env_vars": {"A": "began"}},
        metadata={"team": "a"},
        entrypoint_num_cpus=0.5,
        entrypoint_num_gpus=0,
        entrypoint_memory=2**20,
        entrypoint_resources={"node:__internal_head__": 0.001},
    )
    ray_head.wait_job(job, until={"RUNNING"})
    with contextlib.closing(hook.tail_job_logs(job)) as lines:
        assert any("began" in text for text in lines)
    details = hook.get_job_info(job)
    assert (details.status, details.metadata["team"]) == ("RUNNING", "a")
    with pytest.raises(RayJobExistsError, match=job):
        hook.submit_job(entrypoint="true", submission_id=job)
    with pytest.raises(RayAPIError, match="RUNNING"):
        hook.delete_job(job)
    assert hook.stop_job(job) is True
    ray_head.wait_job(job, until={"STOPPED"})
    assert "began" in hook.get_job_logs(job)
    assert {one.submission_id: one.status for one in hook.list_jobs()}[job] == "STOPPED"
    assert hook.delete_job(job) is True
    with pytest.raises(RayJobNotFoundError, match=job):
        hook.get_job_info(job)
    assert hook.get_version() == ".".join(map(str, ray_head.version))


def test_a_label_selector_is_accepted_or_the_error_names_it(hook: RayJobHook, ray_head: RayHead) -> None:
    job = new_id()
    if ray_head.version >= LABEL_SELECTOR_SINCE:
        hook.submit_job(entrypoint="true", submission_id=job, entrypoint_label_selector={"zone": "!b"})
        ray_head.wait_job(job, until={"SUCCEEDED"})
    else:
        with pytest.raises(RayRequestRefusedError, match="entrypoint_label_selector"):
            hook.submit_job(entrypoint="true", submission_id=job, entrypoint_label_selector={"zone": "!b"})
        assert ray_head.job(job) is None


@BOTH
def test_a_task_ends_as_its_job_ends(hook: RayJobHook, deferrable: bool) -> None:
    def task(entrypoint: str) -> Tries:
        return Tries(
            lambda: RaySubmitJobOperator(task_id="task", entrypoint=entrypoint, deferrable=deferrable), uuid.uuid4().hex
        )

    done = task("echo all is well")
    job = done.run()
    assert "all is well" in done.lines
    failed = task("echo boom; exit 3")
    with pytest.raises(RayJobFailedError, match=r"(?s)^Ray job FAILED: exit code \d.*boom"):
        failed.run()
    assert RayStopJobOperator(task_id="stop", submission_id=job).execute({}) == "SUCCEEDED"
    RayDeleteJobOperator(task_id="delete", submission_id=job).execute({})
    with pytest.raises(RayJobNotFoundError):
        hook.get_job_info(job)

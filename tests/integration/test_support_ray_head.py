"""Tests of the head for tests: it runs jobs, a kill ends all its processes, and a restart forgets its jobs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import environment, faults
from tests.support.ray_head import TOKEN_MODE_SINCE, RayHead, require_ray_since
from tests.support.witness import Witness

if TYPE_CHECKING:
    from tests.support.faulty_proxy import FaultyProxy


def test_shared_head_runs_a_job(ray_head: RayHead) -> None:
    job = ray_head.submit("python -c 'import ray; print(6 * 7)'", metadata={"who": "test"})
    details = ray_head.wait_job(job)
    assert (details["status"], details["metadata"]) == ("SUCCEEDED", {"who": "test"})
    assert "42\n" in ray_head.logs(job)
    assert job in [one["submission_id"] for one in ray_head.jobs()]


def test_job_of_a_submission_with_a_lost_response_runs(ray_head: RayHead, faulty_proxy: FaultyProxy) -> None:
    faulty_proxy.on(faults.swallow_response(), method="POST", times=1)
    through_proxy = Witness(faulty_proxy.url, ray_head.token)
    with pytest.raises(OSError, match="reset"):
        through_proxy.submit("true", submission_id="lost-answer")
    assert ray_head.wait_job("lost-answer")["status"] == "SUCCEEDED"


@pytest.mark.integration
@pytest.mark.timeout(900)  # two starts
def test_crash_and_restart_lose_the_jobs() -> None:
    require_ray_since(TOKEN_MODE_SINCE, "RAY_AUTH_MODE=token")
    with RayHead(num_cpus=1, token="ab" * 32) as head:
        assert head.jobs() == []
        session = head.session_name()
        token, head.token = head.token, ""
        assert head.request("GET", "/api/jobs/")[0] == 401
        head.token = token
        job = head.submit("echo $$; exec sleep 1000")
        head.wait_job(job, until={"RUNNING"})
        killed = head.kill()
        assert not any(process.alive() for process in killed)
        with pytest.raises(OSError, match="refused"):
            head.job(job)
        head.start()
        head.wait_ready()
        assert head.session_name() != session
        assert head.job(job) is None
        running = head.submit("sleep 1000")
        head.wait_job(running, until={"RUNNING"})
        assert head.stop_job(running) is True
        assert head.wait_job(running)["status"] == "STOPPED"
        pid = head.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not list(Path(environment.SHORT_TMP).glob(f"rj*/r/session_*_{pid}"))

"""Several submissions in one try, and one try that runs in two processes at once, on a real head."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.exceptions import RayJobFailedError
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from tests.support.tries import Tries

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.ray_head import RayHead


@pytest.fixture(autouse=True)
def _connection(ray_head: RayHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(ray_head.connection()))


class TwoSteps(RaySubmitJobOperator):
    """Runs a preparation before its own entrypoint."""

    def execute(self, context: Any) -> Any:
        """Run both jobs, one after the other."""
        own, self.entrypoint = self.entrypoint, "echo PREPARATION"
        super().execute(context)
        self.entrypoint = own
        return super().execute(context)


def test_each_submission_of_a_try_runs() -> None:
    context = Tries(lambda: RaySubmitJobOperator(task_id="t", entrypoint="true"), uuid.uuid4().hex).context()
    made = TwoSteps(task_id="t", entrypoint="echo MAIN").execute(context)
    loop = [RaySubmitJobOperator(task_id=f"s{n}", entrypoint=f"echo SHARD-{n}").execute(context) for n in range(2)]

    hook = RayJobHook()
    assert "MAIN" in hook.get_job_logs(made)
    assert [f"SHARD-{n}" in hook.get_job_logs(made) for n, made in enumerate(loop)] == [True, True]
    with pytest.raises(RayJobFailedError):
        RaySubmitJobOperator(task_id="t", entrypoint="exit 3").execute(context)
    hook.close()


def test_two_processes_of_one_try_follow_one_job(ray_head: RayHead, tmp_path: Path) -> None:
    trace, run_id = tmp_path / "trace", uuid.uuid4().hex

    def execute(_: int) -> Any:
        operator = RaySubmitJobOperator(task_id="t", entrypoint=f"echo start >> {trace}; sleep 2")
        return operator.execute(Tries(lambda: operator, run_id).context())

    with ThreadPoolExecutor(2) as processes:
        first, second = processes.map(execute, range(2))
    assert first == second
    assert trace.read_text().split() == ["start"]
    assert [job["submission_id"] for job in ray_head.jobs() if str(trace) in job["entrypoint"]] == [first]

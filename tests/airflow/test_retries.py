"""Retries by cause on a real scheduler, and what Airflow shows of a task's state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.airflow.drivers import driver, ends, jobs_of, starts
from tests.support.airflow_processes import airflow_version
from tests.support.ray_head import RayHead, require_ray

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.airflow_env import AirflowEnv

TASKS = ("sync", "deferred")

policy = pytest.mark.skipif(airflow_version() < (3, 3), reason="Airflow before 3.3 has no retry_policy")


def shown_state(airflow: AirflowEnv, dag_id: str, run_id: str, task_id: str) -> dict[str, object]:
    """Return what Airflow's web page shows of a task's state store."""
    path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/state-store"
    return {entry["key"]: entry["value"] for entry in airflow.api("GET", path)["task_state_store"]}


@pytest.mark.parametrize(
    ("dag_id", "told"),
    [
        ("rj_by_cause", "AirflowFailException: Ray job FAILED: exit code 7 (not retried: the program failed"),
        pytest.param("rj_policy", "Retry policy decision", marks=policy),
    ],
)
def test_a_program_that_fails_is_not_retried(
    airflow_env: AirflowEnv, ray_head: RayHead, tmp_path: Path, dag_id: str, told: str
) -> None:
    trace, run_id = tmp_path / "trace", f"program-{dag_id}"
    airflow_env.wait_dag(dag_id)
    airflow_env.trigger(dag_id, run_id, {"command": driver(trace, 0, exit_code=7)})
    for task_id in TASKS:
        row = airflow_env.wait_task(dag_id, run_id, task_id, "failed")
        assert (row.try_number, row.max_tries) == (1, 2)
        assert told in airflow_env.task_log(dag_id, run_id, task_id)
    assert [job["status"] for job in jobs_of(ray_head, run_id)] == ["FAILED", "FAILED"]
    assert starts(trace) == 2


@policy
def test_a_lost_head_is_retried_and_airflow_shows_the_job_that_is_followed(
    airflow_env: AirflowEnv, tmp_path: Path
) -> None:
    trace, gate = tmp_path / "trace", tmp_path / "gate"
    where = ("rj_policy", "head")
    airflow_env.wait_dag("rj_policy")
    with RayHead(num_cpus=1, ray_bin=require_ray()) as head:
        airflow_env.add_connection("ray_lost", **head.connection(extra={"unreachable_timeout": 200}))
        airflow_env.trigger(*where, {"command": driver(trace, gate), "conn_id": "ray_lost"})
        for task_id in TASKS:
            airflow_env.wait_log(*where, task_id, "hello from the driver")
        first = {job["metadata"]["airflow_task_id"]: job["submission_id"] for job in jobs_of(head, "head")}
        assert {task_id: shown_state(airflow_env, *where, task_id) for task_id in TASKS} == {
            task_id: {"submission_id": first[task_id]} for task_id in TASKS
        }
        head.restart()
        for task_id in TASKS:
            airflow_env.wait_log(*where, task_id, "hello from the driver", try_number=2, timeout=200)
            assert "Retry policy decision" in airflow_env.task_log(*where, task_id)
        gate.touch()
        for task_id in TASKS:
            airflow_env.wait_task(*where, task_id, "success", try_number=2)
            shown = shown_state(airflow_env, *where, task_id)
            assert shown == {"submission_id": airflow_env.xcom(*where, task_id)}
            assert shown["submission_id"] != first[task_id]
    reasons = airflow_env.query("SELECT retry_reason FROM task_instance_history WHERE run_id = 'head'")
    assert {row["retry_reason"] for row in reasons} == {"the cluster lost the job"}
    assert (starts(trace), ends(trace)) == (4, 2)

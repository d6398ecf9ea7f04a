"""Sensors in every mode, and the operators that stop and delete, on a real Airflow and a real head."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.airflow.drivers import jobs_of, wait_statuses
from tests.support.witness import TERMINAL

if TYPE_CHECKING:
    from tests.support.airflow_env import AirflowEnv
    from tests.support.ray_head import RayHead

# They use all CPUs of the head, and start more tasks at once than a busy Airflow can run in time.
pytestmark = pytest.mark.alone

DAG = "rj_sensors"
MODES = ("poke", "reschedule", "deferred")

OUTCOMES = {
    "ends": "success",
    "fails": "failed",
    "skips": "skipped",
    "wants": "success",
    "late": "failed",
    "cluster": "success",
    "full": "failed",
}


def blocker(head: RayHead) -> str:
    """Submit a job that uses all CPUs of the head, so that others must wait."""
    return head.submit("sleep 600", entrypoint_num_cpus=head.num_cpus)


@pytest.fixture(scope="module")
def sensors(airflow_env: AirflowEnv, ray_head: RayHead) -> dict[str, str]:
    """Run the DAG to its end; return the submission ids in its conf."""
    ids = {
        "short": ray_head.submit("sleep 30"),
        "failing": ray_head.submit("sleep 20; echo output of the job; exit 3"),
        "blocking": blocker(ray_head),
    }
    airflow_env.wait_dag(DAG)
    airflow_env.trigger(DAG, "modes", ids)
    for task in ("stop", "delete", *(f"{kind}_{mode}" for kind in OUTCOMES for mode in MODES)):
        airflow_env.wait_task(DAG, "modes", task, {"success", "failed", "skipped"}, timeout=280)
    return ids


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", OUTCOMES)
def test_a_sensor_ends_the_same_way_in_every_mode(airflow_env: AirflowEnv, sensors: dict[str, str], kind: str) -> None:
    for mode in MODES:
        task = f"{kind}_{mode}"
        assert airflow_env.task(DAG, "modes", task).state == OUTCOMES[kind], airflow_env.task_log(DAG, "modes", task)


def test_the_error_for_a_failed_job_has_its_output(airflow_env: AirflowEnv, sensors: dict[str, str]) -> None:
    for mode in MODES:
        log = airflow_env.task_log(DAG, "modes", f"fails_{mode}")
        assert f"Ray job {sensors['failing']} ended FAILED instead of SUCCEEDED" in log
        assert "output of the job" in log


def test_no_trivial_job_outlives_its_sensor(ray_head: RayHead, sensors: dict[str, str]) -> None:
    # Ray stops a waiting job only when it gets its resources, here after the stop of the blocking job.
    deadline = time.monotonic() + 30
    while alive := [job for job in jobs_of(ray_head, "modes") if job["status"] in ("PENDING", "RUNNING")]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.5)
    assert len(jobs_of(ray_head, "modes")) == 6


def test_stop_and_delete(airflow_env: AirflowEnv, ray_head: RayHead, sensors: dict[str, str]) -> None:
    assert airflow_env.task(DAG, "modes", "stop").state == "success"
    assert airflow_env.xcom(DAG, "modes", "stop") == "STOPPED"
    assert ray_head.job(sensors["blocking"])["status"] == "STOPPED"
    assert airflow_env.task(DAG, "modes", "delete").state == "success"
    assert sensors["failing"] not in {job["submission_id"] for job in ray_head.jobs()}


def test_a_killed_sensor_stops_its_trivial_job(airflow_env: AirflowEnv, sensors: object, ray_head: RayHead) -> None:
    blocking = blocker(ray_head)
    airflow_env.wait_dag("rj_killed_sensor")
    airflow_env.trigger("rj_killed_sensor", "killed-sensor")
    airflow_env.wait_task("rj_killed_sensor", "killed-sensor", "job", "deferred")
    airflow_env.wait_log("rj_killed_sensor", "killed-sensor", "job", "Waiting for the trivial Ray job")
    wait_statuses(ray_head, "killed-sensor", ["PENDING"], 30)
    airflow_env.set_task_state("rj_killed_sensor", "killed-sensor", "job", "failed")
    airflow_env.wait_log("rj_killed_sensor", "killed-sensor", "job", "Stopping Ray job probe-rj_killed_sensor")
    ray_head.stop_job(blocking)
    (probe,) = jobs_of(ray_head, "killed-sensor")
    # The job is so short that the stop, which Ray delays until it runs, may come too late.
    ray_head.wait_job(probe["submission_id"], until=TERMINAL)

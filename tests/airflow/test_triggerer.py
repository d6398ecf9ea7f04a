"""Deferred tasks on a real triggerer: outcome, live log, kill, timeouts, lost triggerers and lost contact."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.links import JOB_PAGE_XCOM
from tests.airflow.drivers import driver, ends, jobs_of, starts, wait_statuses

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.airflow_env import AirflowEnv
    from tests.support.faulty_proxy import FaultyProxy
    from tests.support.ray_head import RayHead

DAG = "rj_deferred"

#: Seconds within which a kill of a deferred task must have stopped its job.
KILL_LIMIT = 15


@pytest.fixture
def airflow(airflow_env: AirflowEnv) -> AirflowEnv:
    airflow_env.wait_dag(DAG)
    return airflow_env


def start(airflow: AirflowEnv, dag_id: str, run_id: str, command: str) -> None:
    """Start a run and wait until its task is deferred."""
    airflow.wait_dag(dag_id)
    airflow.trigger(dag_id, run_id, {"command": command})
    airflow.wait_task(dag_id, run_id, "job", "deferred")


def wait_followed(airflow: AirflowEnv, run_id: str) -> None:
    """Wait until the triggerer follows the job: before that, for a second or two, nothing can stop the job."""
    airflow.wait_log(DAG, run_id, "job", "hello from the driver")


def test_job_is_followed_without_a_worker(airflow: AirflowEnv, ray_head: RayHead, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    start(airflow, DAG, "plain", driver(tmp_path / "trace", gate))

    airflow.wait_log(DAG, "plain", "job", "hello from the driver")
    row = airflow.task(DAG, "plain", "job")
    assert row.state == "deferred", "the task holds a worker slot"
    (job,) = jobs_of(ray_head, "plain")
    page = f"{ray_head.url}/#/jobs/{job['submission_id']}"
    assert airflow.xcom(DAG, "plain", "job", key=JOB_PAGE_XCOM) == page
    gate.touch()
    airflow.wait_task(DAG, "plain", "job", "success")
    assert airflow.xcom(DAG, "plain", "job", key=JOB_PAGE_XCOM) == page

    assert airflow.xcom(DAG, "plain", "job") == job["submission_id"]
    log = airflow.task_log(DAG, "plain", "job")
    assert log.count("bye from the driver") == 1
    assert "::group::What was submitted" in log
    assert log.count("SUCCEEDED after ") == 1


def test_failing_job_fails_each_try_with_its_output(airflow: AirflowEnv, ray_head: RayHead, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    airflow.wait_dag("rj_quiet")
    airflow.trigger("rj_quiet", "failing", {"command": driver(trace, 1, exit_code=7)})

    airflow.wait_task("rj_quiet", "failing", "job", "failed", try_number=2, timeout=180)
    jobs = jobs_of(ray_head, "failing")
    assert [job["status"] for job in jobs] == ["FAILED", "FAILED"]
    assert starts(trace) == 2
    for number, job in enumerate(jobs, start=1):
        log = airflow.task_log("rj_quiet", "failing", "job", number)
        error = log[log.index("Ray job FAILED") :]
        assert "exit code 7" in error
        assert "bye from the driver" in error
        assert job["submission_id"] in error


@pytest.mark.parametrize("state", ["failed", "success"])
def test_job_of_a_deferred_task_marked_by_a_user_is_stopped(
    airflow: AirflowEnv, ray_head: RayHead, tmp_path: Path, state: str
) -> None:
    run_id = f"marked-{state}"
    start(airflow, DAG, run_id, driver(tmp_path / "trace", 300))
    wait_followed(airflow, run_id)

    airflow.set_task_state(DAG, run_id, "job", state)
    took = wait_statuses(ray_head, run_id, ["STOPPED"], 40)
    assert took < KILL_LIMIT, f"{took:.1f} s until the job was STOPPED"


def test_clear_of_a_deferred_task_leaves_only_the_new_job_alive(
    airflow: AirflowEnv, ray_head: RayHead, tmp_path: Path
) -> None:
    trace, gate = tmp_path / "trace", tmp_path / "gate"
    start(airflow, DAG, "cleared", driver(trace, gate))
    wait_followed(airflow, "cleared")

    airflow.clear(DAG, "cleared", "job")
    wait_statuses(ray_head, "cleared", ["STOPPED", "RUNNING"], 120)
    gate.touch()
    airflow.wait_task(DAG, "cleared", "job", "success", try_number=2, timeout=180)
    assert [job["status"] for job in jobs_of(ray_head, "cleared")] == ["STOPPED", "SUCCEEDED"]
    assert (starts(trace), ends(trace)) == (2, 1)


def test_timeouts_stop_the_job(airflow: AirflowEnv, ray_head: RayHead, tmp_path: Path) -> None:
    dags = ("rj_execution_timeout", "rj_job_timeout", "rj_run_timeout")
    for dag_id in dags:  # all at once, because each takes a while
        start(airflow, dag_id, dag_id, driver(tmp_path / dag_id, 300))

    for dag_id in dags:
        row = airflow.wait_task(dag_id, dag_id, "job", {"failed", "skipped"}, timeout=120)
        took = wait_statuses(ray_head, dag_id, ["STOPPED"], 40)
        assert took < KILL_LIMIT, f"{dag_id}: {took:.1f} s until the job was STOPPED"
        if dag_id == "rj_job_timeout":
            assert "exceeded its job_timeout" in airflow.task_log(dag_id, dag_id, "job", row.try_number)


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_lost_triggerer_stops_nothing_and_runs_nothing_twice(
    airflow: AirflowEnv, ray_head: RayHead, tmp_path: Path
) -> None:
    number = 20
    gates = [tmp_path / "ends-without-triggerer", tmp_path / "ends-with-triggerer"]
    traces = [tmp_path / f"trace{index}" for index in range(number)]
    airflow.wait_dag("rj_many")
    airflow.trigger(
        "rj_many", "many", {"commands": [driver(trace, gates[index % 2]) for index, trace in enumerate(traces)]}
    )
    for index in range(number):
        airflow.wait_task("rj_many", "many", "job", "deferred", map_index=index, timeout=300)

    airflow.kill_process("triggerer", signal.SIGKILL)
    gates[0].touch()
    airflow.start_process("triggerer")
    for gate, first in zip(gates, (0, 1), strict=True):
        gate.touch()
        for index in range(first, number, 2):
            airflow.wait_task("rj_many", "many", "job", "success", map_index=index, timeout=400)
    assert [job["status"] for job in jobs_of(ray_head, "many")] == ["SUCCEEDED"] * number
    assert [(starts(trace), ends(trace)) for trace in traces] == [(1, 1)] * number


@pytest.mark.alone
def test_stopped_triggerer_stops_nothing(airflow: AirflowEnv, ray_head: RayHead, tmp_path: Path) -> None:
    trace, gate = tmp_path / "trace", tmp_path / "gate"
    start(airflow, DAG, "redeployed", driver(trace, gate))
    wait_statuses(ray_head, "redeployed", ["RUNNING"], 60)

    output = airflow.home / "triggerer.out"
    before = len(output.read_text())
    airflow.kill_process("triggerer", signal.SIGTERM, grace=60)
    # Airflow 3 gives its triggers 10 s to end, and logs a message if they don't.
    assert "did not terminate in time" not in output.read_text()[before:]
    airflow.start_process("triggerer")
    gate.touch()
    airflow.wait_task(DAG, "redeployed", "job", "success", timeout=180)
    assert [job["status"] for job in jobs_of(ray_head, "redeployed")] == ["SUCCEEDED"]
    assert (starts(trace), ends(trace)) == (1, 1)


@pytest.mark.xdist_group("ray_proxied")
def test_task_waits_for_an_unreachable_cluster(
    airflow: AirflowEnv, ray_head: RayHead, faulty_proxy: FaultyProxy, tmp_path: Path
) -> None:
    trace, gate = tmp_path / "trace", tmp_path / "gate"
    airflow.add_connection("ray_proxied", **ray_head.connection(faulty_proxy.url))
    start(airflow, "rj_proxied", "outage", driver(trace, gate))
    wait_statuses(ray_head, "outage", ["RUNNING"], 60)

    faulty_proxy.down()
    airflow.wait_log("rj_proxied", "outage", "job", "No contact with the cluster")
    gate.touch()
    wait_statuses(ray_head, "outage", ["SUCCEEDED"], 60)
    time.sleep(10)  # time for more failed requests
    assert airflow.task("rj_proxied", "outage", "job").state == "deferred"
    faulty_proxy.up()
    airflow.wait_task("rj_proxied", "outage", "job", "success")
    assert "Contact with the cluster is back" in airflow.task_log("rj_proxied", "outage", "job")
    assert airflow.task_log("rj_proxied", "outage", "job").count("bye from the driver") == 1


@pytest.mark.xdist_group("ray_proxied")
def test_retry_after_too_long_an_outage_follows_the_same_job(
    airflow: AirflowEnv, ray_head: RayHead, faulty_proxy: FaultyProxy, tmp_path: Path
) -> None:
    trace, gate = tmp_path / "trace", tmp_path / "gate"
    extra = {"unreachable_timeout": 8, "connect_timeout": 2}
    airflow.add_connection("ray_proxied", **ray_head.connection(faulty_proxy.url, extra=extra))
    start(airflow, "rj_proxied", "lost", driver(trace, gate))
    wait_statuses(ray_head, "lost", ["RUNNING"], 60)

    faulty_proxy.down()
    airflow.wait_log("rj_proxied", "lost", "job", "the cluster was unreachable for")
    faulty_proxy.up()
    airflow.wait_log("rj_proxied", "lost", "job", "Reattached", try_number=2)
    gate.touch()
    airflow.wait_task("rj_proxied", "lost", "job", "success", try_number=2, timeout=180)
    assert [job["status"] for job in jobs_of(ray_head, "lost")] == ["SUCCEEDED"]
    assert (starts(trace), ends(trace)) == (1, 1)

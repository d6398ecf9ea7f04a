"""Synchronous tasks on a real scheduler: outcome, kill, lost workers, retries and clears."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.airflow.drivers import driver, ends, jobs_of, starts, wait_statuses

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.airflow_env import AirflowEnv
    from tests.support.ray_head import RayHead

DAG = "rj_sync"


@pytest.fixture
def airflow(airflow_env: AirflowEnv) -> AirflowEnv:
    airflow_env.wait_dag(DAG)
    return airflow_env


def test_job_runs_and_its_lines_are_in_the_task_log(airflow: AirflowEnv, ray_head: RayHead, tmp_path: Path) -> None:
    trace, gate = tmp_path / "trace", tmp_path / "gate"
    airflow.trigger(DAG, "worker-plain", {"command": driver(trace, gate)})

    airflow.wait_log(DAG, "worker-plain", "job", "hello from the driver")
    gate.touch()
    airflow.wait_task(DAG, "worker-plain", "job", "success")

    (job,) = jobs_of(ray_head, "worker-plain")
    assert job["status"] == "SUCCEEDED"
    assert ends(trace) == 1
    assert airflow.xcom(DAG, "worker-plain", "job") == job["submission_id"]
    log = airflow.task_log(DAG, "worker-plain", "job")
    assert log.count("bye from the driver") == 1
    assert job["submission_id"] in log
    expected = {"dag_id": DAG, "run_id": "worker-plain", "task_id": "job", "map_index": "-1", "try_number": "1"}
    assert {f"airflow_{name}": value for name, value in expected.items()}.items() <= job["metadata"].items()


def test_local_code_runs_on_the_cluster_and_missing_code_is_reported(
    airflow: AirflowEnv, ray_head: RayHead, tmp_path: Path
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/main.py").write_text("print('local', 6 * 7)")
    airflow.wait_dag("rj_local")
    airflow.trigger("rj_local", "local", {"command": "python main.py", "working_dir": str(tmp_path / "code")})
    airflow.trigger("rj_local", "missing", {"command": "python main.py", "working_dir": str(tmp_path / "none")})
    airflow.trigger("rj_local", "relative", {"command": "python main.py", "working_dir": "beside"})

    airflow.wait_task("rj_local", "local", "job", "success")
    log = airflow.task_log("rj_local", "local", "job")
    assert "local 42" in log
    assert f"Uploading {tmp_path}/code: 1 files" in log
    airflow.wait_task("rj_local", "relative", "job", "success")
    log = airflow.task_log("rj_local", "relative", "job")
    assert "beside 42" in log
    assert f"Uploading {airflow.dags_folder}/beside: 1 files" in log
    airflow.wait_task("rj_local", "missing", "job", "failed")
    assert "Nothing was submitted: runtime_env['working_dir']" in airflow.task_log("rj_local", "missing", "job")
    assert not jobs_of(ray_head, "missing")


def test_failing_job_fails_each_try_with_its_traceback(airflow: AirflowEnv, ray_head: RayHead) -> None:
    command = """python -c 'raise ValueError("no such " + "shard")'"""
    airflow.trigger(DAG, "worker-failing", {"command": command})

    airflow.wait_task(DAG, "worker-failing", "job", "failed", try_number=2)
    assert [job["status"] for job in jobs_of(ray_head, "worker-failing")] == ["FAILED", "FAILED"]
    for number, job in enumerate(jobs_of(ray_head, "worker-failing"), start=1):
        log = airflow.task_log(DAG, "worker-failing", "job", number)
        error = log[log.index("Ray job FAILED") :]
        assert "exit code 1" in error
        assert "Last line of the job's log: ValueError: no such shard" in error
        assert log.count('File "<string>", line 1, in <module>') == 1, "the traceback is shown once"
        assert job["submission_id"] in log


@pytest.mark.parametrize("state", ["failed", "success"])
def test_job_of_a_task_marked_by_a_user_is_stopped(
    airflow: AirflowEnv, ray_head: RayHead, tmp_path: Path, state: str
) -> None:
    run_id = f"worker-marked-{state}"
    airflow.trigger(DAG, run_id, {"command": driver(tmp_path / "trace", 300)})
    wait_statuses(ray_head, run_id, ["RUNNING"], 60)

    airflow.set_task_state(DAG, run_id, "job", state)
    # Airflow 2 notices the mark only at its next heartbeat, after 5 s or more, and gives a task that is marked as a
    # success another 20 s ([core] task_success_overtime).
    limit = 10 if airflow.version >= (3, 0) else 20 if state == "failed" else 45
    took = wait_statuses(ray_head, run_id, ["STOPPED"], 60)
    assert took < limit, f"{took:.1f} s until the job was STOPPED"


@pytest.mark.parametrize("supervisor", [False, True], ids=["runner", "worker"])
def test_lost_worker_leaves_one_job_that_the_next_try_follows(
    airflow: AirflowEnv, ray_head: RayHead, tmp_path: Path, supervisor: bool
) -> None:
    run_id, trace, gate = f"lost-{supervisor}", tmp_path / "trace", tmp_path / "gate"
    airflow.trigger(DAG, run_id, {"command": driver(trace, gate)})
    wait_statuses(ray_head, run_id, ["RUNNING"], 60)
    airflow.kill_task(DAG, run_id, "job", supervisor=supervisor)

    airflow.wait_log(DAG, run_id, "job", "Reattached", try_number=2, timeout=180)
    gate.touch()
    airflow.wait_task(DAG, run_id, "job", "success", try_number=2)
    assert [job["status"] for job in jobs_of(ray_head, run_id)] == ["SUCCEEDED"]
    assert (starts(trace), ends(trace)) == (1, 1)


def test_process_that_is_asked_to_end_leaves_its_job_to_the_next_try(
    airflow: AirflowEnv, ray_head: RayHead, tmp_path: Path
) -> None:
    trace, gate = tmp_path / "trace", tmp_path / "gate"
    airflow.trigger(DAG, "asked", {"command": driver(trace, gate)})
    wait_statuses(ray_head, "asked", ["RUNNING"], 60)
    airflow.kill_task(DAG, "asked", "job", signal.SIGTERM)

    airflow.wait_log(DAG, "asked", "job", "Reattached", try_number=2, timeout=180)
    assert "This process was asked to end" in airflow.task_log(DAG, "asked", "job")
    gate.touch()
    airflow.wait_task(DAG, "asked", "job", "success", try_number=2)
    assert [job["status"] for job in jobs_of(ray_head, "asked")] == ["SUCCEEDED"]
    assert (starts(trace), ends(trace)) == (1, 1)


def test_worker_lost_after_the_end_runs_nothing_twice(airflow: AirflowEnv, ray_head: RayHead, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    airflow.trigger(DAG, "late", {"command": driver(trace, 1)})
    wait_statuses(ray_head, "late", ["SUCCEEDED"], 60)
    # The log's last lines take Ray some 3 s longer, so the task still runs.
    airflow.kill_task(DAG, "late", "job")

    airflow.wait_task(DAG, "late", "job", "success", try_number=2, timeout=180)
    assert [job["status"] for job in jobs_of(ray_head, "late")] == ["SUCCEEDED"]
    assert (starts(trace), ends(trace)) == (1, 1)


def test_clear_runs_a_new_job(airflow: AirflowEnv, ray_head: RayHead, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    airflow.trigger(DAG, "worker-cleared", {"command": driver(trace, 1)})
    airflow.wait_task(DAG, "worker-cleared", "job", "success")
    airflow.wait_run(DAG, "worker-cleared", "success")  # or the scheduler may end the run after the clear

    airflow.clear(DAG, "worker-cleared", "job")
    airflow.wait_task(DAG, "worker-cleared", "job", "success", try_number=2)
    assert [job["status"] for job in jobs_of(ray_head, "worker-cleared")] == ["SUCCEEDED", "SUCCEEDED"]
    assert ends(trace) == 2


def test_clear_of_a_running_task_leaves_one_job_alive(airflow: AirflowEnv, ray_head: RayHead, tmp_path: Path) -> None:
    trace, gate = tmp_path / "trace", tmp_path / "gate"
    airflow.trigger(DAG, "worker-cleared-running", {"command": driver(trace, gate)})
    wait_statuses(ray_head, "worker-cleared-running", ["RUNNING"], 60)

    airflow.clear(DAG, "worker-cleared-running", "job")
    wait_statuses(ray_head, "worker-cleared-running", ["STOPPED", "RUNNING"], 120)
    gate.touch()
    airflow.wait_task(DAG, "worker-cleared-running", "job", "success", try_number=2, timeout=180)
    assert [job["status"] for job in jobs_of(ray_head, "worker-cleared-running")] == ["STOPPED", "SUCCEEDED"]
    assert ends(trace) == 1

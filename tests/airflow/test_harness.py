"""Tests of the Airflow that other tests use."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from tests.support.airflow_env import AirflowEnv


def test_run_to_success(airflow_env: AirflowEnv) -> None:
    airflow_env.wait_dag("smoke_quick")
    airflow_env.add_connection("smoke", "http", host="old.example")
    airflow_env.add_connection("smoke", "http", host="new.example", port=81, extra={"a": 1})
    airflow_env.trigger("smoke_quick", "plain", conf={"value": "good day"})

    row = airflow_env.wait_task("smoke_quick", "plain", "quick", "success")
    assert (row.try_number, row.max_tries) == (1, 0)
    assert airflow_env.wait_run("smoke_quick", "plain", {"success", "failed"}) == "success"
    assert airflow_env.xcom("smoke_quick", "plain", "quick") == {"value": "good day"}
    assert airflow_env.xcom("smoke_quick", "plain", "quick", "no such key") is None
    assert airflow_env.rendered_fields("smoke_quick", "plain", "quick") == {
        "value": "good day",
        "host": "new.example",
    }
    assert "quick says good day" in airflow_env.task_log("smoke_quick", "plain", "quick")


def test_mapped_tasks_are_distinguished(airflow_env: AirflowEnv) -> None:
    airflow_env.wait_dag("smoke_mapped")
    airflow_env.trigger("smoke_mapped", "run")

    airflow_env.wait_task("smoke_mapped", "run", "mapped", "success", map_index=0)
    airflow_env.wait_task("smoke_mapped", "run", "mapped", "failed", map_index=1)
    assert airflow_env.xcom("smoke_mapped", "run", "mapped", map_index=0) == {"value": "a"}
    assert "quick says a" in airflow_env.task_log("smoke_mapped", "run", "mapped", map_index=0)
    assert "ValueError: no value" in airflow_env.task_log("smoke_mapped", "run", "mapped", map_index=1)
    with pytest.raises(AssertionError, match=r"expected \['success'\], found .*'failed'(.|\n)*no value"):
        airflow_env.wait_task("smoke_mapped", "run", "mapped", "success", map_index=1)


@pytest.mark.parametrize("supervisor", [False, True], ids=["runner", "worker"])
def test_killed_task_is_tried_again(airflow_env: AirflowEnv, supervisor: bool) -> None:
    run_id = f"kill-{supervisor}"
    airflow_env.wait_dag("smoke_sleep")
    airflow_env.trigger("smoke_sleep", run_id)
    airflow_env.wait_task("smoke_sleep", run_id, "sleep", "running")
    airflow_env.wait_log("smoke_sleep", run_id, "sleep", "sleep is at try 1")

    airflow_env.kill_task("smoke_sleep", run_id, "sleep", supervisor=supervisor)
    airflow_env.wait_task("smoke_sleep", run_id, "sleep", "success", try_number=2)
    assert airflow_env.xcom("smoke_sleep", run_id, "sleep") == 2
    assert "sleep is at try 2" in airflow_env.task_log("smoke_sleep", run_id, "sleep", 2)


def test_scheduler_dies_with_its_tasks(airflow_env: AirflowEnv) -> None:
    airflow_env.wait_dag("smoke_sleep")
    airflow_env.trigger("smoke_sleep", "scheduler")
    airflow_env.wait_task("smoke_sleep", "scheduler", "sleep", "running")
    airflow_env.wait_log("smoke_sleep", "scheduler", "sleep", "sleep is at try 1")

    airflow_env.kill_process("scheduler")
    with pytest.raises(ProcessLookupError):
        airflow_env.kill_task("smoke_sleep", "scheduler", "sleep")
    airflow_env.start_process("scheduler")
    airflow_env.wait_task("smoke_sleep", "scheduler", "sleep", "success", try_number=2)


@pytest.mark.parametrize("state", ["failed", "success"])
def test_running_task_is_marked(airflow_env: AirflowEnv, state: Literal["failed", "success"]) -> None:
    run_id = f"mark-{state}"
    airflow_env.wait_dag("smoke_sleep")
    airflow_env.trigger("smoke_sleep", run_id)
    airflow_env.wait_task("smoke_sleep", run_id, "sleep", "running")
    airflow_env.wait_log("smoke_sleep", run_id, "sleep", "sleep is at try 1")

    airflow_env.set_task_state("smoke_sleep", run_id, "sleep", state)
    airflow_env.wait_run("smoke_sleep", run_id, state)
    assert airflow_env.wait_task("smoke_sleep", run_id, "sleep", state).try_number == 1


def test_deferred_task_is_marked_failed(airflow_env: AirflowEnv) -> None:
    defer(airflow_env, "failed", seconds=600)

    airflow_env.set_task_state("smoke_defer", "failed", "defer", "failed")
    airflow_env.wait_run("smoke_defer", "failed", "failed")
    row = airflow_env.task("smoke_defer", "failed", "defer")
    assert (row.state, row.try_number) == ("failed", 1)


def test_deferred_task_is_cleared(airflow_env: AirflowEnv) -> None:
    old = defer(airflow_env, "cleared", seconds=600)

    airflow_env.clear("smoke_defer", "cleared", "defer")
    row = airflow_env.wait_task("smoke_defer", "cleared", "defer", "deferred", try_number=2)
    assert row.trigger_id != old
    airflow_env.set_run_state("smoke_defer", "cleared", "failed")
    airflow_env.wait_run("smoke_defer", "cleared", "failed")


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM], ids=["crash", "shutdown"])
def test_deferred_task_outlives_the_triggerer(airflow_env: AirflowEnv, sig: signal.Signals) -> None:
    run_id = f"triggerer-{sig.name}"
    defer(airflow_env, run_id, seconds=15)
    airflow_env.wait_log("smoke_defer", run_id, "defer", "trigger starting")

    airflow_env.kill_process("triggerer", sig)
    assert airflow_env.task("smoke_defer", run_id, "defer").state == "deferred"
    airflow_env.start_process("triggerer")
    row = airflow_env.wait_task("smoke_defer", run_id, "defer", "success")
    assert row.try_number == 1
    assert airflow_env.xcom("smoke_defer", run_id, "defer") == "resumed"
    log = airflow_env.task_log("smoke_defer", run_id, "defer")
    assert log.count("trigger starting") == 2
    assert log.rindex("trigger starting") < log.index("defer resumes")


def defer(airflow_env: AirflowEnv, run_id: str, seconds: float) -> int:
    """Start a run, wait until its task is deferred and return the trigger's id."""
    airflow_env.wait_dag("smoke_defer")
    airflow_env.trigger("smoke_defer", run_id, conf={"seconds": seconds})
    row = airflow_env.wait_task("smoke_defer", run_id, "defer", "deferred")
    assert row.trigger_id is not None
    assert row.next_method == "resume"
    return row.trigger_id

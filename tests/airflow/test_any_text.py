"""Whatever a job prints, reports or returns: its own task ends as the job did, and all other tasks go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.airflow_env import AirflowEnv
    from tests.support.ray_head import RayHead

DAG = "rj_any_text"
BOTH = ("sync", "deferred")


@pytest.fixture(scope="module")
def airflow(airflow_env: AirflowEnv, ray_head: RayHead) -> AirflowEnv:
    airflow_env.add_connection("ray_default", **ray_head.connection())
    return airflow_env


@pytest.mark.timeout(600)
def test_no_text_of_a_job_ends_the_triggerer_or_another_task(airflow: AirflowEnv, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    for dag_id, conf in (("rj_innocent", {"gate": str(gate)}), (DAG, {})):
        airflow.wait_dag(dag_id)
        airflow.trigger(dag_id, "any", conf)
    airflow.wait_task("rj_innocent", "any", "job", "deferred")
    triggerer = airflow.components["triggerer"].members()

    for how in BOTH:
        airflow.wait_task(DAG, "any", f"fails_{how}", "failed", timeout=240)
        log = airflow.task_log(DAG, "any", f"fails_{how}")
        error = log[log.index("ended FAILED") :]
        assert "exit code 3" in error
        assert r"reason: \x00 binary" in error

        airflow.wait_task(DAG, "any", f"tells_{how}", "success", timeout=240)
        value = airflow.xcom(DAG, "any", f"tells_{how}")
        assert value == {"name": r"file-\udcff", r"nul\x00": [r"\x00", {"half": r"\ud83d"}]}
        assert airflow.xcom(DAG, "any", f"tells_{how}", key="progress")["message"] == r"\x00 file-\udcff"
        assert "holds NUL characters" in airflow.task_log(DAG, "any", f"tells_{how}")

        airflow.wait_task(DAG, "any", f"outputs_{how}", "success", timeout=240)
        assert airflow.xcom(DAG, "any", f"outputs_{how}", key=r"key\x00") == r"value\x00"

        airflow.wait_task(DAG, "any", f"raises_{how}", "failed", timeout=240)
        assert r"ValueError: \x00 \udcff" in airflow.task_log(DAG, "any", f"raises_{how}")

        airflow.wait_task(DAG, "any", f"counts_{how}", "success", timeout=240)
        last = airflow.xcom(DAG, "any", f"counts_{how}", key="progress")
        assert last == {"done": "1e+40", "total": "1e+40", "message": "whole"}
        log = airflow.task_log(DAG, "any", f"counts_{how}")
        assert "Progress: 1e+40/1e+41 (10 %), by hand" in log
        assert "Progress: 1e+40/1e+40 (100 %), whole" in log

    airflow.wait_task(DAG, "any", "fails_quietly", "failed", timeout=240)
    log = airflow.task_log(DAG, "any", "fails_quietly")
    error = log[log.index("ended FAILED") :]
    assert "exit code 3" in error
    assert r"reason: \x00 binary" in error

    airflow.wait_task(DAG, "any", "bad_field", "failed")
    log = airflow.task_log(DAG, "any", "bad_field")
    assert "Template field 'entrypoint' of task 'bad_field' holds a NUL character" in log

    gate.touch()
    airflow.wait_task("rj_innocent", "any", "job", "success")
    assert airflow.components["triggerer"].members() == triggerer

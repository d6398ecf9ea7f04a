"""Any text that a job prints, reports or returns: its task ends with the job's outcome, other tasks continue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.airflow_env import AirflowEnv

DAG = "rj_any_text"
BOTH = ("sync", "deferred")


@pytest.mark.timeout(600)
def test_no_text_of_a_job_ends_the_triggerer_or_another_task(airflow_env: AirflowEnv, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    for dag_id, conf in (("rj_innocent", {"gate": str(gate)}), (DAG, {})):
        airflow_env.wait_dag(dag_id)
        airflow_env.trigger(dag_id, "any", conf)
    airflow_env.wait_task("rj_innocent", "any", "job", "deferred")
    triggerer = airflow_env.components["triggerer"].members()

    for how in BOTH:
        airflow_env.wait_task(DAG, "any", f"fails_{how}", "failed", timeout=240)
        log = airflow_env.task_log(DAG, "any", f"fails_{how}")
        error = log[log.index("Ray job FAILED") :]
        assert "exit code 3" in error
        assert r"reason: \x00 binary" in error

        airflow_env.wait_task(DAG, "any", f"tells_{how}", "success", timeout=240)
        value = airflow_env.xcom(DAG, "any", f"tells_{how}")
        assert value == {"name": r"file-\udcff", r"nul\x00": [r"\x00", {"half": r"\ud83d"}]}
        assert airflow_env.xcom(DAG, "any", f"tells_{how}", key="progress")["message"] == r"\x00 file-\udcff"
        assert "holds NUL characters" in airflow_env.task_log(DAG, "any", f"tells_{how}")

        airflow_env.wait_task(DAG, "any", f"outputs_{how}", "success", timeout=240)
        assert airflow_env.xcom(DAG, "any", f"outputs_{how}", key=r"key\x00") == r"value\x00"

        airflow_env.wait_task(DAG, "any", f"raises_{how}", "failed", timeout=240)
        assert r"ValueError: \x00 \udcff" in airflow_env.task_log(DAG, "any", f"raises_{how}")

        airflow_env.wait_task(DAG, "any", f"counts_{how}", "success", timeout=240)
        last = airflow_env.xcom(DAG, "any", f"counts_{how}", key="progress")
        assert last == {"done": "1e+40", "total": "1e+40", "message": "whole"}
        log = airflow_env.task_log(DAG, "any", f"counts_{how}")
        assert "Progress: 1e+40/1e+41 (10 %), by hand" in log
        assert "Progress: 1e+40/1e+40 (100 %), whole" in log

    airflow_env.wait_task(DAG, "any", "fails_quietly", "failed", timeout=240)
    log = airflow_env.task_log(DAG, "any", "fails_quietly")
    error = log[log.index("Ray job FAILED") :]
    assert "exit code 3" in error
    assert r"reason: \x00 binary" in error

    airflow_env.wait_task(DAG, "any", "bad_field", "failed")
    log = airflow_env.task_log(DAG, "any", "bad_field")
    assert "Template field 'entrypoint' of task 'bad_field' must not contain NUL" in log

    gate.touch()
    airflow_env.wait_task("rj_innocent", "any", "job", "success")
    assert airflow_env.components["triggerer"].members() == triggerer

"""The example of ``read_result`` in ``airflow dags test``: results reach other tasks and an asset's event."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.compat.versions import AIRFLOW_V_3_0_PLUS
from tests.airflow.command_airflow import CommandAirflow

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.databases import Database
    from tests.support.ray_head import RayHead

pytestmark = pytest.mark.xdist_group("result_example")

DAG = "ray_job_result"
FILE = Path(__file__).parents[2] / "example_dags" / f"{DAG}.py"


@pytest.mark.timeout(900)
def test_results_reach_other_tasks_and_an_assets_event(
    tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[Path], Database], ray_head: RayHead
) -> None:
    home = tmp_path_factory.mktemp("example")
    airflow = CommandAirflow(home, new_database(home), FILE, ray_head)
    airflow.run("dags", "reserialize")  # Airflow 2 knows an asset from then on only
    output = airflow.run("dags", "test", DAG, AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE="True")

    (finished,) = [line for line in output.splitlines() if "DagRun Finished" in line]
    assert "state=success" in finished, output[-8000:]
    (run,) = airflow.query("SELECT run_id AS id FROM dag_run ORDER BY id DESC LIMIT 1")
    sweep = [airflow.xcom(DAG, run["id"], "sweep", map_index=index) for index in range(3)]
    assert [result["rate"] for result in sweep] == [0.001, 0.01, 0.1]
    trained = airflow.xcom(DAG, run["id"], "train")
    assert trained == min(sweep, key=lambda result: result["loss"])
    table = "asset_event" if AIRFLOW_V_3_0_PLUS else "dataset_event"
    (event,) = airflow.query(f"SELECT extra, source_task_id AS task FROM {table}")
    extra = event["extra"]
    assert (json.loads(extra) if isinstance(extra, str) else extra) == {"loss": trained["loss"]}
    assert event["task"] == "train"

"""An Airflow on SQLite, the default of a new installation, runs jobs. All other tests use PostgreSQL."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.airflow.drivers import driver, ends, jobs_of
from tests.support.airflow_env import AirflowEnv
from tests.support.databases import SqliteDatabase, wants_sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.ray_head import RayHead

DAG_FILE = Path(__file__).parents[1] / "airflow" / "dags" / "rayjobs.py"

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(wants_sqlite(), reason="all Airflows of this run are on SQLite"),
]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead) -> Iterator[AirflowEnv]:
    home = tmp_path_factory.mktemp("airflow-sqlite")
    (home / "dags").mkdir()
    shutil.copy(DAG_FILE, home / "dags")
    env = AirflowEnv(home, home / "dags", SqliteDatabase(home / "airflow.db"))
    env.start()
    env.add_connection("ray_default", **ray_head.connection())
    yield env
    env.stop()


@pytest.mark.parametrize("dag_id", ["rj_sync", "rj_deferred"])
def test_job_runs(airflow: AirflowEnv, ray_head: RayHead, tmp_path: Path, dag_id: str) -> None:
    airflow.wait_dag(dag_id)
    run_id = f"sqlite-{dag_id}"
    airflow.trigger(dag_id, run_id, {"command": driver(tmp_path / "trace", 2)})
    row = airflow.wait_task(dag_id, run_id, "job", "success")

    (job,) = jobs_of(ray_head, run_id)
    assert (row.try_number, job["status"], ends(tmp_path / "trace")) == (1, "SUCCEEDED", 1)
    assert airflow.xcom(dag_id, run_id, "job") == job["submission_id"]
    assert airflow.task_log(dag_id, run_id, "job").count("bye from the driver") == 1

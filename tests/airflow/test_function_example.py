"""The example of ``@task.ray_job``, by ``airflow dags test``: values go from Airflow through Ray and back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import airflow_processes
from tests.support.airflow_records import AirflowRecords
from tests.support.ports import free_port

if TYPE_CHECKING:
    from tests.support.ray_head import RayHead

REPO = Path(__file__).parents[2]
DAG = "ray_job_function"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead) -> dict[str, str]:
    """The environment of an Airflow that has the example, and a database."""
    home = tmp_path_factory.mktemp("example")
    (home / "dags").mkdir()
    shutil.copy(REPO / "example_dags" / f"{DAG}.py", home / "dags")
    airflow_processes.write_home(home)
    made = {
        **airflow_processes.clean_environment(),
        **airflow_processes.settings(home, home / "dags", free_port(), parallelism=2),
        "AIRFLOW_CONN_RAY_DEFAULT": json.dumps(ray_head.connection()),
    }
    done = airflow(made, "db", "migrate")
    assert done.returncode == 0, done.stdout[-4000:]
    return made


def airflow(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "airflow", *arguments]
    return subprocess.run(
        command, cwd=REPO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


@pytest.mark.timeout(900)
@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
def test_values_go_through_ray_and_back(environment: dict[str, str], ray_head: RayHead, deferrable: bool) -> None:
    before = {job["submission_id"] for job in ray_head.jobs()}
    options = {**environment, "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": str(deferrable)}
    output = airflow(options, "dags", "test", DAG).stdout

    (finished,) = [line for line in output.splitlines() if "DagRun Finished" in line]
    assert "state=success" in finished, output[-8000:]
    records = AirflowRecords(Path(environment["AIRFLOW_HOME"]))
    (run,) = records.query("SELECT run_id AS id FROM dag_run ORDER BY id DESC LIMIT 1")
    # Of all primes below 200,000, as any table has it.
    assert records.xcom(DAG, run["id"], "combine") == 17984
    found = [records.xcom(DAG, run["id"], "count_primes", map_index=index) for index in range(2)]
    assert found == [{"shard": [0, 100000], "primes": 9592}, {"shard": [100000, 200000], "primes": 8392}]
    reported = records.xcom(DAG, run["id"], "count_primes", key="progress", map_index=0)
    assert reported == {"done": 8, "total": 8, "message": "9592 primes"}
    jobs = [job for job in ray_head.jobs() if job["submission_id"] not in before]
    assert {job["status"] for job in jobs} == {"SUCCEEDED"}
    assert sorted(job["metadata"]["airflow_map_index"] for job in jobs) == ["0", "1"]

"""The example of ``@task.ray_job`` in ``airflow dags test``: values are passed from Airflow to Ray and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow.command_airflow import CommandAirflow

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.databases import Database
    from tests.support.ray_head import RayHead

pytestmark = pytest.mark.xdist_group("function_example")  # they share an Airflow

REPO = Path(__file__).parents[2]
DAG = "ray_job_function"


@pytest.fixture(scope="module")
def airflow(
    tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[Path], Database], ray_head: RayHead
) -> CommandAirflow:
    home = tmp_path_factory.mktemp("example")
    return CommandAirflow(home, new_database(home), REPO / "example_dags" / f"{DAG}.py", ray_head)


def jobs_of_the_example(head: RayHead) -> list[dict[str, Any]]:
    return [job for job in head.jobs() if (job["metadata"] or {}).get("airflow_dag_id") == DAG]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
def test_values_go_through_ray_and_back(airflow: CommandAirflow, ray_head: RayHead, deferrable: bool) -> None:
    before = {job["submission_id"] for job in jobs_of_the_example(ray_head)}
    output = airflow.run("dags", "test", DAG, AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE=str(deferrable))

    (finished,) = [line for line in output.splitlines() if "DagRun Finished" in line]
    assert "state=success" in finished, output[-8000:]
    (run,) = airflow.query("SELECT run_id AS id FROM dag_run ORDER BY id DESC LIMIT 1")
    # The known number of primes below 200,000.
    assert airflow.xcom(DAG, run["id"], "combine") == 17984
    found = [airflow.xcom(DAG, run["id"], "count_primes", map_index=index) for index in range(2)]
    assert found == [{"shard": [0, 100000], "primes": 9592}, {"shard": [100000, 200000], "primes": 8392}]
    reported = airflow.xcom(DAG, run["id"], "count_primes", key="progress", map_index=0)
    assert reported == {"done": 8, "total": 8, "message": "9592 primes"}
    jobs = [job for job in jobs_of_the_example(ray_head) if job["submission_id"] not in before]
    assert {job["status"] for job in jobs} == {"SUCCEEDED"}
    assert sorted(job["metadata"]["airflow_map_index"] for job in jobs) == ["0", "1"]

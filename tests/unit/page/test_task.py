"""The job of a task instance, from what its operator stored in Airflow's database."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest

if tuple(map(int, version("apache-airflow").split(".")[:2])) < (3, 1):
    pytest.skip("Airflow's UI takes no views before 3.1", allow_module_level=True)

from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
from airflow_provider_rayjobs.page.task import TaskJob, job_of_task
from tests.support import airflow_app
from tests.support.airflow_app import add_task

PAGE = "https://ray.example/prefix/#/jobs/job-1"


@pytest.fixture(scope="module", autouse=True)
def _database() -> None:
    airflow_app.database()


def job(dag_id: str, map_index: int = -1) -> TaskJob | None:
    return job_of_task(dag_id, "manual__1", "fit", map_index)


def test_the_latest_try_s_job_and_its_connection_are_found() -> None:
    add_task("plain", page=PAGE, fields={"ray_conn_id": "ray_one"})
    assert job("plain") == TaskJob("job-1", PAGE, "ray_one")


def test_a_mapped_task_has_its_own_job() -> None:
    add_task("mapped", map_index=2, page=PAGE)
    assert job("mapped", 2) == TaskJob("job-1", PAGE, "")
    assert job("mapped", 1) is None
    assert job("mapped") is None


def test_an_id_is_unquoted() -> None:
    add_task("quoted", page="http://ray:8265/#/jobs/a%20b%2Fc")
    found = job("quoted")
    assert found is not None
    assert found.submission_id == "a b/c"


@pytest.mark.parametrize(
    ("number", "page"),
    list(enumerate([None, "", 5, ["x"], {"a": 1}, "http://ray:8265", "http://ray:8265/#/jobs/", "/#/jobs/x", "?"])),
)
def test_a_task_without_a_job_has_none(number: int, page: Any) -> None:
    add_task(f"none_{number}", page=page, fields={"ray_conn_id": 7})
    assert job(f"none_{number}") is None


def test_a_task_that_does_not_exist_has_none() -> None:
    assert job("nowhere") is None


REF = ClusterRef("kube", "ray", "etl", "uid-1", history_url="https://h/{submission_id}", owned=True)
HISTORY = "https://history.example/job-1"


def test_the_job_is_found_when_its_link_leads_to_the_history_server() -> None:
    xcoms = {"ray_job_history": HISTORY, "submission_id": "job-1", "ray_cluster": REF.to_json()}
    add_task("moved", page=HISTORY, xcoms=xcoms)
    assert job("moved") == TaskJob("job-1", HISTORY, "", HISTORY, REF)


def test_while_its_cluster_comes_up_the_task_has_no_page() -> None:
    add_task("starts", xcoms={"submission_id": "job-1", "ray_cluster": REF.to_json()})
    assert job("starts") == TaskJob("job-1", "", "", "", REF)


def test_the_shared_cluster_of_a_task_is_in_its_arguments() -> None:
    add_task("shared", page=PAGE, fields={"ray_conn_id": "ray_default", "cluster": REF.to_json()})
    assert job("shared") == TaskJob("job-1", PAGE, "ray_default", "", REF)
    add_task("text", page=PAGE, fields={"ray_conn_id": "ray_one", "cluster": "KubeRayCluster(…)"})
    assert job("text") == TaskJob("job-1", PAGE, "ray_one")

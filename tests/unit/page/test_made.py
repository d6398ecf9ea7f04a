"""The clusters that KubeRay makes for tasks: which are shown, and what Kubernetes says of them, in bounded time."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest

if tuple(map(int, version("apache-airflow").split(".")[:2])) < (3, 1):
    pytest.skip("Airflow's UI takes no pages before 3.1", allow_module_level=True)

from airflow_provider_rayjobs.exceptions import RayClusterStartError, RayKubernetesRefusedError
from airflow_provider_rayjobs.kubernetes import api
from airflow_provider_rayjobs.kubernetes.calls import RAYJOBS
from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
from airflow_provider_rayjobs.page import made
from airflow_provider_rayjobs.page.made import Looked, MadeCluster, look_at, made_clusters, reach, shown
from tests.support import airflow_app
from tests.support.airflow_app import add_task
from tests.support.kube_calls import Objects

if TYPE_CHECKING:
    from collections.abc import Callable

REF = ClusterRef("kube", "ray", "etl", "uid-1", owned=True)


@pytest.fixture(scope="module", autouse=True)
def _database() -> None:
    airflow_app.database()


def task_with(dag_id: str, ref: Any, state: str | None = "running", run: str = "running", **more: Any) -> None:
    add_task(dag_id, xcoms={"ray_cluster": ref}, states=(state, run), **more)


def names() -> set[str]:
    return {one.dag_id for one in made_clusters()}


def test_clusters_of_live_runs_are_found_with_their_tasks() -> None:
    task_with("made_live", REF.to_json(), "deferred", map_index=2)
    (found,) = (one for one in made_clusters() if one.dag_id == "made_live")
    assert (found.ref, found.run_id, found.task_id, found.map_index) == (REF, "manual__1", "fit", 2)
    assert found.since > 1_700_000_000_000


def test_clusters_that_are_gone_are_left_out_and_shared_ones_outlive_their_setup() -> None:
    shared = replace(REF, owned=False).to_json()
    task_with("made_ended", REF.to_json(), "success")
    task_with("made_shared", shared, "success")
    task_with("made_over", shared, "success", run="success")
    for number, strange in enumerate([None, "x", {"name": "y"}, [REF.to_json()]]):
        task_with(f"made_strange_{number}", strange)
    assert {name for name in names() if name.startswith("made_")} <= {"made_live", "made_shared"}
    assert "made_shared" in names()


def test_the_newest_are_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    task_with("made_more", REF.to_json())
    monkeypatch.setattr(made, "MAX_CLUSTERS", 1)
    assert names() == {"made_more"}


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch) -> Objects:
    found = Objects()
    monkeypatch.setattr(api, "KubeApi", lambda *_, **__: found)
    monkeypatch.setattr("airflow_provider_rayjobs.kubernetes.connect.KubeApi", lambda *_, **__: found)
    return found


def rayjob(state: str = "", ray_cluster: str = "etl-abcde", job: str = "", **status: Any) -> dict[str, Any]:
    spec = {"jobId": job} if job else {}
    status = {"jobDeploymentStatus": state, "rayClusterName": ray_cluster, **status}
    return {"metadata": {"name": "etl", "namespace": "ray"}, "spec": spec, "status": status}


@pytest.mark.parametrize(
    ("body", "state"),
    [
        (rayjob("Waiting"), "ready"),
        (rayjob("Running", job="j"), "runs its job"),
        (rayjob("Complete", job="j", jobStatus="SUCCEEDED"), "its job has ended (SUCCEEDED)"),
        (rayjob("Initializing", ""), "waits: KubeRay has made no RayCluster yet"),
        (rayjob("Initializing"), "waits: its pods are not made yet"),
        (rayjob("Failed", reason="PreRunningDeadlineExceeded"), "KubeRay has ended it: PreRunningDeadlineExceeded"),
    ],
)
def test_the_state_of_a_cluster(kube: Objects, body: Any, state: str) -> None:
    kube.add(RAYJOBS, body)
    looked = look_at([REF], None)
    assert looked.states["uid-1"].startswith(state)
    assert looked.problem == ""


def test_a_cluster_that_is_gone_has_no_row(kube: Objects) -> None:
    looked = look_at([REF], None)
    assert looked.states == {"uid-1": ""}
    row = MadeCluster(REF, "d", "r", "t", -1, 5)
    assert shown([row], looked, str)["clusters"] == []
    assert shown([row], Looked({}, "away"), str)["problem"] == "away"


def test_what_can_not_be_read_says_so(kube: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    kube.errors["get", RAYJOBS] = 500
    assert look_at([REF], None) == Looked({}, "get rayjobs.ray.io 'etl' in namespace 'ray' failed: 500")

    def refuse(_: object) -> Any:
        raise RayKubernetesRefusedError("no right", status=403)
        yield

    monkeypatch.setattr(made, "_state", refuse)
    assert look_at([REF], None) == Looked({"uid-1": "no right"})
    monkeypatch.setattr(made, "KUBE_TIMEOUT", -1.0)
    assert look_at([REF, REF], None).problem == "1 of 1 clusters were not read within -1 s"


def test_without_the_extra_the_rest_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise RayKubernetesRefusedError(api.MISSING_EXTRA)

    monkeypatch.setattr(api, "KubeApi", missing)
    found = shown([MadeCluster(REF, "d", "r", "t", 3, 5)], look_at([REF], None), str)
    assert "airflow-provider-rayjobs[kubernetes]" in found["problem"]
    assert found["clusters"] == [
        {
            "name": "etl",
            "namespace": "ray",
            "dag_id": "d",
            "run_id": "r",
            "task_id": "t",
            "map_index": 3,
            "shared": False,
            "since": 5,
            "state": "not known",
            "task_url": "../dags/d/runs/r/tasks/t/mapped/3",
        }
    ]


def test_secrets_are_hidden(kube: Objects) -> None:
    kube.add(RAYJOBS, rayjob("Failed", reason="s3cret"))
    hide: Callable[[str], str] = lambda text: text.replace("s3cret", "***")  # noqa: E731
    (row,) = shown([MadeCluster(REF, "d", "r", "t", -1, 5)], look_at([REF], None), hide)["clusters"]
    assert row["state"] == "KubeRay has ended it: ***"


def test_a_head_is_reached_while_it_lives(kube: Objects) -> None:
    with pytest.raises(RayClusterStartError, match="is gone, with its cluster"):
        reach(REF, None)
    kube.add(RAYJOBS, rayjob("Running", job="j"))
    assert reach(REF, None).address == "http://etl-abcde-head-svc.ray.svc:8265"

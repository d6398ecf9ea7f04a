"""An API server that fails: each answer may be lost, late or an error, and there is still one cluster."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.exceptions import RayKubernetesError, RayKubernetesRefusedError
from airflow_provider_rayjobs.kuberay import KubeRayCluster
from airflow_provider_rayjobs.kubernetes import lease as leases
from airflow_provider_rayjobs.kubernetes.api import KubeApi, async_kube_api
from airflow_provider_rayjobs.tasks.identity import TaskIdentity
from airflow_provider_rayjobs.tasks.own_cluster import OwnCluster, read_wish
from tests.kube.bench import cluster_spec
from tests.support import answers
from tests.support.scripted_kube import ScriptedKube, etcd_times_out, refused, too_many

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RAYJOBS = r".*/rayjobs"
RAYJOB = r".*/rayjobs/[^/]+"
IDENTITY = TaskIdentity("here", "etl", "run", "train", -1, 1, 3, "2026-01-01")
LOG = logging.getLogger("faults")


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedKube]:
    with ScriptedKube("t0ken") as kube:
        extra = {"kube_config": json.dumps(kube.kubeconfig)}
        connection = {"conn_type": "kubernetes", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_KUBE_SCRIPTED", json.dumps(connection))
        yield kube


@pytest.fixture(params=["worker", "triggerer"])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Runs a flow with one of the two clients."""

    def with_requests(flow: Any, patience: float = 20.0) -> Any:
        return KubeApi("kube_scripted", LOG, patience=patience).run(flow)

    def with_aiohttp(flow: Any, patience: float = 20.0) -> Any:
        async def running() -> Any:
            async with async_kube_api("kube_scripted", LOG, patience) as api:
                return await api.run(flow)

        return asyncio.run(running())

    return with_requests if request.param == "worker" else with_aiohttp


def own(number: int = 1) -> OwnCluster:
    identity = replace(IDENTITY, try_number=number)
    return OwnCluster(KubeApi("kube_scripted", LOG), read_wish(KubeRayCluster(cluster_spec())), identity, LOG)


@pytest.mark.parametrize(
    "answer",
    [answers.lost(), answers.drop(), etcd_times_out().but(applies=True), etcd_times_out(), refused(503), too_many()],
    ids=["lost", "not received", "etcd, done", "etcd, not done", "503", "429"],
)
def test_one_cluster_is_made_whatever_becomes_of_the_first_answer(scripted: ScriptedKube, answer: Any) -> None:
    scripted.script("POST", RAYJOBS, answer)
    lease = own().settle(reattach=True)
    assert [one["metadata"]["uid"] for one in scripted.all("rayjobs")] == [lease.uid]


@pytest.mark.parametrize("answer", [answers.lost(), answers.drop(), etcd_times_out(), refused(503), too_many()])
@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_every_call_is_repeated(scripted: ScriptedKube, run: Callable[..., Any], answer: Any, method: str) -> None:
    lease = own().settle(reattach=True)
    scripted.script(method, RAYJOB, answer)
    if method == "GET":
        assert run(leases.read("default", lease.name)).uid == lease.uid
    elif method == "PATCH":
        assert run(leases.set_job("default", lease.name, lease.uid, "job", 0)).job_id == "job"
    else:
        run(leases.delete("default", lease.name, lease.uid))
        assert scripted.find("rayjobs", lease.name) is None


@pytest.mark.parametrize("status", [400, 401, 403])
def test_what_stays_wrong_is_not_repeated(scripted: ScriptedKube, run: Callable[..., Any], status: int) -> None:
    scripted.script("GET", RAYJOB, refused(status, "the test says no"), forever=True)
    with pytest.raises(RayKubernetesRefusedError, match=f"{status} the test says no"):
        run(leases.read("default", "x"))
    assert len(scripted.received_on("GET", RAYJOB)) == 1


def test_patience_has_an_end(scripted: ScriptedKube, run: Callable[..., Any]) -> None:
    scripted.script("GET", RAYJOB, refused(503), forever=True)
    with pytest.raises(RayKubernetesError, match="503") as caught:
        run(leases.read("default", "x"), patience=1.5)
    assert caught.value.status == 503


def test_no_contact_names_no_secret(scripted: ScriptedKube, run: Callable[..., Any]) -> None:
    scripted.stop()
    with pytest.raises(RayKubernetesError, match="can't be reached") as caught:
        run(leases.read("default", "x"), patience=0)
    assert caught.value.status is None
    assert "t0ken" not in str(caught.value)

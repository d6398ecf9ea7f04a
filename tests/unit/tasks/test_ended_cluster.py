"""A job whose cluster KubeRay has ended is told at once; one whose head only does not answer is waited for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.exceptions import RayKubernetesError
from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.kubernetes.calls import RAYCLUSTERS, RAYJOBS
from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
from airflow_provider_rayjobs.tasks import ended_cluster
from tests.support.kube_calls import Objects

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

REF = ClusterRef("kube", "ray", "etl", "uid-1", owned=True)
SUCCEEDED = JobEvent("job", "http://head", Outcome.SUCCEEDED)


class Watcher:
    """Follows a job that ends after some seconds."""

    def __init__(self, seconds: float = 0.2, *, cut_off: bool = True) -> None:
        self.is_cut_off = cut_off
        self.seconds = seconds
        self.cancelled = False

    async def run(self) -> JobEvent:
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return SUCCEEDED

    @staticmethod
    def masked(event: JobEvent) -> JobEvent:
        return replace(event, detail=event.detail.replace("sec-1b0e", "***"))


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch) -> Objects:
    found = Objects()
    status = {"jobDeploymentStatus": "Running"}
    found.add(RAYJOBS, {"metadata": {"name": "etl", "namespace": "ray"}, "spec": {}, "status": status})

    @contextlib.asynccontextmanager
    async def opened(*_: Any, **__: Any) -> AsyncIterator[Any]:
        async def run(flow: Any) -> Any:
            return found.run(flow)

        yield SimpleNamespace(run=run)

    monkeypatch.setattr(ended_cluster, "async_kube_api", opened)
    monkeypatch.setattr(ended_cluster, "LOOK_INTERVAL", 0.01)
    return found


def follow(watcher: Watcher, ref: ClusterRef | None = REF) -> JobEvent:
    given: Any = watcher
    return asyncio.run(ended_cluster.follow(given, "job", ref, logging.getLogger()))


@pytest.mark.parametrize("gone", [True, False])
def test_a_cluster_that_has_ended_is_told_at_once(kube: Objects, gone: bool) -> None:
    if gone:
        del kube.of[RAYJOBS, "etl"]
    else:
        ended = {"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded", "message": "the log says sec-1b0e"}
        kube.of[RAYJOBS, "etl"]["status"] = ended
    watcher = Watcher(seconds=60)
    event = follow(watcher)
    assert (event.outcome, event.may_run) == (Outcome.LOST, False)
    assert ("it was deleted" if gone else "DeadlineExceeded: the log says ***") in event.detail
    assert watcher.cancelled


def test_a_cluster_that_kueue_has_evicted_has_lost_its_job(kube: Objects) -> None:
    kube.of[RAYJOBS, "etl"] |= {"spec": {"jobId": "job"}, "status": {"jobDeploymentStatus": "Suspended"}}
    event = follow(Watcher(seconds=60))
    assert (event.outcome, event.may_run) == (Outcome.LOST, False)
    assert "Suspended" in event.detail


@pytest.mark.parametrize("there", [True, False])
def test_after_the_jobs_end_the_head_is_asked_as_long_as_it_may_be_there(kube: Objects, there: bool) -> None:
    body = kube.of[RAYJOBS, "etl"]
    body["spec"]["jobId"] = "job"
    body["status"] = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "rayClusterName": "etl-c"}
    if there:
        kube.add(RAYCLUSTERS, {"metadata": {"name": "etl-c"}})
    assert (follow(Watcher()) is SUCCEEDED) is there


def test_a_head_that_only_does_not_answer_is_waited_for(kube: Objects) -> None:
    assert follow(Watcher()) is SUCCEEDED
    assert kube.calls


def test_kubernetes_is_asked_only_when_contact_is_lost(kube: Objects) -> None:
    assert follow(Watcher(cut_off=False)) is SUCCEEDED
    assert follow(Watcher(), None) is SUCCEEDED
    assert not kube.calls


def test_an_error_of_kubernetes_changes_nothing(kube: Objects) -> None:
    kube.errors["get", RAYJOBS] = 500
    assert follow(Watcher()) is SUCCEEDED


def test_an_error_of_the_watcher_passes(kube: Objects) -> None:
    watcher = Watcher()

    async def run() -> JobEvent:
        raise RayKubernetesError("broken")

    watcher.run = run  # type: ignore[method-assign]
    with pytest.raises(RayKubernetesError, match="broken"):
        follow(watcher)

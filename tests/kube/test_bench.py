"""The bench itself: its API server, and each fact of KubeRay that its controller plays."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.kube.bench import ray_job
from tests.kube.heads import ScriptedHeads
from tests.support.scripted_server import ScriptedRay

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kube.api import Object
    from tests.kube.bench import Access, Kube
    from tests.kube.controller import KubeRay

SHUTS_DOWN = {"shutdownAfterJobFinishes": True}


def status_of(access: Access, name: str) -> Object:
    return dict(access.api.get("rayjobs", access.namespace, name).get("status", {}))


def wait_state(access: Access, name: str, state: str, timeout: float = 60.0) -> Object:
    deadline = time.monotonic() + timeout
    while True:
        status = status_of(access, name)
        if status.get("jobDeploymentStatus") == state:
            return status
        assert time.monotonic() < deadline, f"not {state} after {timeout} s: {status}"
        time.sleep(0.05)


def make(access: Access, name: str, **fields: Any) -> Object:
    return access.api.create("rayjobs", access.namespace, ray_job(name, **fields))


def tell_job(access: Access, name: str, job_id: str) -> None:
    access.api.patch("rayjobs", access.namespace, name, {"spec": {"jobId": job_id}})


@pytest.fixture
def scripted(new_kuberay: Callable[..., KubeRay]) -> KubeRay:
    """A KubeRay whose heads run nothing."""
    return new_kuberay(ScriptedHeads(ScriptedRay))


def test_a_job_on_a_cluster_with_a_real_head(kube: Kube, kuberay: KubeRay, access: Access) -> None:
    made = make(access, "a-job", **SHUTS_DOWN)
    assert "jobId" not in made["spec"]
    waiting = wait_state(access, "a-job", "Waiting", timeout=120)
    cluster = waiting["rayClusterName"]
    assert cluster[:-5] == "a-job-"
    assert waiting["dashboardURL"] == f"{cluster}-head-svc.{access.namespace}.svc.cluster.local:8265"

    through_proxy = f"/api/v1/namespaces/{access.namespace}/services/{cluster}-head-svc:8265/proxy"
    submitted = access.api.request(
        "POST", f"{through_proxy}/api/jobs/", {"entrypoint": "echo hello", "submission_id": "one"}
    )
    assert submitted["submission_id"] == "one"
    tell_job(access, "a-job", "one")

    ended = wait_state(access, "a-job", "Complete")
    assert (ended["jobId"], ended["jobStatus"], ended["succeeded"]) == ("one", "SUCCEEDED", 1)
    kuberay.wait(lambda: not kuberay.left())
    assert kuberay.made == [cluster]
    assert kube.left(access.namespace) == ["rayjobs/a-job"]
    states = [state for _, state, _ in kuberay.states[access.namespace, "a-job"]]
    assert states == ["Initializing", "Waiting", "Running", "Complete"]

"""A cluster for one task, on a real API server and with real heads: made, used, taken over, and never left behind."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.exceptions import RayJobFailedError
from airflow_provider_rayjobs.kuberay import KubeRayCluster
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from tests.kube.bench import cluster_spec
from tests.support.tries import Tries

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kube.bench import Access, Kube
    from tests.kube.controller import KubeRay

#: Makes the tries of one task, see `tries`.
Make = Any


@pytest.fixture(params=[False, True], ids=["worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def tries(kube_conn_id: str) -> Callable[..., Tries]:
    """A function that makes the tries of a task with a cluster of its own."""

    def make(entrypoint: str, cluster: dict[str, Any] | None = None, **arguments: Any) -> Tries:
        options = {"spec": cluster_spec(), "access": "proxy", "keep_seconds": 5, "start_timeout": 90, **(cluster or {})}

        def operator() -> RaySubmitJobOperator:
            own = KubeRayCluster(kubernetes_conn_id=kube_conn_id, **options)
            return RaySubmitJobOperator(
                task_id="task", entrypoint=entrypoint, cluster=own, poll_interval=1.0, **arguments
            )

        return Tries(operator, f"run-{secrets.token_hex(4)}")

    return make


def rayjobs(access: Access) -> list[dict[str, Any]]:
    return access.api.list("rayjobs", access.namespace)


def text(tries: Tries) -> str:
    return "\n".join(tries.lines)


def test_the_cluster_lives_as_long_as_the_job(
    kuberay: KubeRay, access: Access, tries: Callable[..., Tries], deferrable: bool
) -> None:
    task = tries("echo hello from the cluster", deferrable=deferrable, cluster={"labels": {"team": "a"}})
    submission_id = task.run()
    (job,) = rayjobs(access)
    assert job["spec"]["jobId"] == submission_id
    assert job["metadata"]["labels"]["team"] == "a"
    assert "hello from the cluster" in text(task)
    assert text(task).count("Made RayJob") == 1
    kuberay.wait(lambda: not kuberay.left())
    assert len(kuberay.made) == 1


def test_a_job_that_fails_ends_its_cluster_and_the_retry_gets_another(
    kuberay: KubeRay, access: Access, tries: Callable[..., Tries]
) -> None:
    task = tries("exit 3", cluster={"keep_seconds": 0})
    for _ in range(2):
        with pytest.raises(RayJobFailedError, match="exit code 3"):
            task.run()
    kuberay.wait(lambda: not kuberay.left())
    assert len(kuberay.made) == len(rayjobs(access)) == 2

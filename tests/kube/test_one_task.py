"""A cluster for one task, on a real API server and with real heads: made, used, taken over, and never left behind."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_rayjobs.exceptions import RayClusterStartError, RayJobFailedError
from tests.kube.bench import cluster_spec
from tests.kube.clusters import ERR_IMAGE_PULL, INVALID_IMAGE_NAME, PLAY, UNSCHEDULABLE
from tests.kube.controller import VALIDATION_FAILED
from tests.kube.dying_try import tries_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kube.bench import Access, Kube
    from tests.kube.controller import KubeRay
    from tests.support.tries import Tries


@pytest.fixture(params=[False, True], ids=["worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def tries(kube_conn_id: str) -> Callable[..., Tries]:
    """A function that makes the tries of a task with a cluster of its own."""

    def make(entrypoint: str, cluster: dict[str, Any] | None = None, **arguments: Any) -> Tries:
        defaults = {"spec": cluster_spec(), "access": "proxy", "keep_seconds": 5, "start_timeout": 90}
        options = {**defaults, "kubernetes_conn_id": kube_conn_id, **(cluster or {})}
        return tries_of(entrypoint, options, f"run-{secrets.token_hex(4)}", **arguments)

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


def test_an_unschedulable_head_is_named_while_it_waits(
    kuberay: KubeRay, kube: Kube, access: Access, tries: Callable[..., Tries], deferrable: bool
) -> None:
    task = tries("true", deferrable=deferrable, cluster={"annotations": {PLAY: UNSCHEDULABLE}, "start_timeout": 4})
    with pytest.raises(RayClusterStartError, match="head pod unschedulable: 0/3 nodes are available") as caught:
        task.run()
    assert "start_timeout has passed" in str(caught.value)
    assert text(task).count("head pod unschedulable") >= 1
    kuberay.wait(lambda: not kube.left(access.namespace))


def test_an_image_name_that_is_not_valid_fails_at_once(
    kuberay: KubeRay, kube: Kube, access: Access, tries: Callable[..., Tries], deferrable: bool
) -> None:
    task = tries("true", deferrable=deferrable, cluster={"annotations": {PLAY: INVALID_IMAGE_NAME}})
    began = time.monotonic()
    with pytest.raises(AirflowFailException, match=r"can't start: head pod: image .* can't be pulled \(InvalidImageNa"):
        task.run()
    assert time.monotonic() - began < 30
    kuberay.wait(lambda: not kube.left(access.namespace))


def test_an_image_that_is_not_there_is_named(kuberay: KubeRay, access: Access, tries: Callable[..., Tries]) -> None:
    task = tries("true", cluster={"annotations": {PLAY: ERR_IMAGE_PULL}, "start_timeout": 4})
    with pytest.raises(RayClusterStartError, match="can't be pulled.*not found"):
        task.run()


def test_a_quota_is_named(kuberay: KubeRay, kube: Kube, access: Access, tries: Callable[..., Tries]) -> None:
    kube.limit(access.namespace, pods="0")
    task = tries("true", cluster={"start_timeout": 4})
    with pytest.raises(RayClusterStartError, match="quota does not allow its pods: .*exceeded quota: compute"):
        task.run()


def test_what_kuberay_refuses_fails_at_once(
    kuberay: KubeRay, kube: Kube, access: Access, tries: Callable[..., Tries]
) -> None:
    task = tries("true", cluster={"annotations": {PLAY: VALIDATION_FAILED}})
    with pytest.raises(AirflowFailException, match="KubeRay refuses the cluster's spec: .*the test said so"):
        task.run()
    kuberay.wait(lambda: not kube.left(access.namespace))


@pytest.mark.parametrize("access_way", ["proxy"])
def test_a_cluster_with_a_token(
    kuberay: KubeRay, access: Access, tries: Callable[..., Tries], deferrable: bool, access_way: str
) -> None:
    spec = cluster_spec(authOptions={"mode": "token"})
    task = tries("true", deferrable=deferrable, cluster={"spec": spec, "access": access_way})
    assert task.run()
    kuberay.wait(lambda: not kuberay.left())

"""A cluster for one task, on a real API server and with real heads: made, used, taken over, and never left behind."""

from __future__ import annotations

import secrets
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_rayjobs.decorators import RayJobDecoratedOperator
from airflow_provider_rayjobs.exceptions import (
    RayClusterStartError,
    RayJobFailedError,
    RayJobLostError,
    RayJobStoppedError,
)
from airflow_provider_rayjobs.kuberay import KubeRayCluster
from airflow_provider_rayjobs.tasks import context as task_context
from airflow_provider_rayjobs.tasks.own_cluster import owner_of
from tests.kube.bench import cluster_spec, ray_job
from tests.kube.clusters import ERR_IMAGE_PULL, INVALID_IMAGE_NAME, PLAY, UNSCHEDULABLE
from tests.kube.controller import VALIDATION_FAILED
from tests.kube.dying_try import ROLE_OF_THE_DOCS, tries_of
from tests.kube.test_kills import MOMENTS, killed
from tests.support.tries import Tries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kube.bench import Access, Kube
    from tests.kube.controller import KubeRay
    from tests.kube.network import Ingress


@pytest.fixture
def access(new_access: Callable[..., Access]) -> Access:
    """A new namespace, with the rights that the documentation asks for."""
    return new_access(ROLE_OF_THE_DOCS)


@pytest.fixture(params=[False, True], ids=["worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def tries(kube_conn_id: str) -> Callable[..., Tries]:
    """A function that makes the tries of a task with a cluster of its own."""

    def make(entrypoint: str, cluster: dict[str, Any] | None = None, **arguments: Any) -> Tries:
        defaults = {"spec": cluster_spec(), "access": "proxy", "start_timeout": 90}
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
    kuberay.wait(lambda: not kuberay.left(), timeout=20)  # not after the time in which a task may be late
    assert len(kuberay.made) == 1


def test_a_job_that_fails_ends_its_cluster_and_the_retry_gets_another(
    kuberay: KubeRay, access: Access, tries: Callable[..., Tries]
) -> None:
    task = tries("exit 3")
    for _ in range(2):
        with pytest.raises(RayJobFailedError, match="exit code 3"):
            task.run()
    kuberay.wait(lambda: not kuberay.left())
    assert len(kuberay.made) == len(rayjobs(access)) == 2


def test_an_unschedulable_head_is_named_while_it_waits(
    kuberay: KubeRay, kube: Kube, access: Access, tries: Callable[..., Tries], deferrable: bool
) -> None:
    task = tries("true", deferrable=deferrable, cluster={"annotations": {PLAY: UNSCHEDULABLE}, "start_timeout": 4})
    with pytest.raises(RayClusterStartError, match=r"head pod unschedulable: 0/3 nodes are available") as caught:
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
    with pytest.raises(RayClusterStartError, match=r"can't be pulled.*not found"):
        task.run()


def test_a_quota_is_named(kuberay: KubeRay, kube: Kube, access: Access, tries: Callable[..., Tries]) -> None:
    kube.limit(access.namespace, pods="0")
    task = tries("true", cluster={"start_timeout": 5})
    with pytest.raises(RayClusterStartError, match=r"quota does not allow its pods: exceeded quota: compute"):
        task.run()
    assert text(task).count("exceeded quota") == 1  # though KubeRay gives each pod that it tries another name


def test_what_kuberay_refuses_fails_at_once(
    kuberay: KubeRay, kube: Kube, access: Access, tries: Callable[..., Tries]
) -> None:
    task = tries("true", cluster={"annotations": {PLAY: VALIDATION_FAILED}})
    with pytest.raises(AirflowFailException, match=r"KubeRay refuses the cluster's spec: .*the test said so"):
        task.run()
    kuberay.wait(lambda: not kube.left(access.namespace))


def test_a_cluster_with_a_token(
    kuberay: KubeRay, access: Access, tries: Callable[..., Tries], deferrable: bool
) -> None:
    spec = cluster_spec(authOptions={"mode": "token"})
    task = tries("true", deferrable=deferrable, cluster={"spec": spec})
    assert task.run()
    kuberay.wait(lambda: not kuberay.left())


def test_the_cluster_stays_for_keep_seconds(kuberay: KubeRay, access: Access, tries: Callable[..., Tries]) -> None:
    task = tries("true", cluster={"keep_seconds": 15})
    task.run()
    assert kuberay.left()
    (job,) = rayjobs(access)
    assert job["spec"]["ttlSecondsAfterFinished"] == 15
    kuberay.wait(lambda: not kuberay.left(), timeout=40)


def test_an_older_kuberay_is_warned_of(
    cheap_kuberay: KubeRay, kube: Kube, access: Access, tries: Callable[..., Tries]
) -> None:
    kube.serve_older_kuberay()
    try:
        task = tries("true")
        task.run()
    finally:
        kube.serve_this_kuberay()
    assert "have no preRunningDeadlineSeconds" in text(task)


def test_an_object_of_somebody_else_is_left_alone(kube: Kube, access: Access, tries: Callable[..., Tries]) -> None:
    task = tries("true")
    context = task.context()
    identity = task_context.task_identity(context, "")
    name = owner_of(identity).name
    access.api.create("rayjobs", access.namespace, ray_job(name))
    task._number = 0
    with pytest.raises(AirflowFailException, match="is there already, and this task has not made it"):
        task.run()
    assert len(rayjobs(access)) == 1
    access.api.delete("rayjobs", access.namespace, name)  # or the KubeRay of the next test brings it up


def test_a_clear_gets_a_new_cluster_and_ends_the_old_one(
    cheap_kuberay: KubeRay, access: Access, tries: Callable[..., Tries], kube_conn_id: str, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    given = {"entrypoint": f"echo x >> {trace}; sleep 3", "run_id": f"run-{secrets.token_hex(4)}"}
    cluster = {"spec": cluster_spec(), "access": "proxy", "kubernetes_conn_id": kube_conn_id, "start_timeout": 60}
    killed(*MOMENTS["running"], {**given, "cluster": cluster})
    (old,) = rayjobs(access)
    task = tries_of(cluster=cluster, **given)
    task.context()
    task._retries += 1  # as a clear does
    task.run()
    (new,) = rayjobs(access)
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert len(cheap_kuberay.made) == 2
    cheap_kuberay.wait(lambda: not cheap_kuberay.left())


def test_a_function_returns_its_value(kuberay: KubeRay, kube_conn_id: str, deferrable: bool) -> None:
    def square(number: int) -> int:
        return number * number

    def operator() -> Any:
        cluster = KubeRayCluster(cluster_spec(), kubernetes_conn_id=kube_conn_id, access="proxy", start_timeout=90)
        return RayJobDecoratedOperator(
            task_id="task",
            python_callable=square,
            op_args=[7],
            cluster=cluster,
            deferrable=deferrable,
            poll_interval=1.0,
        )

    assert Tries(operator, f"run-{secrets.token_hex(4)}").run() == 49
    kuberay.wait(lambda: not kuberay.left())


def test_by_the_url_of_an_ingress(
    kuberay: KubeRay, ingress: Ingress, tries: Callable[..., Tries], deferrable: bool
) -> None:
    spec = cluster_spec(authOptions={"mode": "token"})
    task = tries("echo by the ingress", deferrable=deferrable, cluster={"spec": spec, "access": ingress.template})
    assert task.run()
    assert "by the ingress" in text(task)
    kuberay.wait(lambda: not kuberay.left())


def test_a_cluster_that_somebody_deletes_under_the_job_is_told_soon(
    kuberay: KubeRay, kube: Kube, access: Access, tries: Callable[..., Tries], deferrable: bool
) -> None:
    task = tries("echo hello from the 'driver'; sleep 600", deferrable=deferrable)
    deleted: list[float] = []

    def delete() -> None:
        while "hello from the driver" not in text(task):
            time.sleep(0.2)
        kube.api.delete("rayjobs", access.namespace, rayjobs(access)[0]["metadata"]["name"])
        deleted.append(time.monotonic())

    deleting = threading.Thread(target=delete, daemon=True)
    deleting.start()
    with pytest.raises((RayJobLostError, RayJobStoppedError)):
        task.run()
    deleting.join()
    assert time.monotonic() - deleted[0] < 60
    kuberay.wait(lambda: not kube.left(access.namespace))

"""The bench itself: its API server, and each fact of KubeRay that its controller plays."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.kube import clusters, controller, server
from tests.kube.api import ApiError
from tests.kube.bench import cluster_spec, ray_job
from tests.kube.heads import ScriptedHeads, witness_of
from tests.support.processes import session, wait_gone
from tests.support.scripted_server import ScriptedRay
from tests.support.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kube.api import Object
    from tests.kube.bench import Access, Kube
    from tests.kube.controller import KubeRay
    from tests.kube.network import Ingress

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
def heads() -> ScriptedHeads:
    """Heads that run nothing."""
    return ScriptedHeads(ScriptedRay)


@pytest.fixture
def scripted(new_kuberay: Callable[..., KubeRay], heads: ScriptedHeads) -> KubeRay:
    """A KubeRay whose heads run nothing."""
    return new_kuberay(heads)


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


# The API server


def test_without_an_api_server_the_tests_tell_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(server, "BESIDE", tmp_path)
    monkeypatch.delenv(server.ASSETS_VARIABLE, raising=False)
    monkeypatch.setenv(server.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="set KUBEBUILDER_ASSETS to a folder with kube-apiserver and etcd"):
        server.require_programs()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="set KUBEBUILDER_ASSETS"):
        server.require_programs()


def test_the_usual_folder_of_a_controllers_tests_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("etcd", "kube-apiserver"):
        (tmp_path / name).touch()
    monkeypatch.setenv(server.ASSETS_VARIABLE, str(tmp_path))
    assert server.require_programs() == (tmp_path / "etcd", tmp_path / "kube-apiserver")


def test_the_service_account_has_the_rights_of_the_role_alone(
    kube: Kube, access: Access, new_access: Callable[..., Access]
) -> None:
    other = new_access()
    assert access.api.list("rayjobs", access.namespace) == []
    for forbidden in (
        lambda: access.api.list("rayjobs", other.namespace),
        lambda: access.api.create("pods", access.namespace, {"metadata": {"name": "x"}}),
        lambda: access.api.delete("rayclusters", access.namespace, "x"),
        lambda: access.api.list("secrets", access.namespace),
    ):
        with pytest.raises(ApiError) as refused:
            forbidden()
        assert (refused.value.status, refused.value.reason) == (403, "Forbidden")
    with pytest.raises(ApiError) as unknown:
        kube.server.api("a-wrong-token").list("rayjobs", access.namespace)
    assert unknown.value.status == 401


def test_another_role_can_be_given(new_access: Callable[..., Access], tmp_path: Path) -> None:
    role = tmp_path / "role.yaml"
    role.write_text("kind: Role\nmetadata: {name: none}\nrules: []\n")
    access = new_access(role)
    with pytest.raises(ApiError) as refused:
        access.api.list("rayjobs", access.namespace)
    assert refused.value.status == 403


def test_the_official_client_reads_the_kubeconfig(access: Access) -> None:
    client = pytest.importorskip("kubernetes").client
    config = pytest.importorskip("kubernetes").config
    make(access, "x")
    api = config.new_client_from_config_dict(access.kubeconfig, persist_config=False)
    found = client.CustomObjectsApi(api).list_namespaced_custom_object("ray.io", "v1", access.namespace, "rayjobs")
    assert [one["metadata"]["name"] for one in found["items"]] == ["x"]
    api.close()


def test_airflows_hook_reads_the_connection(kube_conn_id: str, access: Access) -> None:
    hook = pytest.importorskip("airflow.providers.cncf.kubernetes.hooks.kubernetes").KubernetesHook(kube_conn_id)
    make(access, "x")
    assert hook.get_namespace() == access.namespace
    found = hook.get_custom_object("ray.io", "v1", "rayjobs", "x", access.namespace)
    assert found["metadata"]["name"] == "x"


def test_the_same_name_twice_is_409(access: Access) -> None:
    make(access, "x")
    with pytest.raises(ApiError) as refused:
        make(access, "x")
    assert (refused.value.status, refused.value.reason) == (409, "AlreadyExists")


def test_a_delete_may_demand_a_uid(access: Access) -> None:
    uid = make(access, "x")["metadata"]["uid"]
    with pytest.raises(ApiError) as refused:
        access.api.delete("rayjobs", access.namespace, "x", preconditions={"uid": "another"})
    assert refused.value.status == 409
    access.api.delete("rayjobs", access.namespace, "x", preconditions={"uid": uid})
    assert access.api.find("rayjobs", access.namespace, "x") is None


@pytest.mark.parametrize(
    ("field", "job"),
    [
        ("spec.preRunningDeadlineSeconds", ray_job("x", preRunningDeadlineSeconds=0)),
        ("spec.backoffLimit", ray_job("x", backoffLimit="one")),
        ("spec.rayClusterSpec.authOptions.mode", ray_job("x", cluster={"authOptions": {"mode": "other"}})),
        ("spec.rayClusterSpec.headGroupSpec.template", ray_job("x", cluster={"headGroupSpec": {}})),
        ("metadata.name", ray_job("Upper")),
    ],
)
def test_the_api_server_refuses_with_422(access: Access, field: str, job: Object) -> None:
    with pytest.raises(ApiError) as refused:
        access.api.create("rayjobs", access.namespace, job)
    assert refused.value.status == 422
    assert field in refused.value.message


def test_an_empty_text_is_a_text(access: Access) -> None:
    assert make(access, "x", entrypoint="")["spec"]["entrypoint"] == ""


def test_an_older_kuberay_drops_the_deadline_of_the_bring_up(kube: Kube, access: Access) -> None:
    assert make(access, "new", preRunningDeadlineSeconds=60)["spec"]["preRunningDeadlineSeconds"] == 60
    kube.serve_older_kuberay()
    try:
        assert "preRunningDeadlineSeconds" not in make(access, "old", preRunningDeadlineSeconds=60)["spec"]
    finally:
        kube.serve_this_kuberay()
    assert make(access, "newer", preRunningDeadlineSeconds=60)["spec"]["preRunningDeadlineSeconds"] == 60


def test_a_status_is_written_by_its_subresource_only(kube: Kube, access: Access) -> None:
    make(access, "x")
    access.api.patch("rayjobs", access.namespace, "x", {"status": {"jobDeploymentStatus": "Complete"}})
    assert status_of(access, "x") == {}
    with pytest.raises(ApiError) as refused:
        access.api.patch("rayjobs", access.namespace, "x", {"status": {"jobId": "x"}}, "status")
    assert refused.value.status == 403


# The way of a RayJob


def test_a_job_that_is_not_named_waits(scripted: KubeRay, access: Access) -> None:
    make(access, "x")
    wait_state(access, "x", "Waiting")
    time.sleep(1)
    status = status_of(access, "x")
    assert status["jobDeploymentStatus"] == "Waiting"
    assert not status.get("jobId")
    assert controller.FINALIZER in access.api.get("rayjobs", access.namespace, "x")["metadata"]["finalizers"]


def test_the_deadline_of_the_bring_up_ends_a_cluster_without_a_job(scripted: KubeRay, access: Access) -> None:
    make(access, "x", preRunningDeadlineSeconds=2, **SHUTS_DOWN)
    wait_state(access, "x", "Waiting")
    assert wait_state(access, "x", "Failed")["reason"] == "PreRunningDeadlineExceeded"
    scripted.wait(lambda: not scripted.left())
    assert access.api.find("rayjobs", access.namespace, "x") is not None


def test_the_deadline_of_the_bring_up_counts_before_the_cluster_is_up(scripted: KubeRay, access: Access) -> None:
    make(access, "x", preRunningDeadlineSeconds=2, annotations={clusters.PLAY: clusters.UNSCHEDULABLE}, **SHUTS_DOWN)
    status = wait_state(access, "x", "Failed")
    assert status["reason"] == "PreRunningDeadlineExceeded"
    assert status["message"].startswith("The RayJob has passed the preRunningDeadlineSeconds. StartTime: ")
    scripted.wait(lambda: not scripted.left())


def test_a_job_that_is_named_from_the_start_is_asked_for_without_end(scripted: KubeRay, access: Access) -> None:
    make(access, "x", jobId="nowhere", preRunningDeadlineSeconds=2, **SHUTS_DOWN)
    wait_state(access, "x", "Running")
    time.sleep(3)
    status = status_of(access, "x")
    assert (status["jobDeploymentStatus"], status["jobId"]) == ("Running", "nowhere")
    assert scripted.left() == [status["rayClusterName"]]


def test_the_active_deadline_ends_a_running_job(scripted: KubeRay, access: Access) -> None:
    make(access, "x", jobId="nowhere", activeDeadlineSeconds=2, **SHUTS_DOWN)
    wait_state(access, "x", "Running")
    assert wait_state(access, "x", "Failed")["reason"] == "DeadlineExceeded"
    scripted.wait(lambda: not scripted.left())


def test_the_active_deadline_does_not_count_while_the_job_waits(scripted: KubeRay, access: Access) -> None:
    make(access, "x", activeDeadlineSeconds=5)
    wait_state(access, "x", "Waiting")
    time.sleep(5)
    assert status_of(access, "x")["jobDeploymentStatus"] == "Waiting"


@pytest.mark.parametrize(
    ("job_status", "state", "reason"),
    [("SUCCEEDED", "Complete", None), ("STOPPED", "Complete", None), ("FAILED", "Failed", "AppFailed")],
)
def test_the_end_of_the_job_is_the_end_of_the_rayjob(
    scripted: KubeRay, heads: ScriptedHeads, access: Access, job_status: str, state: str, reason: str | None
) -> None:
    make(access, "x", **SHUTS_DOWN)
    name = wait_state(access, "x", "Waiting")["rayClusterName"]
    head = heads.of[name]
    head.add_job("one")
    tell_job(access, "x", "one")
    wait_state(access, "x", "Running")
    head.jobs["one"].become(job_status)
    status = wait_state(access, "x", state)
    assert (status["jobStatus"], status.get("reason")) == (job_status, reason)
    assert status["endTime"]
    scripted.wait(lambda: not scripted.left())


def test_the_cluster_stays_for_the_time_after_the_end(scripted: KubeRay, heads: ScriptedHeads, access: Access) -> None:
    make(access, "x", ttlSecondsAfterFinished=3, **SHUTS_DOWN)
    name = wait_state(access, "x", "Waiting")["rayClusterName"]
    heads.of[name].add_job("one").become("SUCCEEDED")
    tell_job(access, "x", "one")
    wait_state(access, "x", "Complete")
    time.sleep(1)
    assert scripted.left() == [name]
    scripted.wait(lambda: not scripted.left())


def test_without_shutdown_the_cluster_stays(scripted: KubeRay, heads: ScriptedHeads, access: Access) -> None:
    make(access, "x")
    name = wait_state(access, "x", "Waiting")["rayClusterName"]
    heads.of[name].add_job("one").become("SUCCEEDED")
    tell_job(access, "x", "one")
    wait_state(access, "x", "Complete")
    time.sleep(1)
    assert scripted.left() == [name]


def test_a_delete_stops_the_job_and_takes_the_cluster_with_it(
    kube: Kube, scripted: KubeRay, heads: ScriptedHeads, access: Access
) -> None:
    make(access, "x")
    name = wait_state(access, "x", "Waiting")["rayClusterName"]
    head = heads.of[name]
    head.add_job("one").become("RUNNING")
    tell_job(access, "x", "one")
    wait_state(access, "x", "Running")
    access.api.delete("rayjobs", access.namespace, "x")
    scripted.wait(lambda: not scripted.left())
    assert head.received_on("POST", "/api/jobs/one/stop")
    assert kube.left(access.namespace) == []


def test_a_delete_in_the_foreground_waits_for_the_cluster(kube: Kube, scripted: KubeRay, access: Access) -> None:
    make(access, "x")
    wait_state(access, "x", "Waiting")
    access.api.delete("rayjobs", access.namespace, "x", propagationPolicy="Foreground")
    scripted.wait(lambda: not kube.left(access.namespace))
    assert scripted.left() == []


def test_while_the_operator_is_down_a_deleted_rayjob_stays(scripted: KubeRay, access: Access) -> None:
    make(access, "x")
    wait_state(access, "x", "Waiting")
    scripted.pause()
    access.api.delete("rayjobs", access.namespace, "x")
    time.sleep(1)
    assert "deletionTimestamp" in access.api.get("rayjobs", access.namespace, "x")["metadata"]
    scripted.resume()
    scripted.wait(lambda: access.api.find("rayjobs", access.namespace, "x") is None)


def test_a_cluster_deleted_under_a_running_job_is_made_anew_without_the_job(
    kube: Kube, scripted: KubeRay, heads: ScriptedHeads, access: Access
) -> None:
    make(access, "x")
    name = wait_state(access, "x", "Waiting")["rayClusterName"]
    first = heads.of[name]
    first.add_job("one").become("RUNNING")
    tell_job(access, "x", "one")
    scripted.wait(lambda: status_of(access, "x").get("jobStatus") == "RUNNING")
    kube.api.delete("rayclusters", access.namespace, name)
    scripted.wait(lambda: heads.of[name] is not first)
    assert scripted.made == [name, name]
    time.sleep(1)
    assert status_of(access, "x")["jobDeploymentStatus"] == "Running"


def test_a_head_that_does_not_answer_fails_the_rayjob_in_the_end(
    new_kuberay: Callable[..., KubeRay], heads: ScriptedHeads, access: Access
) -> None:
    new_kuberay(heads, status_check_timeout=2)
    make(access, "x", **SHUTS_DOWN)
    name = wait_state(access, "x", "Waiting")["rayClusterName"]
    heads.of[name].add_job("one").become("RUNNING")
    tell_job(access, "x", "one")
    wait_state(access, "x", "Running")
    heads.of[name].stop()
    status = wait_state(access, "x", "Failed")
    assert status["reason"] == "JobStatusCheckTimeoutExceeded"


# What is refused


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (ray_job("x", backoffLimit=1), "BackoffLimit is incompatible with InteractiveMode"),
        (ray_job("x", suspend=True), "a RayJob with shutdownAfterJobFinishes set to false is not allowed"),
        (ray_job("x", ttlSecondsAfterFinished=9), "set to false cannot have TTLSecondsAfterFinished"),
        (ray_job("x", rayClusterSpec=None), "one of RayClusterSpec or ClusterSelector must be set"),
        (
            ray_job("x", cluster={"authOptions": {"enableK8sTokenAuth": True}}),
            "K8s token auth mode is currently not supported for RayJob",
        ),
        (ray_job("x" * 48), "RayJob name should be no more than 47 characters"),
        (ray_job("1x"), "RayJob name should be a valid DNS1035 label"),
        (ray_job("x", annotations={clusters.PLAY: controller.VALIDATION_FAILED}), "the test said so"),
    ],
    ids=["backoff", "suspend", "ttl", "no cluster", "tokens of Kubernetes", "long name", "digit first", "told"],
)
def test_kuberay_refuses(kube: Kube, scripted: KubeRay, access: Access, job: Object, message: str) -> None:
    name = access.api.create("rayjobs", access.namespace, job)["metadata"]["name"]
    status = wait_state(access, name, "ValidationFailed")
    assert status["reason"] == "ValidationFailed"
    assert message in status["message"]
    assert scripted.made == []
    assert any(message in event["message"] for event in kube.events(access.namespace))


def test_nobody_cares_for_a_rayjob_without_an_operator_or_of_another_one(scripted: KubeRay, access: Access) -> None:
    make(access, "ignored", annotations={clusters.PLAY: controller.IGNORED})
    make(access, "kueues", managedBy="kueue.x-k8s.io/multikueue")
    time.sleep(1)
    assert status_of(access, "ignored") == status_of(access, "kueues") == {}


# Its RayCluster


def test_labels_and_annotations_reach_the_cluster(scripted: KubeRay, access: Access) -> None:
    job = ray_job("x", annotations={"note": "mine"})
    job["metadata"]["labels"] = {"team": "a"}
    access.api.create("rayjobs", access.namespace, job)
    name = wait_state(access, "x", "Waiting")["rayClusterName"]
    meta = access.api.get("rayclusters", access.namespace, name)["metadata"]
    assert (meta["labels"]["team"], meta["annotations"]["note"]) == ("a", "mine")
    assert meta["labels"]["ray.io/originated-from-cr-name"] == "x"


def conditions_of(access: Access, name: str) -> dict[str, tuple[str, str]]:
    status = access.api.get("rayclusters", access.namespace, name).get("status", {})
    return {one["type"]: (one["status"], one["reason"]) for one in status.get("conditions", ())}


def test_the_conditions_of_a_cluster_that_comes_up(scripted: KubeRay, access: Access) -> None:
    worker = {"name": "w", "image": "ray.example/ray:2.60.0"}
    group = {"groupName": "small", "replicas": 2, "template": {"spec": {"containers": [worker]}}}
    make(access, "x", cluster={"workerGroupSpecs": [group]})
    status = wait_state(access, "x", "Waiting")
    conditions = conditions_of(access, status["rayClusterName"])
    assert conditions["HeadPodReady"] == ("True", "HeadPodRunningAndReady")
    assert conditions["RayClusterProvisioned"] == ("True", "AllPodRunningAndReadyFirstTime")
    selector = f"ray.io/cluster={status['rayClusterName']}"
    pods = access.api.list("pods", access.namespace, labelSelector=selector)
    kinds = sorted(pod["metadata"]["labels"]["ray.io/node-type"] for pod in pods)
    assert kinds == ["head", "worker", "worker"]
    assert {pod["status"]["phase"] for pod in pods} == {"Running"}


@pytest.mark.parametrize(
    ("play", "reason", "event", "text"),
    [
        (clusters.UNSCHEDULABLE, "Unknown", "FailedScheduling", "2 Insufficient cpu"),
        (clusters.ERR_IMAGE_PULL, "ErrImagePull", "Failed", "ray.example/ray:2.60.0: not found"),
        (clusters.INVALID_IMAGE_NAME, "InvalidImageName", "InspectFailed", "invalid reference format"),
        (clusters.CRASH_LOOP, "CrashLoopBackOff", "BackOff", "restarting failed container"),
    ],
)
def test_a_head_pod_that_does_not_start(
    scripted: KubeRay, kube: Kube, access: Access, play: str, reason: str, event: str, text: str
) -> None:
    make(access, "x", annotations={clusters.PLAY: play})
    name = wait_state(access, "x", "Initializing")["rayClusterName"]
    scripted.wait(lambda: conditions_of_soon(access, name).get("HeadPodReady") == ("False", reason))
    assert conditions_of(access, name)["RayClusterProvisioned"] == ("False", "RayClusterPodsProvisioning")
    found = [one for one in access.api.list("events", access.namespace) if one["reason"] == event]
    assert any(text in one["message"] and one["involvedObject"]["kind"] == "Pod" for one in found)
    by_scheduler = play == clusters.UNSCHEDULABLE
    assert [(one["lastTimestamp"] is None, one["eventTime"] is None) for one in found] == [
        (by_scheduler, not by_scheduler)
    ] * len(found)

    kube.api.patch("rayclusters", access.namespace, name, {"metadata": {"annotations": {clusters.PLAY: None}}})
    wait_state(access, "x", "Waiting")


def conditions_of_soon(access: Access, name: str) -> dict[str, tuple[str, str]]:
    try:
        return conditions_of(access, name)
    except ApiError:
        return {}


def test_a_quota_keeps_the_head_pod_away(scripted: KubeRay, kube: Kube, access: Access) -> None:
    kube.limit(access.namespace, pods="0")
    make(access, "x")
    name = wait_state(access, "x", "Initializing")["rayClusterName"]
    scripted.wait(lambda: "ReplicaFailure" in conditions_of_soon(access, name))
    assert conditions_of(access, name)["ReplicaFailure"] == ("True", "FailedCreateHeadPod")
    assert conditions_of(access, name)["HeadPodReady"] == ("False", "HeadPodNotFound")
    (event,) = (one for one in kube.events(access.namespace) if one["reason"] == "FailedToCreateHeadPod")
    assert "exceeded quota: compute, requested: pods=1, used: pods=0, limited: pods=0" in event["message"]
    kube.unlimit(access.namespace)
    wait_state(access, "x", "Waiting")
    assert "ReplicaFailure" not in conditions_of(access, name)


def test_a_full_cluster_lets_the_next_one_wait(new_kuberay: Callable[..., KubeRay], access: Access) -> None:
    few = FewHeads(ScriptedRay)
    kuberay = new_kuberay(few)
    make(access, "first")
    wait_state(access, "first", "Waiting")
    make(access, "second")
    wait_state(access, "second", "Initializing")
    kuberay.wait(
        lambda: any(one["reason"] == "FailedScheduling" for one in access.api.list("events", access.namespace))
    )
    few.most = 2
    wait_state(access, "second", "Waiting")


class FewHeads(ScriptedHeads):
    """Has room for one head."""

    most = 1

    def take(self, cluster: Object, token: str) -> Any:
        return super().take(cluster, token) if len(self.of) < self.most else None


def test_a_selected_cluster_stays(scripted: KubeRay, heads: ScriptedHeads, kube: Kube, access: Access) -> None:
    own = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "own"}, "spec": cluster_spec()}
    kube.api.create("rayclusters", access.namespace, own)
    make(access, "x", rayClusterSpec=None, clusterSelector={"ray.io/cluster": "own"}, **SHUTS_DOWN)
    assert wait_state(access, "x", "Waiting")["rayClusterName"] == "own"
    heads.of["own"].add_job("one").become("SUCCEEDED")
    tell_job(access, "x", "one")
    wait_state(access, "x", "Complete")
    access.api.delete("rayjobs", access.namespace, "x")
    scripted.wait(lambda: access.api.find("rayjobs", access.namespace, "x") is None)
    time.sleep(1)
    assert (scripted.made, scripted.left()) == ([], ["own"])


def test_a_suspended_rayjob_gives_its_cluster_back(scripted: KubeRay, access: Access) -> None:
    make(access, "x", suspend=True, **SHUTS_DOWN)
    wait_state(access, "x", "Suspended")
    assert scripted.made == []
    access.api.patch("rayjobs", access.namespace, "x", {"spec": {"suspend": False}})
    wait_state(access, "x", "Waiting")
    states = [state for _, state, _ in scripted.states[access.namespace, "x"]]
    assert states == ["Initializing", "Suspending", "Suspended", "", "Initializing", "Waiting"]


def test_a_token_is_in_a_secret_named_like_the_cluster(scripted: KubeRay, heads: ScriptedHeads, access: Access) -> None:
    make(access, "x", cluster={"authOptions": {"mode": "token"}})
    name = wait_state(access, "x", "Waiting")["rayClusterName"]
    secret = access.api.get("secrets", access.namespace, name)
    token = base64.b64decode(secret["data"]["auth_token"]).decode()
    assert heads.of[name].token == token

    # The token of Kubernetes is used up by the proxy, so Ray's goes in a header of its own.
    path = f"/api/v1/namespaces/{access.namespace}/services/{name}-head-svc:8265/proxy/api/version"
    assert access.api.send("GET", path).status_code == 401
    assert access.api.send("GET", path, headers={"X-Ray-Authorization": f"Bearer {token}"}).status_code == 200


def test_a_user_may_name_the_secret(scripted: KubeRay, heads: ScriptedHeads, kube: Kube, access: Access) -> None:
    kube.api.create("secrets", access.namespace, {"metadata": {"name": "own"}, "stringData": {"auth_token": "t0ken"}})
    make(access, "x", cluster={"authOptions": {"mode": "token", "secretName": "own"}})
    name = wait_state(access, "x", "Waiting")["rayClusterName"]
    assert heads.of[name].token == "t0ken"
    assert access.api.find("secrets", access.namespace, name) is None


def test_the_proxy_carries_a_log_as_it_grows(cheap_kuberay: KubeRay, access: Access) -> None:
    make(access, "x", cluster={"authOptions": {"mode": "token"}} if cheap_kuberay.heads.token else {})
    name = wait_state(access, "x", "Waiting")["rayClusterName"]
    head = cheap_kuberay.head_of(name)
    job_id = f"log-{access.namespace}"
    witness_of(head).submit("echo through the proxy", submission_id=job_id)
    tell_job(access, "x", job_id)
    path = f"/api/v1/namespaces/{access.namespace}/services/{name}-head-svc:8265/proxy/api/jobs/{job_id}/logs/tail"

    async def read() -> str:
        tls = ssl.create_default_context(cadata=access.ca)
        headers = {"Authorization": f"Bearer {access.token}"}
        if head.token:
            headers["X-Ray-Authorization"] = f"Bearer {head.token}"
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(access.url + path, ssl=tls, headers=headers) as log,
        ):
            return "".join([str(message.data) async for message in log if message.type is aiohttp.WSMsgType.TEXT])

    assert "through the proxy" in asyncio.run(read())
    wait_state(access, "x", "Complete")


def test_an_ingress_leads_to_each_head(
    scripted: KubeRay, heads: ScriptedHeads, access: Access, ingress: Ingress
) -> None:
    for name in ("x", "y"):
        make(access, name, **SHUTS_DOWN)
    for name in ("x", "y"):
        cluster = wait_state(access, name, "Waiting")["rayClusterName"]
        url = ingress.template.format(namespace=access.namespace, service=f"{cluster}-head-svc")
        Witness(url).submit("true", submission_id=name)
        assert list(heads.of[cluster].jobs) == [name]
    access.api.delete("rayjobs", access.namespace, "y")
    scripted.wait(lambda: len(scripted.left()) == 1)
    assert Witness(url).request("GET", "/api/version")[0] == 503


def test_several_clusters_on_one_head(kube: Kube, cheap_kuberay: KubeRay, access: Access) -> None:
    names = [f"x-{number}" for number in range(3)]
    for name in names:
        make(access, name, **SHUTS_DOWN)
    for name in names:
        cluster = wait_state(access, name, "Waiting")["rayClusterName"]
        job_id = f"{name}-{access.namespace}"
        witness_of(cheap_kuberay.head_of(cluster)).submit("true", submission_id=job_id)
        tell_job(access, name, job_id)
    for name in names:
        wait_state(access, name, "Complete")
    cheap_kuberay.wait(lambda: not cheap_kuberay.left())
    assert len(cheap_kuberay.made) == 3
    assert kube.left(access.namespace) == [f"rayjobs/{name}" for name in names]


def test_twenty_clusters_with_scripted_heads(
    kube: Kube, scripted: KubeRay, heads: ScriptedHeads, access: Access
) -> None:
    names = [f"x-{number}" for number in range(20)]
    for name in names:
        make(access, name, **SHUTS_DOWN)
    for name in names:
        cluster = wait_state(access, name, "Waiting")["rayClusterName"]
        heads.of[cluster].add_job("one").become("SUCCEEDED")
        tell_job(access, name, "one")
    for name in names:
        wait_state(access, name, "Complete")
    scripted.wait(lambda: not scripted.left())
    assert len(scripted.made) == 20


def test_nothing_is_left_when_pytest_is_killed(tmp_path: Path) -> None:
    """The API server and the heads end with the process that started them."""
    server.require_programs()
    script = tmp_path / "holds.py"
    script.write_text(
        "import time\n"
        "from tests.kube.network import PodNetwork\n"
        "from tests.kube.server import KubeServer\n"
        "with PodNetwork() as network, KubeServer(network.socket) as server:\n"
        "    print(*server.pids(), server.folder, network.socket.parent, flush=True)\n"
        "    time.sleep(600)\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, str(script)]
    with subprocess.Popen(
        command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        etcd, apiserver, *folders = holder.stdout.readline().split()
        started = session(int(etcd)) | session(int(apiserver))
        holder.kill()
    assert len(started) == 2
    assert wait_gone(started, 20) == set()
    deadline = time.monotonic() + 10
    while left := [folder for folder in folders if Path(folder).exists()]:
        assert time.monotonic() < deadline, f"{left} is left"
        time.sleep(0.05)

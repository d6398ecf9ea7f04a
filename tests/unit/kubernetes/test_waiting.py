"""What a cluster waits for, from objects as Kubernetes and KubeRay write them."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from airflow_provider_rayjobs.exceptions import RayClusterStartError, RayKubernetesError, RayKubernetesRefusedError
from airflow_provider_rayjobs.kubernetes import waiting
from airflow_provider_rayjobs.kubernetes.calls import EVENTS, PODS, RAYCLUSTERS, RAYJOBS
from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
from airflow_provider_rayjobs.kubernetes.lease import Lease
from airflow_provider_rayjobs.kubernetes.waiting import Reason, Sight, WaitLog, until_ready, why_not_ready
from tests.support.kube_calls import Objects

NO_NODE = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
QUOTA = 'pods "x" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=0, limited: pods=0'
POLICY = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": privileged'


def rayjob(state: str = "Initializing", **more: Any) -> dict[str, Any]:
    created = {"creationTimestamp": "2026-01-01T00:00:00Z"}
    metadata = {"name": "etl", "namespace": "ray", "labels": {}, "uid": "uid-1", **created}
    status = {"jobDeploymentStatus": state, "rayClusterName": "etl-abcde", **more.pop("status", {})}
    return {"metadata": {**metadata, **more.pop("metadata", {})}, "spec": more, "status": status}


def pod(role: str, *, name: str = "", waits: str = "", message: str = "", **status: Any) -> dict[str, Any]:
    container = {"name": "ray", "image": "ray:1", "state": {"waiting": {"reason": waits, "message": message}}}
    labels = {"ray.io/cluster": "etl-abcde", "ray.io/node-type": role}
    status = {"phase": "Pending", "containerStatuses": [container] if waits else [], **status}
    return {"metadata": {"name": name or f"etl-{role}", "labels": labels}, "status": status}


def unschedulable(role: str, name: str = "") -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": NO_NODE}
    return pod(role, name=name, conditions=[condition])


def ready(role: str) -> dict[str, Any]:
    return pod(role, phase="Running", conditions=[{"type": "Ready", "status": "True"}])


def event(about: str, reason: str, message: str, at: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    name = f"{about}.{reason}.{at}"
    times = {"lastTimestamp": None, "eventTime": at}
    return {
        "metadata": {"name": name},
        "involvedObject": {"name": about},
        "reason": reason,
        "message": message,
        **times,
    }


def cluster(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "etl-abcde"}, "status": status}


def seen(*pods: Any, events: Any = (), job: Any = None, **status: Any) -> Reason:
    return why_not_ready(Sight(Lease(job or rayjob()), cluster(**status), pods, events))


@pytest.mark.parametrize(
    ("reason", "text", "fatal"),
    [
        (seen(unschedulable("head")), f"head pod unschedulable: {NO_NODE}", False),
        (
            seen(unschedulable("worker", "a"), unschedulable("worker", "b")),
            f"worker pod unschedulable: {NO_NODE} (2 times)",
            False,
        ),
        (
            seen(pod("head", waits="ErrImagePull", message="ray:1: not found")),
            "(ErrImagePull): ray:1: not found",
            False,
        ),
        (seen(pod("head", waits="ImagePullBackOff")), "head pod: image 'ray:1' can't be pulled", False),
        (seen(pod("worker", waits="InvalidImageName")), "can't be pulled (InvalidImageName)", True),
        (seen(pod("head", waits="CreateContainerConfigError", message='secret "x" not found')), '"x" not found', False),
        (seen(pod("head", phase="Failed", reason="Evicted")), "head pod failed: Evicted", False),
        (seen(pod("head"), events=[event("etl-head", "FailedMount", "no volume")]), "FailedMount: no volume", False),
        (seen(pod("head", waits="ContainerCreating")), "1 head pod starting", False),
        (
            seen(ready("head"), pod("worker"), desiredWorkerReplicas=4, availableWorkerReplicas=1),
            "1 worker pod starting; 1 of 4 workers are available",
            False,
        ),
        (seen(), "its pods are not made yet", False),
        (seen(conditions=[{"type": "ReplicaFailure", "status": "True", "message": QUOTA}]), "quota does not", False),
        (seen(conditions=[{"type": "ReplicaFailure", "status": "True", "message": POLICY}]), "PodSecurity", True),
        (seen(events=[event("etl-abcde", "FailedToCreateHeadPod", POLICY)]), "its pods can't be made", True),
        (seen(job=rayjob("Suspended")), "no queue (Kueue) has admitted it yet", False),
        (seen(job=rayjob(suspend=True)), "is suspended", False),
        (seen(job=rayjob("", status={"rayClusterName": ""})), "no RayCluster yet; does its operator run", False),
        (
            seen(job=rayjob("", status={"rayClusterName": ""}, metadata={"creationTimestamp": "2999-01-01T00:00:00Z"})),
            "KubeRay has not made its RayCluster yet",
            False,
        ),
        (
            seen(job=rayjob("ValidationFailed", status={"message": "no name"})),
            "refuses the cluster's spec: no name",
            True,
        ),
    ],
)
def test_the_reason_is_named(reason: Reason, text: str, fatal: bool) -> None:
    assert text in reason.text
    assert reason.fatal is fatal
    assert not reason.ended


@pytest.mark.parametrize(("at", "told"), [("2026-01-01T00:00:00Z", False), ("2026-01-01T00:00:09Z", True)])
def test_a_refusal_that_has_passed_is_not_fatal(at: str, told: bool) -> None:
    """An event stays. When its service account came late, KubeRay has made the pods since."""
    late = 'pods "x" is forbidden: error looking up service account ray/rays: serviceaccount "rays" not found'
    head = pod("head")
    head["metadata"]["creationTimestamp"] = "2026-01-01T00:00:05Z"
    reason = seen(head, events=[event("etl-abcde", "FailedToCreateHeadPod", late, at)])
    assert not reason.fatal
    assert ("can't be made" in reason.text) is told  # later than the pod: about a worker
    failure = {"type": "ReplicaFailure", "status": "True", "message": POLICY}
    assert seen(head, conditions=[failure]).fatal


def test_a_refusal_is_not_fatal_while_it_is_not_known_whether_there_are_pods() -> None:
    events = [event("etl-abcde", "FailedToCreateHeadPod", POLICY)]
    unseen = why_not_ready(Sight(Lease(rayjob()), cluster(), (), events, (PODS,)))
    assert "its pods can't be made" in unseen.text
    assert not unseen.fatal


def test_a_crash_is_told_with_its_exit_code() -> None:
    crashed = pod("head", waits="CrashLoopBackOff")
    crashed["status"]["containerStatuses"][0]["lastState"] = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    assert "CrashLoopBackOff (ended with exit code 137, OOMKilled)" in seen(crashed).text


@pytest.mark.parametrize(
    "sight",
    [
        Sight(None),
        Sight(Lease(rayjob(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}))),
        Sight(Lease(rayjob("Failed", status={"reason": "PreRunningDeadlineExceeded"}))),
    ],
)
def test_an_ended_cluster_is_told_from_one_that_waits(sight: Sight) -> None:
    assert why_not_ready(sight).ended


def test_the_last_of_several_events_counts_and_long_text_is_cut() -> None:
    events = [event("etl-head", "A", "first", "1"), event("etl-head", "B", "x" * 5000, "2")]
    text = seen(pod("head"), events=events).text
    assert text.startswith("head pod: B: xxx")
    assert len(text) < 500


def objects(*pods: Any, job: Any = None, events: Any = ()) -> Objects:
    kube = Objects()
    kube.add(RAYJOBS, job or rayjob())
    kube.add(RAYCLUSTERS, cluster())
    for resource, items in ((PODS, pods), (EVENTS, events)):
        for item in items:
            kube.add(resource, item)
    return kube


REF = ClusterRef("kube", "ray", "etl", "uid-1")


def test_a_look_reads_what_explains() -> None:
    kube = objects(pod("head"), events=[event("etl-head", "FailedMount", "no volume")])
    sight = kube.run(waiting.look("ray", "etl", "uid-1"))
    assert (len(sight.pods), len(sight.events), sight.unseen) == (1, 1, ())


def test_a_ready_cluster_costs_one_call() -> None:
    kube = objects(job=rayjob("Waiting"))
    kube.run(waiting.look("ray", "etl", "uid-1"))
    assert len(kube.calls) == 1


@pytest.mark.parametrize("resource", [PODS, EVENTS, RAYCLUSTERS])
def test_a_right_that_only_explains_may_be_missing(resource: str) -> None:
    kube = objects(pod("head", waits="ContainerCreating"))
    kube.errors["get" if resource == RAYCLUSTERS else "list", resource] = 403
    sight = kube.run(waiting.look("ray", "etl", "uid-1"))
    assert sight.unseen == (resource,)
    assert f"may not read {resource}" in why_not_ready(sight).text
    kube.errors = dict.fromkeys(kube.errors, 500)
    with pytest.raises(RayKubernetesError):
        kube.run(waiting.look("ray", "etl", "uid-1"))


def wait(kube: Objects, deadline: float = float("inf")) -> Lease:
    return kube.run(until_ready(REF, {"start_timeout": deadline}, WaitLog(logging.getLogger())))


def test_the_wait_ends_when_the_cluster_takes_jobs() -> None:
    assert wait(objects(job=rayjob("Waiting"))).name == "etl"


def test_the_wait_ends_when_waiting_is_of_no_use() -> None:
    with pytest.raises(RayKubernetesRefusedError, match=r"RayJob ray/etl: the cluster can't start: .*InvalidImageName"):
        wait(objects(pod("head", waits="InvalidImageName")))
    with pytest.raises(RayClusterStartError, match="KubeRay has ended it: DeadlineExceeded"):
        wait(objects(job=rayjob("Failed", status={"reason": "DeadlineExceeded"})))
    with pytest.raises(RayClusterStartError, match=r"\(start_timeout has passed\); it waits for this: head pod unsche"):
        wait(objects(unschedulable("head")), deadline=0)


def test_a_reason_is_logged_when_it_changes(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO)
    log = WaitLog(logging.getLogger(), lambda text: text.replace("s3cret", "***"))
    for text in ("pods", "pods", "image s3cret", "pods"):
        log.note(Reason(text))
    assert [record.getMessage() for record in caplog.records] == [
        f"The cluster waits (0 s): {text}" for text in ("pods", "image ***", "pods")
    ]
    assert log.lines == ["after 0 s: pods", "after 0 s: image ***", "after 0 s: pods"]
    monkeypatch.setattr(log._times, "is_due", lambda: True)
    log.note(Reason("pods"))
    assert len(caplog.records) == 4
    assert len(log.lines) == 3

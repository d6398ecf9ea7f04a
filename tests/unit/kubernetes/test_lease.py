"""RayJobs as leases of clusters: created once, adopted, patched and deleted by their uid."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_rayjobs.exceptions import RayClusterStartError, RayKubernetesError, RayKubernetesRefusedError
from airflow_provider_rayjobs.kubernetes import lease as leases
from airflow_provider_rayjobs.kubernetes.calls import MOST_LISTED, RAYJOBS, Call
from airflow_provider_rayjobs.kubernetes.lease import Lease, Owner
from tests.support.kube_calls import Objects

OWNER = Owner(name="etl-a1", task="t", attempt="a1", generation="g1", number=1, try_number=1)


def body_of(owner: Owner = OWNER, **status: Any) -> dict[str, Any]:
    metadata = {"name": owner.name, "namespace": "ray", "labels": owner.labels}
    return {"metadata": metadata, "spec": {}, "status": status}


def test_a_second_creation_adopts_the_object() -> None:
    kube = Objects()
    first, second = (kube.run(leases.create(body_of(), OWNER, 5)) for _ in range(2))
    assert first.uid == second.uid


def test_somebody_elses_object_is_left_alone() -> None:
    kube = Objects()
    kube.add(RAYJOBS, {"metadata": {"name": OWNER.name}, "spec": {}})
    with pytest.raises(RayKubernetesRefusedError, match="this task has not made it"):
        kube.run(leases.create(body_of(), OWNER, 5))


def test_an_object_that_is_being_deleted_is_waited_for() -> None:
    kube = Objects()
    old = kube.add(RAYJOBS, body_of())
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z"
    with pytest.raises(RayClusterStartError, match="is KubeRay's operator running"):
        kube.run(leases.create(body_of(), OWNER, 3))
    assert kube.slept == 3


@pytest.mark.parametrize("verb", ["create", "list"])
def test_a_missing_kuberay_is_named(verb: str) -> None:
    kube = Objects()
    kube.errors[verb, RAYJOBS] = 404
    flow = leases.create(body_of(), OWNER, 5) if verb == "create" else leases.find("ray", OWNER)
    with pytest.raises(RayKubernetesRefusedError, match=r"install KubeRay 1\.6 or later"):
        kube.run(flow)


@pytest.mark.parametrize("state", ["Complete", "Failed"])
def test_an_object_that_has_ended_is_replaced(state: str) -> None:
    kube = Objects()
    old = kube.add(RAYJOBS, body_of(jobDeploymentStatus=state))
    made = kube.run(leases.create(body_of(), OWNER, 5))
    assert made.is_live
    assert made.uid != old["metadata"]["uid"]


def test_a_conflict_without_an_object_is_tried_again_for_some_time() -> None:
    kube = Objects()
    kube.errors["create", RAYJOBS] = 409
    with pytest.raises(RayKubernetesError, match="create rayjobs"):
        kube.run(leases.create(body_of(), OWNER, 5))
    assert kube.slept == 5


def test_a_missing_namespace_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    kube = Objects()

    def answer(_: object) -> None:
        raise RayKubernetesError('create rayjobs failed: 404 namespaces "ray" not found', status=404)

    monkeypatch.setattr(kube, "answer", answer)
    with pytest.raises(RayKubernetesRefusedError, match="create the namespace") as caught:
        kube.run(leases.create(body_of(), OWNER, 5))
    assert "KubeRay" not in str(caught.value)


def test_other_errors_pass() -> None:
    kube = Objects()
    kube.errors["create", RAYJOBS] = 500
    with pytest.raises(RayKubernetesError):
        kube.run(leases.create(body_of(), OWNER, 5))


def test_the_objects_of_a_task_are_found_the_latest_try_first() -> None:
    kube = Objects()
    for number, name in ((9, "x-a9"), (10, "x-a10")):
        kube.add(RAYJOBS, body_of(Owner(name, "t", f"a{number}", "g1", 1, number)))
    kube.add(RAYJOBS, body_of(Owner("other-b", "t2", "b", "g1", 1, 1)))
    kube.add(RAYJOBS, body_of(Owner("copy-by-hand", "t", "a7", "g1", 1, 7)))
    kube.add(RAYJOBS, body_of(Owner("second-c", "t", "c", "g1", 2, 1)))
    assert [lease.name for lease in kube.run(leases.find("ray", OWNER))] == ["x-a10", "x-a9", "second-c"]


def many(number: int) -> Objects:
    kube = Objects()
    for one in range(number):
        kube.add(RAYJOBS, body_of(Owner(f"x-a{one}", "t", f"a{one}", "g1", 1, one)))
    return kube


@pytest.mark.parametrize("expired", [0, 1])
def test_all_pages_are_read(expired: int) -> None:
    kube = many(2 * MOST_LISTED + 1)
    kube.expired = expired
    found = kube.run(leases.find("ray", OWNER))
    assert [lease.try_number for lease in found] == list(range(2 * MOST_LISTED, -1, -1))
    assert len(kube.calls) == 3 + 2 * expired


def test_a_list_does_not_begin_again_without_end() -> None:
    kube = many(MOST_LISTED + 1)
    kube.expired = 2
    with pytest.raises(RayKubernetesError, match="too old"):
        kube.run(leases.find("ray", OWNER))


def test_too_many_pages_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "MOST_PAGES", 2)
    with pytest.raises(
        RayKubernetesError, match=r"more than 400 RayJobs .* get rayjobs -l airflow-provider-rayjobs/task=t$"
    ):
        many(2 * MOST_LISTED + 1).run(leases.find("ray", OWNER))


def test_the_job_is_patched_in_by_uid() -> None:
    kube = Objects()
    lease = Lease(kube.add(RAYJOBS, body_of()))
    assert kube.run(leases.set_job("ray", lease.name, lease.uid, "job", 7)).job_id == "job"
    assert kube.of[RAYJOBS, lease.name]["spec"]["ttlSecondsAfterFinished"] == 7 + leases.NOTICE_SECONDS
    with pytest.raises(RayClusterStartError, match="is gone: its cluster has ended"):
        kube.run(leases.set_job("ray", lease.name, "another", "job", 0))
    with pytest.raises(RayClusterStartError, match="is gone"):
        kube.run(leases.set_job("ray", "none", lease.uid, "job", 0))


def test_a_function_whose_value_is_read_later_keeps_the_head_longer() -> None:
    kube = Objects()
    lease = Lease(kube.add(RAYJOBS, body_of()))
    kube.run(leases.set_job("ray", lease.name, lease.uid, "job", 7, reads_result=True))
    assert kube.of[RAYJOBS, lease.name]["spec"]["ttlSecondsAfterFinished"] == 7 + leases.RESULT_SECONDS


@pytest.mark.parametrize(("status", "slept"), [(409, leases.CONFLICTS - 1), (422, 0)])
def test_a_refused_patch_of_an_object_that_is_there_does_not_count_as_its_end(status: int, slept: int) -> None:
    kube = Objects()
    lease = Lease(kube.add(RAYJOBS, body_of()))
    kube.errors["patch", RAYJOBS] = status
    with pytest.raises(RayKubernetesError) as caught:
        kube.run(leases.set_job("ray", lease.name, lease.uid, "job", 7))
    assert not isinstance(caught.value, RayClusterStartError)
    assert kube.slept == slept


def test_how_long_the_cluster_stays_is_patched_in() -> None:
    kube = Objects()
    lease = Lease(kube.add(RAYJOBS, body_of()))
    kube.run(leases.set_keep("ray", lease.name, lease.uid, 7))
    assert kube.of[RAYJOBS, lease.name]["spec"]["ttlSecondsAfterFinished"] == 7
    kube.run(leases.set_keep("ray", "none", lease.uid, 7))
    kube.errors["patch", RAYJOBS] = 403
    with pytest.raises(RayKubernetesError):
        kube.run(leases.set_keep("ray", lease.name, lease.uid, 7))


def test_a_deletion_names_the_uid() -> None:
    kube = Objects()
    lease = Lease(kube.add(RAYJOBS, body_of()))
    assert not kube.run(leases.delete("ray", lease.name, "another"))
    assert kube.run(leases.delete("ray", lease.name, lease.uid))
    assert not kube.run(leases.delete("ray", lease.name, lease.uid))
    kube.errors["delete", RAYJOBS] = 403
    with pytest.raises(RayKubernetesError):
        kube.run(leases.delete("ray", lease.name, lease.uid))


def test_another_object_of_the_same_name_does_not_count() -> None:
    kube = Objects()
    lease = Lease(kube.add(RAYJOBS, body_of()))
    assert kube.run(leases.read("ray", lease.name)) is not None
    assert kube.run(leases.read("ray", lease.name, "another")) is None
    kube.run(leases.wait_until_gone(Lease({"metadata": {"name": lease.name, "uid": "another"}}), 0))


@pytest.mark.parametrize(
    ("status", "facts"),
    [
        ({}, {"is_live"}),
        ({"jobDeploymentStatus": "Initializing"}, {"is_live"}),
        ({"jobDeploymentStatus": "Waiting", "rayClusterName": "c"}, {"is_live", "is_ready"}),
        ({"jobDeploymentStatus": "Running", "rayClusterName": "c"}, {"is_live", "is_ready"}),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, {"has_succeeded"}),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, set()),
        ({"jobDeploymentStatus": "Failed"}, set()),
        ({"jobDeploymentStatus": "ValidationFailed"}, set()),
    ],
)
def test_what_a_state_means(status: dict[str, Any], facts: set[str]) -> None:
    names = ("is_live", "is_ready", "has_succeeded")
    assert {name for name in names if getattr(Lease(body_of(**status)), name)} == facts
    deleted = body_of(**status)
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z"
    assert not [name for name in names if getattr(Lease(deleted), name)]


def test_an_object_of_any_shape_is_read() -> None:
    lease = Lease({"metadata": None, "spec": [], "status": "?"})
    assert (lease.name, lease.state, lease.job_id, lease.try_number) == ("", "", "", 0)
    assert lease.created_at == float("inf")
    assert not lease.has_deadline


def test_a_call_is_named_as_in_a_role() -> None:
    assert str(Call("get", "rayjobs", "ray", {"name": "x"})) == "get rayjobs.ray.io 'x' in namespace 'ray'"
    assert str(Call("list", "pods", "ray")) == "list pods in namespace 'ray'"

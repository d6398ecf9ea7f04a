"""At most one cluster of a task: over lost answers, tries, clears and kills."""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_rayjobs.exceptions import RayClusterStartError, RayJobInterruptedError, RayKubernetesError
from airflow_provider_rayjobs.kubernetes.calls import RAYJOBS
from airflow_provider_rayjobs.kubernetes.cluster import KubeRayCluster
from airflow_provider_rayjobs.tasks.identity import TaskIdentity
from airflow_provider_rayjobs.tasks.own_cluster import OwnCluster, owner_of, read_wish
from tests.support.kube_calls import Objects

HEAD = {"headGroupSpec": {}}
IDENTITY = TaskIdentity("here", "etl", "run", "train", -1, 1, 3, "2026-01-01")


def try_of(number: int, *, clears: int = 0, submission: int = 1) -> TaskIdentity:
    return replace(IDENTITY, try_number=number, max_tries=3 + clears, number=submission)


def own(
    kube: Any, identity: TaskIdentity = IDENTITY, cluster: KubeRayCluster | None = None, **options: Any
) -> OwnCluster:
    wish = read_wish(cluster or KubeRayCluster(HEAD, namespace="ray"))
    return OwnCluster(kube, wish, identity, logging.getLogger("own"), **options)


def made(kube: Objects) -> list[str]:
    return [name for resource, name in kube.of if resource == RAYJOBS]


def name_of(identity: TaskIdentity) -> str:
    return owner_of(identity).name


def end_as(kube: Objects, identity: TaskIdentity, job_status: str, state: str = "Complete") -> None:
    body = kube.of[RAYJOBS, name_of(identity)]
    body["spec"]["jobId"] = "job"
    body["status"] = {"jobDeploymentStatus": state, "jobStatus": job_status}


def test_the_same_try_makes_one_cluster() -> None:
    kube = Objects()
    first, second = (own(kube).settle(reattach=True) for _ in range(2))
    assert first.uid == second.uid
    assert made(kube) == [name_of(IDENTITY)]


def test_a_retry_takes_over_the_cluster() -> None:
    kube = Objects()
    first = own(kube).settle(reattach=True)
    assert own(kube, try_of(2)).settle(reattach=True).uid == first.uid


def test_a_retry_without_reattach_gets_a_new_cluster() -> None:
    kube = Objects()
    own(kube).settle(reattach=True)
    own(kube, try_of(2)).settle(reattach=False)
    assert made(kube) == [name_of(try_of(2))]


def test_a_clear_gets_a_new_cluster_and_ends_the_old_ones() -> None:
    kube = Objects()
    own(kube).settle(reattach=True)
    end_as(kube, IDENTITY, "SUCCEEDED")
    own(kube, try_of(2)).settle(reattach=True, results=False)
    cleared = try_of(3, clears=1)
    own(kube, cleared).settle(reattach=True)
    assert made(kube) == [name_of(cleared)]


def test_a_success_of_an_earlier_try_is_the_result() -> None:
    kube = Objects()
    own(kube).settle(reattach=True)
    end_as(kube, IDENTITY, "SUCCEEDED")
    assert own(kube, try_of(2)).settle(reattach=True).has_succeeded
    assert made(kube) == [name_of(IDENTITY)]
    assert own(kube, try_of(2)).settle(reattach=True, results=False).is_live
    assert made(kube) == [name_of(IDENTITY), name_of(try_of(2))]


@pytest.mark.parametrize(("job_status", "state"), [("FAILED", "Failed"), ("STOPPED", "Complete")])
def test_after_a_failed_job_a_retry_gets_a_new_cluster_and_the_old_one_may_stay(job_status: str, state: str) -> None:
    kube = Objects()
    own(kube).settle(reattach=True)
    end_as(kube, IDENTITY, job_status, state)
    own(kube, try_of(2)).settle(reattach=True)
    assert made(kube) == [name_of(IDENTITY), name_of(try_of(2))]


def test_a_cluster_that_never_got_a_job_leaves_no_object() -> None:
    kube = Objects()
    own(kube).settle(reattach=True)
    kube.of[RAYJOBS, name_of(IDENTITY)]["status"] = {"jobDeploymentStatus": "Failed"}
    own(kube, try_of(2)).settle(reattach=True)
    assert made(kube) == [name_of(try_of(2))]


def test_several_submissions_of_a_try_have_a_cluster_each() -> None:
    kube = Objects()
    for number in (1, 2):
        own(kube, try_of(1, submission=number)).settle(reattach=True)
    assert len(made(kube)) == 2
    own(kube, try_of(2, submission=2)).settle(reattach=True)
    assert len(made(kube)) == 2


def run_job(kube: Objects, name: str) -> None:
    kube.of[RAYJOBS, name]["spec"]["jobId"] = "job"
    kube.of[RAYJOBS, name]["status"] = {"jobDeploymentStatus": "Running", "rayClusterName": "c"}


def test_a_task_that_submits_several_times_may_do_so_in_another_order() -> None:
    kube = Objects()
    own(kube, entrypoint="a").settle(reattach=True)
    end_as(kube, IDENTITY, "SUCCEEDED")
    of_b = own(kube, try_of(1, submission=2), entrypoint="b").settle(reattach=True)
    run_job(kube, of_b.name)
    assert own(kube, try_of(2), entrypoint="b").settle(reattach=True).name == of_b.name
    assert own(kube, try_of(2, submission=2), entrypoint="a").settle(reattach=True).has_succeeded
    new = own(kube, try_of(2, submission=3), entrypoint="c").settle(reattach=True)
    assert made(kube) == [name_of(IDENTITY), of_b.name, new.name]


def test_of_several_equal_submissions_each_try_takes_over_its_own() -> None:
    kube = Objects()
    names = [own(kube, try_of(1, submission=number), entrypoint="a").settle(reattach=True).name for number in (1, 2)]
    for name in names:
        run_job(kube, name)
    end_as(kube, IDENTITY, "SUCCEEDED")
    for number in (1, 2):
        assert own(kube, try_of(2, submission=number), entrypoint="a").settle(reattach=True).name == names[number - 1]


def test_a_loop_gets_a_cluster_for_each_round() -> None:
    kube = Objects()
    own(kube, entrypoint="a").settle(reattach=True)
    end_as(kube, IDENTITY, "SUCCEEDED")
    assert own(kube, try_of(2), entrypoint="a").settle(reattach=True).has_succeeded
    for number in (2, 3):
        lease = own(kube, try_of(2, submission=number), entrypoint="a").settle(reattach=True)
        assert lease.name == name_of(try_of(2, submission=number))
        run_job(kube, lease.name)


def test_a_cluster_without_a_job_is_for_the_submission_that_made_it() -> None:
    kube = Objects()
    for number, entrypoint in ((1, "a"), (2, "b")):
        own(kube, try_of(1, submission=number), entrypoint=entrypoint).settle(reattach=True)
    assert own(kube, try_of(2), entrypoint="b").settle(reattach=True).name == name_of(try_of(2))


def test_a_clear_ends_the_clusters_of_all_submissions() -> None:
    kube = Objects()
    for number in (1, 2):
        own(kube, try_of(1, submission=number)).settle(reattach=True)
    cleared = try_of(2, clears=1)
    own(kube, cleared).settle(reattach=True)
    assert made(kube) == [name_of(cleared)]


def test_a_kill_leaves_other_submissions_of_the_same_try() -> None:
    kube = Objects()
    for number in (1, 2):
        own(kube, try_of(2, submission=number)).settle(reattach=True)
    own(kube, try_of(2, submission=2)).end_all()
    assert made(kube) == [name_of(try_of(2))]


@pytest.mark.parametrize(
    "later", [try_of(3), try_of(3, clears=1), replace(IDENTITY, try_number=1, run_started="2026-01-02")]
)
def test_a_process_that_is_left_over_leaves_the_cluster_of_a_later_try(later: TaskIdentity) -> None:
    kube = Objects()
    run_job(kube, own(kube, later).settle(reattach=True).name)
    own(kube, try_of(2)).end_all()
    with pytest.raises(RayJobInterruptedError, match="a later try of the task runs now"):
        own(kube, try_of(2)).settle(reattach=True)
    assert made(kube) == [name_of(later)]


def test_a_run_that_was_deleted_and_made_again_begins_anew() -> None:
    kube = Objects()
    own(kube, try_of(3)).settle(reattach=True)
    again = replace(IDENTITY, run_started="2026-01-02")
    own(kube, again).settle(reattach=True)
    assert made(kube) == [name_of(again)]


@pytest.mark.parametrize("state", ["Suspending", "Suspended", "", "Initializing"])
def test_a_cluster_that_lost_its_job_is_not_taken_over(state: str) -> None:
    """Kueue evicts a cluster, and may admit it again: KubeRay then makes a new one, which knows no job."""
    kube = Objects()
    own(kube).settle(reattach=True)
    end_as(kube, IDENTITY, "RUNNING", state)
    own(kube, try_of(2)).settle(reattach=True)
    assert made(kube) == [name_of(try_of(2))]


def test_a_try_that_is_executed_again_replaces_its_own_record() -> None:
    kube = Objects()
    own(kube).settle(reattach=True)
    end_as(kube, IDENTITY, "SUCCEEDED")
    assert own(kube).settle(reattach=False).is_live
    assert made(kube) == [name_of(IDENTITY)]


def test_the_next_cluster_waits_until_the_old_one_is_gone() -> None:
    kube = Objects()
    own(kube).settle(reattach=True)
    kube.of[RAYJOBS, name_of(IDENTITY)]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    with pytest.raises(RayClusterStartError, match="is KubeRay's operator running"):
        own(kube, try_of(2)).settle(reattach=True)
    assert name_of(try_of(2)) not in made(kube)


def test_a_kill_ends_all_that_is_live(caplog: pytest.LogCaptureFixture) -> None:
    kube = Objects()
    own(kube).settle(reattach=True)
    end_as(kube, IDENTITY, "FAILED", "Failed")
    own(kube, try_of(2)).settle(reattach=True)
    own(kube, try_of(2)).end_all()
    assert made(kube) == [name_of(IDENTITY)]
    kube.errors["list", RAYJOBS] = 500
    own(kube).end_all()
    assert "could not be ended" in caplog.text


def test_the_object_has_the_authors_labels_and_where_it_comes_from() -> None:
    kube = Objects()
    cluster = KubeRayCluster(HEAD, labels={"team": "a"}, annotations={"note": "x"}, keep_seconds=9, start_timeout=100)
    own(kube, cluster=cluster, job_timeout=50).settle(reattach=True)
    body = kube.of[RAYJOBS, name_of(IDENTITY)]
    assert body["metadata"]["labels"]["team"] == "a"
    assert body["metadata"]["annotations"]["note"] == "x"
    assert body["metadata"]["annotations"]["airflow-provider-rayjobs/run-id"] == "run"
    assert body["spec"]["preRunningDeadlineSeconds"] == 700
    assert body["spec"]["activeDeadlineSeconds"] > 750


@pytest.mark.parametrize(("arguments", "seconds"), [({}, 86400), ({"lifetime": "4000"}, 4000)])
def test_a_job_without_a_limit_ends_with_the_clusters_lifetime(arguments: dict[str, Any], seconds: int) -> None:
    kube = Objects()
    own(kube, cluster=KubeRayCluster(HEAD, **arguments)).settle(reattach=True)
    assert kube.of[RAYJOBS, name_of(IDENTITY)]["spec"]["activeDeadlineSeconds"] == seconds


@pytest.mark.parametrize(("job_status", "state"), [("SUCCEEDED", "Complete"), ("FAILED", "Failed")])
def test_a_try_that_is_executed_again_gets_a_new_cluster_after_its_jobs_end(job_status: str, state: str) -> None:
    kube = Objects()
    first = own(kube).settle(reattach=True)
    end_as(kube, IDENTITY, job_status, state)
    second = own(kube).settle(reattach=False)
    assert second.is_live
    assert second.uid != first.uid
    assert made(kube) == [name_of(IDENTITY)]


def test_a_copy_that_somebody_made_by_hand_stays() -> None:
    kube = Objects()
    own(kube).settle(reattach=True)
    copied = copy.deepcopy(kube.of[RAYJOBS, name_of(IDENTITY)])
    copied["metadata"]["name"] = "copied"
    kube.add(RAYJOBS, copied)
    own(kube, try_of(3, clears=1)).settle(reattach=True)
    own(kube, try_of(3, clears=1)).end_all()
    assert made(kube) == ["copied"]


def test_a_dropped_deadline_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    kube = Objects()
    create = kube._create

    def dropping(resource: str, body: Any) -> Any:
        found = create(resource, body)
        del found["spec"]["preRunningDeadlineSeconds"]
        return found

    kube._create = dropping  # type: ignore[method-assign]
    own(kube).settle(reattach=True)
    assert "Install KubeRay 1.6 or later" in caplog.text


@pytest.mark.parametrize(
    ("argument", "manifest", "connection", "namespace"),
    [("a", "b", "c", "a"), (None, "b", "c", "b"), (None, None, "c", "c"), (None, None, "", "default")],
)
def test_which_namespace_counts(argument: Any, manifest: Any, connection: str, namespace: str) -> None:
    kube = Objects()
    kube.own_namespace = connection
    metadata = {"namespace": manifest} if manifest else {}
    spec = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": metadata, "spec": HEAD}
    found = own(kube, cluster=KubeRayCluster(spec, namespace=argument))
    assert found.namespace == namespace
    lease = found.settle(reattach=True)
    assert (found.ref(lease).namespace, found.ref(lease).owned) == (namespace, True)


def test_the_start_counts_from_the_creation() -> None:
    kube = Objects()
    lease = own(kube).settle(reattach=True)
    assert own(kube, try_of(2)).start_deadline(lease) == lease.created_at + 1200


def test_a_wrong_clock_of_the_worker_does_not_shorten_the_start_of_its_own_cluster() -> None:
    found = own(Objects())
    lease = found.settle(reattach=True)  # by Kubernetes' clock it was created long ago
    assert found.start_deadline(lease) == pytest.approx(time.time() + 1200, abs=60)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"start_timeout": "soon"}, "start_timeout"),
        ({"start_timeout": 0}, "must be a positive number"),
        ({"start_timeout": ""}, "must be a number of seconds"),
        ({"lifetime": "soon"}, "lifetime"),
        ({"lifetime": ""}, "lifetime must be more seconds than start_timeout, 1200, not ''"),
        ({"lifetime": 1200}, "lifetime must be more seconds than start_timeout, 1200, not 1200"),
        ({"keep_seconds": -1}, "keep_seconds must be a whole number of seconds, not -1"),
        ({"keep_seconds": "1.5"}, "keep_seconds must be a whole number"),
        ({"labels": {"a": 1}}, "labels"),
        ({"spec": "x: y"}, "has no headGroupSpec"),
    ],
)
def test_a_wrong_value_is_named(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises((TypeError, ValueError), match=problem):
        read_wish(KubeRayCluster(**{"spec": HEAD, **arguments}))


def test_a_rendered_value_is_read() -> None:
    wish = read_wish(KubeRayCluster("file.yaml", start_timeout="60", keep_seconds="5"), "headGroupSpec: {}")
    assert (wish.start_timeout, wish.spec.spec) == (60.0, HEAD)


def test_errors_of_kubernetes_pass() -> None:
    kube = Objects()
    kube.errors["list", RAYJOBS] = 500
    with pytest.raises(RayKubernetesError):
        own(kube).settle(reattach=True)

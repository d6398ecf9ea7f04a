"""The operator that has a cluster made: templates, files, and what becomes of the cluster when the task ends."""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, AirflowTaskTimeout, TaskDeferred

from airflow_provider_rayjobs.compat import masking
from airflow_provider_rayjobs.exceptions import (
    RayClusterStartError,
    RayClusterUnreachableError,
    RayJobFailedError,
    RayJobInterruptedError,
    RayJobLostError,
    RayJobResultError,
    RayKubernetesRefusedError,
)
from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.kubernetes import connect
from airflow_provider_rayjobs.kubernetes.calls import RAYJOBS
from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef, KubeRayCluster
from airflow_provider_rayjobs.kubernetes.lease import Lease
from airflow_provider_rayjobs.kubernetes.start_event import StartEvent
from airflow_provider_rayjobs.links import HISTORY_PAGE_XCOM, JOB_PAGE_XCOM
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.operators.own_cluster import CLUSTER_XCOM
from tests.support.kube_calls import Objects
from tests.support.tries import TaskInstance

if TYPE_CHECKING:
    from pathlib import Path

SPEC = {"headGroupSpec": {}}
REF = ClusterRef("kube", "ray", "etl", "uid-1", owned=True)


def operator(cluster: Any = None, **arguments: Any) -> RaySubmitJobOperator:
    task_id = arguments.pop("task_id", "t")
    return RaySubmitJobOperator(
        task_id=task_id, entrypoint="true", cluster=cluster or KubeRayCluster(SPEC, namespace="ray"), **arguments
    )


def context() -> Any:
    return {"ti": TaskInstance("run", 1, 1), "dag_run": SimpleNamespace(start_date=None), "params": {"n": 3, "ns": "x"}}


def test_templates_are_rendered_in_a_copy() -> None:
    spec = {"headGroupSpec": {}, "workerGroupSpecs": [{"replicas": "{{ params.n }}"}]}
    given = KubeRayCluster(spec, namespace="{{ params.ns }}", labels={"team": "{{ params.ns }}"})
    task = operator(given)
    task.render_template_fields(context())
    assert (task.cluster.namespace, task.cluster.labels) == ("x", {"team": "x"})
    assert task._wish(context()).spec.spec["workerGroupSpecs"] == [{"replicas": 3}]
    assert given.namespace == "{{ params.ns }}", "mapped tasks share the author's object"


@pytest.mark.parametrize("as_text", [False, True])
def test_secret_variables_of_the_pods_are_masked(monkeypatch: pytest.MonkeyPatch, as_text: bool) -> None:
    masked: list[Any] = []
    monkeypatch.setattr(masking, "mask_secret", masked.append)
    names = {"DB_PASSWORD": "{{ params.ns }}-hunter2222", "LEVEL": "debugging"}
    env = [*({"name": name, "value": value} for name, value in names.items()), {"name": "API_TOKEN", "valueFrom": {}}]
    spec = {"headGroupSpec": {"template": {"spec": {"containers": [{"env": env}]}}}}
    operator(KubeRayCluster(json.dumps(spec) if as_text else spec)).render_template_fields(context())
    assert "x-hunter2222" in masked
    assert "debugging" not in masked
    for text in ("{ not: valid", "a: &a [*a]"):
        operator(KubeRayCluster(text)).render_template_fields(context())


def test_a_file_is_a_template(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("headGroupSpec: {}\nworkerGroupSpecs: [{replicas: {{ params.n }}}]\n")
    assert operator(KubeRayCluster(file))._wish(context()).spec.spec["workerGroupSpecs"] == [{"replicas": 3}]
    with pytest.raises(AirflowFailException, match=r"No cluster was made: .*No such file"):
        operator(KubeRayCluster(tmp_path / "none.yaml"))._wish(context())


@pytest.mark.parametrize("native", [False, True])
def test_a_relative_path_is_searched_like_other_templates(tmp_path: Path, native: bool) -> None:
    (tmp_path / "c.yaml").write_text('{headGroupSpec: {rayStartParams: {num-cpus: "{{ params.n }}"}}}')
    options: Any = {"template_searchpath": str(tmp_path), "render_template_as_native_obj": native}
    with DAG("d", schedule=None, **options):
        task = operator(KubeRayCluster("c.yaml"))
        none = operator(KubeRayCluster("none.yaml"), task_id="t2")
    found = task._wish(context()).spec.spec
    assert found == {"headGroupSpec": {"rayStartParams": {"num-cpus": "3"}}}
    with pytest.raises(
        AirflowFailException, match=r"No cluster was made: spec: the file 'none.yaml' is not in the DAG"
    ):
        none._wish(context())


def test_a_wrong_spec_fails_without_a_retry() -> None:
    with pytest.raises(AirflowFailException, match="No cluster was made: spec is not valid YAML"):
        operator(KubeRayCluster("a: [\n"))._wish(context())


def test_anything_but_a_cluster_is_refused() -> None:
    task = operator()
    task.cluster = "text"
    with pytest.raises(AirflowFailException, match="cluster must be a KubeRayCluster, or"):
        task.execute(context())


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch) -> Objects:
    """Objects in memory with the task's RayJob, which has a job."""
    found = Objects()
    status = {"jobDeploymentStatus": "Running", "rayClusterName": "etl-abcde"}
    body = {"metadata": {"name": "etl", "namespace": "ray"}, "spec": {"jobId": "job"}, "status": status}
    found.add(RAYJOBS, body)
    monkeypatch.setattr(RaySubmitJobOperator, "_kube_api", lambda *_, **__: found)
    monkeypatch.setattr(connect, "KubeApi", lambda *_, **__: found)
    return found


def with_cluster(*, has_job: bool = True, **options: Any) -> RaySubmitJobOperator:
    task = operator(**options)
    task._use_cluster(REF)
    task._has_own_job = has_job
    return task


def fail_with(task: RaySubmitJobOperator, error: BaseException, *, replaced: bool = False) -> None:
    guard: Any = SimpleNamespace(is_replaced=lambda: replaced)
    with pytest.raises(type(error)), task._ending_cluster_of_failure(task._end_cluster, guard):
        raise error


@pytest.mark.parametrize(
    ("has_job", "error", "stays"),
    [
        (False, RayClusterStartError("late"), False),
        (False, AirflowFailException("wrong"), False),
        (False, RayJobInterruptedError("the process ends"), True),
        (False, TaskDeferred(trigger=None, method_name="x"), True),
        (True, RayJobFailedError("failed"), True),
        (True, RayClusterUnreachableError("no contact"), True),
        (True, RayJobLostError("lost"), False),
    ],
)
def test_what_becomes_of_the_cluster_when_the_task_fails(
    kube: Objects, has_job: bool, error: BaseException, stays: bool
) -> None:
    fail_with(with_cluster(has_job=has_job), error)
    assert ((RAYJOBS, "etl") in kube.of) is stays


def test_a_process_that_was_replaced_leaves_the_cluster_to_the_other_one(kube: Objects) -> None:
    fail_with(with_cluster(has_job=False), RayClusterStartError("late"), replaced=True)
    assert (RAYJOBS, "etl") in kube.of


def test_the_cluster_stays_for_keep_seconds_only_after_the_task_saw_the_end(kube: Objects) -> None:
    task = with_cluster(cluster=KubeRayCluster(SPEC, keep_seconds="7"))
    fail_with(task, RayClusterUnreachableError("no contact"))
    assert "ttlSecondsAfterFinished" not in kube.of[RAYJOBS, "etl"]["spec"]
    fail_with(task, RayJobFailedError("failed"))
    assert kube.of[RAYJOBS, "etl"]["spec"]["ttlSecondsAfterFinished"] == 7
    kube.errors["patch", RAYJOBS] = 500
    fail_with(task, RayJobFailedError("failed"))


def test_a_cluster_whose_job_is_not_on_its_head_is_not_used_again(kube: Objects) -> None:
    with pytest.raises(RayClusterStartError, match="job is gone, so the head has restarted; a retry gets a new"):
        with_cluster()._check_cluster_is_new()
    kube.of[RAYJOBS, "etl"]["spec"] = {}
    with_cluster()._check_cluster_is_new()


def test_the_job_is_handed_over(kube: Objects) -> None:
    task = with_cluster(has_job=False)
    task._hand_over("j2")
    assert kube.of[RAYJOBS, "etl"]["spec"]["jobId"] == "j2"
    assert task._has_own_job


def test_a_cluster_that_has_ended_meanwhile_is_not_used(kube: Objects) -> None:
    ended = {"jobDeploymentStatus": "Failed", "reason": "PreRunningDeadlineExceeded"}
    kube.of[RAYJOBS, "etl"]["status"] = ended
    task = with_cluster(has_job=False)
    with pytest.raises(RayClusterStartError, match="ended the cluster meanwhile: PreRunningDeadlineExceeded"):
        task._hand_over("j2")
    assert not task._has_own_job


def event(outcome: Outcome) -> JobEvent:
    return JobEvent("job", "http://head", outcome, "detail")


@pytest.mark.parametrize("outcome", [Outcome.UNREACHABLE, Outcome.LOST])
@pytest.mark.parametrize("seen", ["SUCCEEDED", "FAILED", "STOPPED"])
def test_what_kuberay_saw_counts_if_the_head_is_gone(kube: Objects, outcome: Outcome, seen: str) -> None:
    kube.of[RAYJOBS, "etl"]["status"]["jobStatus"] = seen
    assert with_cluster()._as_kuberay_saw(event(outcome)).outcome.value.upper() == seen


def test_a_value_that_was_not_read_in_time_is_an_error(kube: Objects) -> None:
    kube.of[RAYJOBS, "etl"]["status"]["jobStatus"] = "SUCCEEDED"
    task = with_cluster()
    task._reads_result = True
    with pytest.raises(RayJobResultError, match="set a longer keep_seconds"):
        task._as_kuberay_saw(event(Outcome.UNREACHABLE))


@pytest.mark.parametrize("status", ["RUNNING", "", "SUCCEEDED"])
def test_else_the_event_stays_as_it_is(kube: Objects, status: str) -> None:
    kube.of[RAYJOBS, "etl"]["status"]["jobStatus"] = status
    if status == "SUCCEEDED":
        kube.of[RAYJOBS, "etl"]["spec"]["jobId"] = "another"
    assert with_cluster()._as_kuberay_saw(event(Outcome.LOST)) == event(Outcome.LOST)
    assert with_cluster()._as_kuberay_saw(event(Outcome.FAILED)) == event(Outcome.FAILED)


@pytest.mark.parametrize(
    "sent",
    [
        StartEvent.of_error(RayKubernetesRefusedError("wrong image")),
        StartEvent.of_error(RayClusterStartError("late")),
    ],
)
def test_an_event_of_failure_ends_the_cluster(kube: Objects, sent: StartEvent) -> None:
    given = context()
    given["ti"].xcom_push(CLUSTER_XCOM, json.loads(json.dumps(REF.to_json())))
    with pytest.raises((AirflowFailException, RayClusterStartError), match=sent.detail):
        operator().execute_on_cluster(given, sent.to_json())
    assert not kube.of


def test_what_the_cluster_waited_for_is_in_the_log_of_the_resumed_task(
    kube: Objects, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    given = context()
    given["ti"].xcom_push(CLUSTER_XCOM, REF.to_json())
    sent = StartEvent("ready", 2, waited=("after 3 s: head pod unschedulable",))
    with patch.object(RaySubmitJobOperator, "log", logging.getLogger("t")):
        assert operator()._started(given, sent.to_json()) == 2
    assert "The cluster waited: after 3 s: head pod unschedulable" in caplog.text


def test_without_its_xcom_the_cluster_is_not_known() -> None:
    with pytest.raises(RayClusterStartError, match="XCom that names its cluster is gone"):
        operator()._started(context(), StartEvent("ready").to_json())


def test_a_kill_after_the_deferral_ends_the_cluster(kube: Objects) -> None:
    given = context()
    given["ti"].xcom_push(CLUSTER_XCOM, REF.to_json())
    operator()._stop_left_behind(given)
    assert not kube.of
    operator()._stop_left_behind(given)


HISTORY = "https://history/ray/etl-abcde/s1/job"


@pytest.mark.parametrize(
    ("error", "link"),
    [
        (None, HISTORY),
        (RayJobFailedError("failed"), HISTORY),
        (AirflowTaskTimeout("late"), HISTORY),
        (TaskDeferred(trigger=None, method_name="x"), "http://head"),
    ],
)
def test_the_tasks_link_leads_to_the_history_server_once_it_has_ended(error: BaseException | None, link: str) -> None:
    given = context()
    given["ti"].xcoms = {JOB_PAGE_XCOM: "http://head", HISTORY_PAGE_XCOM: HISTORY}
    with suppress(*([type(error)] if error else ())), operator()._linking_history(given):
        if error:
            raise error
    assert given["ti"].xcoms[JOB_PAGE_XCOM] == link


def test_the_link_stays_if_the_job_goes_on_or_the_cluster_does() -> None:
    permanent = RaySubmitJobOperator(task_id="t", entrypoint="true")
    for task in (operator(wait_for_completion=False), permanent):
        given = context()
        given["ti"].xcoms = {JOB_PAGE_XCOM: "http://head", HISTORY_PAGE_XCOM: HISTORY}
        task._link_to_history(given)
        assert given["ti"].xcoms[JOB_PAGE_XCOM] == "http://head"


def test_a_link_that_can_not_be_stored_does_not_change_the_outcome(caplog: pytest.LogCaptureFixture) -> None:
    given = context()
    given["ti"].xcom_pull = lambda **_: 1 / 0
    with patch.object(RaySubmitJobOperator, "log", logging.getLogger("t")), operator()._linking_history(given):
        pass
    assert "The link to the history server could not be stored: ZeroDivisionError" in caplog.text


def test_the_job_that_kuberay_saw_succeed_has_a_history(kube: Objects) -> None:
    given, task = context(), operator()
    task._use_cluster(replace(REF, history_url="https://history/{namespace}/{cluster}/{submission_id}"))
    assert task._earlier_success(given, 1, Lease(kube.of[RAYJOBS, "etl"]))
    assert given["ti"].xcoms[HISTORY_PAGE_XCOM] == "https://history/ray/etl-abcde/job"


def test_stop_on_kill_is_about_the_job_not_about_a_cluster_without_one() -> None:
    task = operator(stop_on_kill=False)
    assert task._new_guard(context(), has_job=False)._enabled
    assert not task._new_guard(context())._enabled

"""The operator that has a cluster made: templates, files, and what becomes of the cluster when the task ends."""

from __future__ import annotations

import json
import logging
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, AirflowTaskTimeout, TaskDeferred

from airflow_provider_rayjobs.compat import masking
from airflow_provider_rayjobs.exceptions import (
    RayAuthError,
    RayClusterStartError,
    RayClusterUnreachableError,
    RayJobFailedError,
    RayJobInterruptedError,
    RayJobLostError,
    RayJobResultError,
    RayJobStoppedError,
    RayJobTimeoutError,
    RayKubernetesError,
    RayKubernetesRefusedError,
)
from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.jobs import JobStatus, VersionInfo
from airflow_provider_rayjobs.kubernetes import api, connect, waiting
from airflow_provider_rayjobs.kubernetes.calls import RAYCLUSTERS, RAYJOBS
from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef, KubeRayCluster
from airflow_provider_rayjobs.kubernetes.lease import Lease
from airflow_provider_rayjobs.kubernetes.start_event import StartEvent
from airflow_provider_rayjobs.links import HISTORY_PAGE_XCOM, JOB_PAGE_XCOM
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.operators.own_cluster import CLUSTER_XCOM
from airflow_provider_rayjobs.tasks import earlier_tries, killed, stopping
from airflow_provider_rayjobs.tasks.context import task_identity
from airflow_provider_rayjobs.tasks.guard import JobGuard
from airflow_provider_rayjobs.tasks.killed import Reason, TaskProcess
from airflow_provider_rayjobs.tasks.own_cluster import OwnCluster, read_wish
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
    monkeypatch.setattr(masking, "mask_secret", masked.extend)
    names = {"DB_PASSWORD": "{{ params.ns }}-hunter2222", "LEVEL": "debugging"}
    env = [*({"name": name, "value": value} for name, value in names.items()), {"name": "API_TOKEN", "valueFrom": {}}]
    spec: Any = {"headGroupSpec": {"template": {"spec": {"containers": [{"env": env}]}}}}
    spec["headGroupSpec"]["rayStartParams"] = {"redis-password": "hunter3333", "num-cpus": "0"}
    spec["gcsFaultToleranceOptions"] = {"redisPassword": {"value": "hunter4444"}}
    operator(KubeRayCluster(json.dumps(spec) if as_text else spec)).render_template_fields(context())
    assert {"x-hunter2222", "hunter3333", "hunter4444"} <= set(masked)
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
    task._use_cluster(REF, "job" if has_job else "")
    return task


def fail_with(task: RaySubmitJobOperator, error: BaseException, *, current: bool = True, next_try: bool = True) -> None:
    guard: Any = SimpleNamespace(still_runs_task=lambda: current, has_next_try=next_try)
    with pytest.raises(type(error)), task._ending_cluster_of_failure(task._end_cluster, guard):
        raise error


@pytest.mark.parametrize(
    ("has_job", "error", "next_try", "stays"),
    [
        (False, RayClusterStartError("late"), True, False),
        (False, AirflowFailException("wrong"), True, False),
        (False, RayJobInterruptedError("the process ends"), True, True),
        (False, TaskDeferred(trigger=None, method_name="x"), True, True),
        (True, RayJobFailedError("failed"), False, True),
        (True, RayClusterUnreachableError("no contact"), True, True),
        (True, RayClusterUnreachableError("no contact"), False, False),
        (True, RayKubernetesError("no contact with the API server"), True, True),
        (True, RayKubernetesError("no contact with the API server"), False, False),
        (True, RayJobLostError("lost"), True, False),
        (True, RayJobTimeoutError("it was stopped", may_run=False), True, True),
        (True, RayJobTimeoutError("still RUNNING 30 s after it was asked to stop"), True, False),
        (True, RuntimeError("Airflow's API server is away"), True, True),
        (True, RuntimeError("Airflow's API server is away"), False, False),
        (True, RayKubernetesRefusedError("no right to patch"), True, False),
        (True, RayAuthError("the token has ended"), True, False),
        (True, AirflowFailException("wrong"), True, False),
    ],
)
def test_what_becomes_of_the_cluster_when_the_task_fails(
    kube: Objects, has_job: bool, error: BaseException, next_try: bool, stays: bool
) -> None:
    fail_with(with_cluster(has_job=has_job), error, next_try=next_try)
    assert ((RAYJOBS, "etl") in kube.of) is stays


def test_only_a_process_that_certainly_runs_the_task_ends_the_cluster(kube: Objects) -> None:
    for task, error in (
        (with_cluster(has_job=False), RayClusterStartError("late")),
        (with_cluster(), RayJobLostError("l")),
    ):
        fail_with(task, error, current=False)
        assert (RAYJOBS, "etl") in kube.of


def test_the_cluster_stays_for_keep_seconds_only_after_the_task_saw_the_end(kube: Objects) -> None:
    task = with_cluster(cluster=KubeRayCluster(SPEC, keep_seconds="7"))
    for error in (RayClusterUnreachableError("no"), RayKubernetesError("no"), RuntimeError("no")):
        fail_with(task, error)
        assert "ttlSecondsAfterFinished" not in kube.of[RAYJOBS, "etl"]["spec"]
    fail_with(task, RayJobFailedError("failed"))
    assert kube.of[RAYJOBS, "etl"]["spec"]["ttlSecondsAfterFinished"] == 7
    kube.errors["patch", RAYJOBS] = 500
    fail_with(task, RayJobFailedError("failed"))


def test_a_job_that_kuberay_could_not_be_told_of_is_left_to_the_next_try(kube: Objects) -> None:
    task = with_cluster(has_job=False)
    guard: Any = SimpleNamespace(still_runs_task=lambda: True, has_next_try=True)
    kube.errors["patch", RAYJOBS] = 503
    with pytest.raises(RayKubernetesError), task._ending_cluster_of_failure(task._end_cluster, guard):
        task._hand_over("job")
    assert (RAYJOBS, "etl") in kube.of


def test_it_is_asked_which_job_the_cluster_has(kube: Objects) -> None:
    task = with_cluster(has_job=False)
    assert task._read_cluster_job() == task._cluster_job == "job"
    del kube.of[RAYJOBS, "etl"]
    with pytest.raises(RayClusterStartError, match="is gone, with its cluster; a retry gets a new"):
        task._read_cluster_job()
    assert not RaySubmitJobOperator(task_id="t", entrypoint="true")._read_cluster_job()


def try_of(number: int) -> Any:
    return {**context(), "ti": TaskInstance("run", number, 3)}


def lost_try(kube: Objects, monkeypatch: pytest.MonkeyPatch, **status: str) -> dict[str, Any]:
    """Return the RayJob that a first try has left, whose job was handed over."""
    monkeypatch.setattr(api, "KubeApi", lambda *_, **__: kube)
    monkeypatch.setattr(RaySubmitJobOperator, "_waiting_for_cluster", lambda _: nullcontext())
    kube.of.clear()
    identity = task_identity(try_of(1), "")
    own = OwnCluster(kube, read_wish(operator().cluster), identity, logging.getLogger("own"))  # type: ignore[arg-type]
    body = kube.of[RAYJOBS, own.settle(reattach=True).name]
    body["spec"]["jobId"] = identity.submission_id()
    body["status"] = {"jobDeploymentStatus": "Running", "rayClusterName": "etl-abcde", **status}
    return body


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The status of each job on the head, by id, and the number of the ``try`` that made them."""
    jobs: dict[str, Any] = {"try": 1}

    def job(_: Any, submission_id: str) -> Any:
        made = task_identity(try_of(jobs["try"]), "").metadata()
        return SimpleNamespace(status=jobs[submission_id], metadata=made) if submission_id in jobs else None

    monkeypatch.setattr(RayJobHook, "get_version_info", lambda _: VersionInfo("2.60.0", "s"))
    monkeypatch.setattr(stopping, "find_job", job)
    monkeypatch.setattr(earlier_tries, "find_job", job)
    return jobs


@pytest.mark.parametrize("where", ["head", "xcom"])
def test_a_retry_that_fails_keeps_the_cluster_of_the_running_job(
    kube: Objects, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    lost_try(kube, monkeypatch)

    def away(*_: Any, **__: Any) -> Any:
        raise RayClusterUnreachableError("no answer")

    given = try_of(2)
    if where == "head":
        monkeypatch.setattr(RayJobHook, "get_version_info", away)
    else:
        given["ti"].xcom_push = away
    with pytest.raises(RayClusterUnreachableError):
        operator().execute(given)
    assert len(kube.of) == 1


def test_an_error_of_kubernetes_at_the_begin_ends_no_cluster_with_a_job(
    kube: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost_try(kube, monkeypatch)

    def away(*_: Any, **__: Any) -> Any:
        raise RayKubernetesError("no answer")

    monkeypatch.setattr(OwnCluster, "settle", away)
    with pytest.raises(RayKubernetesError):
        operator().execute(try_of(2))
    assert len(kube.of) == 1


@pytest.mark.parametrize("status", [JobStatus.FAILED, None])
def test_a_cluster_whose_job_has_failed_or_is_forgotten_is_replaced(
    kube: Objects, monkeypatch: pytest.MonkeyPatch, head: dict[str, Any], status: JobStatus | None
) -> None:
    body = lost_try(kube, monkeypatch)  # KubeRay has not seen the end yet
    if status is not None:
        head[body["spec"]["jobId"]] = status
    with pytest.raises(TaskDeferred):
        operator(deferrable=True).execute(try_of(2))
    (new,) = kube.of.values()
    assert new["metadata"]["name"] != body["metadata"]["name"]


@pytest.mark.parametrize("status", [JobStatus.RUNNING, JobStatus.SUCCEEDED])
def test_the_job_that_kuberay_knows_is_taken_over(
    kube: Objects, monkeypatch: pytest.MonkeyPatch, head: dict[str, Any], status: JobStatus
) -> None:
    body = lost_try(kube, monkeypatch)
    head[body["spec"]["jobId"]] = status
    taken = []
    monkeypatch.setattr(RaySubmitJobOperator, "_take_over", lambda _self, _c, found, _s: taken.append(found.status))
    monkeypatch.setattr(RaySubmitJobOperator, "_follow", lambda *_, **__: JobEvent("job", "a", Outcome.SUCCEEDED))
    operator().execute(try_of(2))
    assert taken == [status]


@pytest.mark.parametrize("status", [{}, {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}])
def test_the_cluster_stays_until_the_try_that_took_it_over_has_the_value(
    kube: Objects, monkeypatch: pytest.MonkeyPatch, head: dict[str, Any], status: dict[str, str]
) -> None:
    body = lost_try(kube, monkeypatch, **status)
    kube.add(RAYCLUSTERS, {"metadata": {"name": "etl-abcde"}})
    body["spec"]["ttlSecondsAfterFinished"] = 1800
    head[body["spec"]["jobId"]] = JobStatus.SUCCEEDED if status else JobStatus.RUNNING
    task, kept = operator(), []
    task.read_result = True

    def reported(*_: Any) -> int:
        kept.append(body["spec"]["ttlSecondsAfterFinished"])
        return 7

    monkeypatch.setattr(RaySubmitJobOperator, "_take_over", lambda *_: None)
    monkeypatch.setattr(RaySubmitJobOperator, "_follow", lambda *_, **__: JobEvent("job", "a", Outcome.SUCCEEDED))
    monkeypatch.setattr(RaySubmitJobOperator, "_reported", reported)
    assert task.execute(try_of(2)) == 7
    assert kept == [1800]
    assert body["spec"]["ttlSecondsAfterFinished"] == 0


def test_a_value_is_waited_for_while_its_cluster_is_there(
    kube: Objects, monkeypatch: pytest.MonkeyPatch, head: dict[str, Any]
) -> None:
    """The head may not answer for a moment: the function must not run again for that."""
    body = lost_try(kube, monkeypatch, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    kube.add(RAYCLUSTERS, {"metadata": {"name": "etl-abcde"}})

    def away(*_: Any) -> Any:
        raise RayClusterUnreachableError("503 for a moment")

    monkeypatch.setattr(stopping, "find_job", away)
    task = operator(deferrable=True)
    task.read_result = True
    with pytest.raises(RayClusterUnreachableError):  # after the wait for the head
        task.execute(try_of(2))
    assert [name for resource, name in kube.of if resource == RAYJOBS] == [body["metadata"]["name"]]


def test_a_process_asks_whether_it_still_runs_the_task_after_a_long_wait_for_the_cluster(
    kube: Objects, monkeypatch: pytest.MonkeyPatch, head: dict[str, Any]
) -> None:
    monkeypatch.setattr(api, "KubeApi", lambda *_, **__: kube)
    monkeypatch.setattr(RaySubmitJobOperator, "_waiting_for_cluster", lambda _: nullcontext())
    kube.of.clear()
    monkeypatch.setattr(TaskProcess, "_ask", lambda *_: Reason.REPLACED)
    clock = [time.time()]
    monkeypatch.setattr(killed, "time", SimpleNamespace(time=lambda: clock[0]))

    def ready(ref: ClusterRef, *_: Any) -> Any:
        clock[0] += 1200
        kube.of[RAYJOBS, ref.name]["status"] = {"jobDeploymentStatus": "Waiting", "rayClusterName": "etl-x"}
        yield from ()
        return Lease(kube.of[RAYJOBS, ref.name])

    monkeypatch.setattr(waiting, "until_ready", ready)
    given, task = try_of(1), operator()
    given["ti"].test_mode = False
    monkeypatch.setattr(RaySubmitJobOperator, "_submit", lambda task, *_: task._guard.before_submission())
    with pytest.raises(RayJobInterruptedError, match="another process runs it now"):
        task.execute(given)


@pytest.mark.parametrize("stop_on_kill", [True, False])
def test_a_kill_before_the_job_is_known_ends_an_earlier_trys_job_only_if_jobs_are_stopped(
    kube: Objects, monkeypatch: pytest.MonkeyPatch, stop_on_kill: bool
) -> None:
    lost_try(kube, monkeypatch)
    monkeypatch.setattr(TaskProcess, "reason", lambda *_: Reason.TASK_ENDED)
    task = operator(stop_on_kill=stop_on_kill)
    settle = OwnCluster.settle

    def killed_there(self: OwnCluster, **options: Any) -> Any:
        settle(self, **options)
        task.on_kill()
        raise RayJobInterruptedError("The process of the task was asked to end")

    monkeypatch.setattr(OwnCluster, "settle", killed_there)
    with pytest.raises((RayJobStoppedError, RayJobInterruptedError)):
        task.execute(try_of(2))
    assert bool(kube.of) is not stop_on_kill


def test_a_kill_before_the_submission_ends_the_cluster_even_if_jobs_are_not_stopped(
    kube: Objects, monkeypatch: pytest.MonkeyPatch, head: dict[str, Any]
) -> None:
    monkeypatch.setattr(RaySubmitJobOperator, "_waiting_for_cluster", lambda _: nullcontext())
    monkeypatch.setattr(TaskProcess, "reason", lambda *_: Reason.TASK_ENDED)
    kube.of[RAYJOBS, "etl"]["spec"].pop("jobId")
    task = operator(stop_on_kill=False)
    task._use_cluster(REF)

    def uploads(*_: Any) -> None:
        task.on_kill()
        raise RayJobInterruptedError("The process of the task was asked to end")

    monkeypatch.setattr(RaySubmitJobOperator, "_submit", uploads)
    with pytest.raises(RayJobStoppedError):
        task._run(try_of(1), 1)
    assert not kube.of


@pytest.mark.parametrize("reason", [Reason.UNKNOWN, Reason.REPLACED])
def test_a_process_that_airflow_has_given_up_leaves_the_next_trys_cluster(
    kube: Objects, monkeypatch: pytest.MonkeyPatch, head: dict[str, Any], reason: Reason
) -> None:
    body = lost_try(kube, monkeypatch)  # the next try has taken it over, and submitted
    monkeypatch.setattr(TaskProcess, "_ask", lambda *_: reason)
    given, task = try_of(2), operator()
    given["ti"].test_mode = False
    task._use_cluster(ClusterRef("kube", "ray", body["metadata"]["name"], body["metadata"]["uid"], owned=True))
    with pytest.raises(RayClusterStartError, match="does not say that this process still runs the task; nothing was"):
        task._run(given, 1)
    assert list(kube.of.values()) == [body]


def test_a_process_that_is_left_over_does_not_follow_the_next_trys_job(
    kube: Objects, monkeypatch: pytest.MonkeyPatch, head: dict[str, Any]
) -> None:
    body = lost_try(kube, monkeypatch)
    head |= {"try": 2, body["spec"]["jobId"]: JobStatus.RUNNING}
    with pytest.raises(RayJobInterruptedError, match="Nothing was submitted: a later try of the task runs now"):
        operator().execute(try_of(1))
    assert list(kube.of.values()) == [body]


def test_each_execute_of_a_try_begins_without_a_job(kube: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    lost_try(kube, monkeypatch)
    kube.of.clear()
    task = with_cluster()

    def late(*_: Any) -> Any:
        raise RayClusterStartError("late")

    monkeypatch.setattr(waiting, "until_ready", late)
    with pytest.raises(RayClusterStartError):
        task.execute(try_of(2))
    assert not kube.of


def test_a_kill_does_not_interrupt_the_end_of_a_task_that_has_its_result(
    kube: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BreakableApi:
        def __init__(self, *_: Any, breakable: Any, **__: Any) -> None:
            self.breakable = breakable

        def run(self, flow: Any) -> Any:
            with self.breakable():
                return kube.run(flow)

    monkeypatch.undo()
    monkeypatch.setattr(api, "KubeApi", BreakableApi)
    task = with_cluster()
    process: Any = SimpleNamespace(has_next_try=True, reason=lambda _: Reason.PROCESS_ENDS)
    guard = task._guard = JobGuard(task.hook, logging.getLogger("guard"), process, enabled=True)

    def block() -> str:
        with guard.guarding():
            guard.announce("job", exists=True)
            task.on_kill()
            task._keep_cluster()
            return "value"

    assert block() == "value"
    assert kube.of[RAYJOBS, "etl"]["spec"]["ttlSecondsAfterFinished"] == 0


def test_the_job_is_handed_over(kube: Objects) -> None:
    task = with_cluster(has_job=False)
    task._hand_over("j2")
    assert kube.of[RAYJOBS, "etl"]["spec"]["jobId"] == "j2"
    assert task._cluster_job == "j2"


def test_a_cluster_that_has_ended_meanwhile_is_not_used(kube: Objects) -> None:
    ended = {"jobDeploymentStatus": "Failed", "reason": "PreRunningDeadlineExceeded"}
    kube.of[RAYJOBS, "etl"]["status"] = ended
    task = with_cluster(has_job=False)
    with pytest.raises(RayClusterStartError, match="ended the cluster meanwhile: PreRunningDeadlineExceeded"):
        task._hand_over("j2")
    assert not task._cluster_job


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
    task.read_result = True
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


def test_the_job_that_kuberay_saw_succeed_has_a_history_and_is_shown(kube: Objects) -> None:
    given, task, shown = context(), operator(), []
    given["task_state_store"] = SimpleNamespace(set=lambda *pair: shown.append(pair))
    task._use_cluster(replace(REF, history_url="https://history/{namespace}/{cluster}/{submission_id}"))
    assert task._earlier_success(given, 1, Lease(kube.of[RAYJOBS, "etl"]))
    assert given["ti"].xcoms[HISTORY_PAGE_XCOM] == "https://history/ray/etl-abcde/job"
    assert shown == [("submission_id", "job")]


def test_stop_on_kill_is_about_the_job_not_about_a_cluster_without_one() -> None:
    task = operator(stop_on_kill=False)
    guard = task._new_guard(context())
    assert guard._may_stop
    guard.announce("job")
    assert not guard._may_stop


def test_a_function_whose_value_is_gone_runs_again_on_a_new_cluster(
    kube: Objects, monkeypatch: pytest.MonkeyPatch, head: dict[str, Any]
) -> None:
    lost_try(kube, monkeypatch, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    task = operator(deferrable=True)
    task.entrypoint = ["python", "-m", "launcher"]  # as that of a function
    task.read_result = True
    with pytest.raises(TaskDeferred):
        task.execute(try_of(1))  # the same try, once more
    (new,) = kube.of.values()
    assert "jobId" not in new["spec"]

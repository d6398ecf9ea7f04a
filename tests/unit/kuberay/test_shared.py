"""A cluster for several tasks: the tasks that make and end it, and what those between get."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, TaskDeferred, TaskGroup, task

from airflow_provider_rayjobs.exceptions import RayKubernetesError
from airflow_provider_rayjobs.kuberay import KubeRayCluster, RayClusterDownOperator, RayClusterUpOperator, ray_cluster
from airflow_provider_rayjobs.kubernetes import api, connect
from airflow_provider_rayjobs.kubernetes.calls import RAYJOBS, Sleep
from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
from airflow_provider_rayjobs.kubernetes.start_event import StartEvent
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.sensors import RayClusterSensor
from airflow_provider_rayjobs.tasks.killed import TaskProcess
from tests.support.kube_calls import Objects
from tests.support.tries import TaskInstance

SPEC = {"headGroupSpec": {}}
REF = ClusterRef("kube", "ray", "etl", "uid-1")


def test_the_tasks_of_the_block_are_between_setup_and_teardown() -> None:
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        with ray_cluster(KubeRayCluster(SPEC), retries=2) as cluster:
            sensor = RayClusterSensor(task_id="sensor", cluster=cluster)
            job = RaySubmitJobOperator(task_id="job", entrypoint="true", cluster=cluster)
            sensor >> job
        after = RaySubmitJobOperator(task_id="after", entrypoint="true")
        job >> after
    up, down = dag.get_task("ray_cluster"), dag.get_task("ray_cluster_down")
    assert up.is_setup
    assert down.is_teardown
    assert up.downstream_task_ids == {"sensor", "job", "ray_cluster_down"}
    assert job.downstream_task_ids == {"ray_cluster_down", "after"}
    assert (up.retries, down.retries) == (2, 2)
    assert not job.is_setup
    assert not job.is_teardown


def test_two_clusters_in_a_dag() -> None:
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        for name in ("small", "large"):
            with ray_cluster(KubeRayCluster(SPEC), task_id=name) as cluster:
                RaySubmitJobOperator(task_id=f"{name}_job", entrypoint="true", cluster=cluster)
    assert set(dag.task_ids) == {"small", "small_job", "small_down", "large", "large_job", "large_down"}
    assert dag.get_task("small_job").downstream_task_ids == {"small_down"}


def test_the_teardown_waits_for_each_task_that_uses_the_cluster() -> None:
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        with ray_cluster(KubeRayCluster(SPEC)) as cluster:
            RaySubmitJobOperator.partial(task_id="mapped", cluster=cluster).expand(entrypoint=["a", "b"])

            @task.ray_job(cluster=cluster)
            def function(x: int) -> int:
                return x

            function.expand(x=[1, 2])
            with TaskGroup("group"):
                RaySubmitJobOperator(task_id="job", entrypoint="true", cluster=cluster)
        RaySubmitJobOperator(task_id="after", entrypoint="true", cluster=cluster)
    users = {"mapped", "function", "group.job", "after"}
    assert dag.get_task("ray_cluster_down").upstream_task_ids == {"ray_cluster", *users}
    assert dag.get_task("ray_cluster").downstream_task_ids == {"ray_cluster_down", *users}


def test_a_teardown_that_fails_may_fail_the_run() -> None:
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        with ray_cluster(KubeRayCluster(SPEC), task_id="a"):
            pass
        with ray_cluster(KubeRayCluster(SPEC), task_id="b", on_failure_fail_dagrun=True):
            pass
    fails = [dag.get_task(name).on_failure_fail_dagrun for name in ("a_down", "b_down")]
    assert fails == [False, True]


def test_what_is_wrong_is_told_when_the_dag_is_parsed() -> None:
    given: Any = {"spec": SPEC}
    with pytest.raises(TypeError, match="must be a KubeRayCluster, not dict"):
        RayClusterUpOperator(task_id="t", cluster=given)


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch) -> Objects:
    found = Objects()
    for module in (api, connect):
        monkeypatch.setattr(module, "KubeApi", lambda *_, **__: found)
    return found


def setup_of(**arguments: Any) -> tuple[RayClusterUpOperator, dict[str, Any]]:
    cluster = KubeRayCluster(SPEC, namespace="ray", start_timeout=600, **arguments)
    started = SimpleNamespace(start_date=datetime(2026, 1, 1, tzinfo=UTC))
    return RayClusterUpOperator(task_id="t", cluster=cluster), {"ti": TaskInstance("run", 1, 0), "dag_run": started}


def becomes_ready(kube: Objects, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the cluster become ready at the first pause; return its deadlines before that."""
    before: list[int] = []
    answer = kube.answer

    def ready(call: Any) -> Any:
        if isinstance(call, Sleep):
            for body in kube.of.values():
                before.append(body["spec"]["preRunningDeadlineSeconds"])
                body["status"] = {"jobDeploymentStatus": "Waiting", "rayClusterName": "c"}
        return answer(call)

    monkeypatch.setattr(kube, "answer", ready)
    return before


def test_the_clusters_lifetime_counts_only_once_it_is_ready(kube: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then a setup task that is killed leaves it for little longer than ``start_timeout``."""
    before = becomes_ready(kube, monkeypatch)
    operator, context = setup_of(lifetime="5000.5")
    ref = ClusterRef.from_json(operator.execute(context))
    assert before == [1200]
    assert kube.of[RAYJOBS, ref.name]["spec"]["preRunningDeadlineSeconds"] == 5001


def test_a_deferred_setup_sets_the_lifetime_too(kube: Objects) -> None:
    operator, context = setup_of(lifetime=5000)
    operator.deferrable = True
    with pytest.raises(TaskDeferred):
        operator.execute(context)
    (body,) = kube.of.values()
    assert body["spec"]["preRunningDeadlineSeconds"] == 1200
    body["status"] = {"jobDeploymentStatus": "Waiting", "rayClusterName": "c"}
    operator.execute_on_cluster(context, StartEvent("ready").to_json())
    assert body["spec"]["preRunningDeadlineSeconds"] == 5000


def test_a_cluster_whose_lifetime_can_not_be_set_is_ended(kube: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    becomes_ready(kube, monkeypatch)
    kube.errors["patch", RAYJOBS] = 500
    operator, context = setup_of()
    with pytest.raises(RayKubernetesError):
        operator.execute(context)
    assert not kube.of


def test_a_process_that_is_left_over_leaves_the_cluster_to_the_next_try(
    kube: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    becomes_ready(kube, monkeypatch)
    monkeypatch.setattr(TaskProcess, "still_runs_task", lambda _: False)
    kube.errors["patch", RAYJOBS] = 500
    operator, context = setup_of()
    with pytest.raises(RayKubernetesError):
        operator.execute(context)
    assert kube.of


def test_a_sensor_makes_no_cluster() -> None:
    with pytest.raises(TypeError, match="only a task that submits a job makes a cluster"):
        RayClusterSensor(task_id="t", cluster=KubeRayCluster(SPEC))


def test_the_teardown_ends_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[ClusterRef] = []
    monkeypatch.setattr(connect, "end", lambda ref, *_, **__: ended.append(ref))
    RayClusterDownOperator(task_id="t", cluster=REF.to_json()).execute({})
    assert ended == [REF]
    RayClusterDownOperator(task_id="t", cluster=None).execute({})
    with pytest.raises(AirflowFailException, match="must be a KubeRayCluster, or the cluster of"):
        RayClusterDownOperator(task_id="t", cluster="text").execute({})
    assert ended == [REF]

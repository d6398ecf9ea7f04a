"""A cluster for several tasks: the tasks that make and end it, and what those between get."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, TaskGroup, task

from airflow_provider_rayjobs.kuberay import KubeRayCluster, RayClusterDownOperator, RayClusterUpOperator, ray_cluster
from airflow_provider_rayjobs.kubernetes import connect
from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.sensors import RayClusterSensor

SPEC = {"headGroupSpec": {}}
REF = ClusterRef("kube", "ray", "etl", "uid-1")


def test_the_tasks_of_the_block_are_between_setup_and_teardown() -> None:
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        with ray_cluster(KubeRayCluster(SPEC), lifetime=600, retries=2) as cluster:
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


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [({"cluster": {"spec": SPEC}}, "must be a KubeRayCluster, not dict"), ({"lifetime": 0}, "lifetime")],
)
def test_what_is_wrong_is_told_when_the_dag_is_parsed(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises((TypeError, ValueError), match=problem):
        RayClusterUpOperator(task_id="t", **{"cluster": KubeRayCluster(SPEC), **arguments})


def test_a_sensor_makes_no_cluster() -> None:
    with pytest.raises(TypeError, match="a sensor makes no cluster"):
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

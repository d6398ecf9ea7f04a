"""The cluster that a task or a hook is given: one, and no other one instead."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_rayjobs.compat import versions
from airflow_provider_rayjobs.decorators import RayJobDecoratedOperator
from airflow_provider_rayjobs.exceptions import RayJobInterruptedError, RayKubernetesRefusedError
from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.hooks import RayJobAsyncHook, RayJobHook
from airflow_provider_rayjobs.kubernetes import connect
from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef, KubeRayCluster
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.sensors import RayClusterSensor, RayJobSensor
from tests.support.tries import TaskInstance

REF = ClusterRef("kube", "ray", "etl", "uid-1").to_json()


def square(number: int) -> int:
    return number * number


def submit(**arguments: Any) -> Any:
    return RaySubmitJobOperator(task_id="t", entrypoint="true", **arguments)


def function(**arguments: Any) -> Any:
    return RayJobDecoratedOperator(task_id="t", python_callable=square, op_args=[3], **arguments)


def job_sensor(**arguments: Any) -> Any:
    return RayJobSensor(task_id="t", submission_id="job", **arguments)


def cluster_sensor(**arguments: Any) -> Any:
    return RayClusterSensor(task_id="t", **arguments)


TASKS = (submit, function, job_sensor, cluster_sensor)


def context() -> Any:
    return {"ti": TaskInstance("run", 1, 1), "dag_run": SimpleNamespace(start_date=None), "params": {}}


@pytest.mark.parametrize("make", [*TASKS, RayJobHook, RayJobAsyncHook])
def test_a_connection_beside_a_cluster_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="ray_conn_id='mine' is not used beside cluster; give one of them"):
        make(ray_conn_id="mine", cluster=REF)
    make(cluster=REF)
    make(ray_conn_id="mine")


@pytest.mark.parametrize("make", TASKS)
def test_a_cluster_that_is_none_after_rendering_is_not_replaced_by_the_default_one(make: Any) -> None:
    task = make(cluster="{{ task_instance.xcom_pull('ray_cluster') }}")
    task.cluster = None
    with pytest.raises(
        AirflowFailException, match=r"cluster is None: the task that makes .* was skipped or has failed"
    ):
        task.execute(context())


def test_a_resumed_task_whose_cluster_is_not_known_asks_no_other_one() -> None:
    task = function(cluster=KubeRayCluster({"headGroupSpec": {}}))
    with pytest.raises(AirflowFailException, match="cluster is None"):
        task.execute_complete(context(), JobEvent("job", "http://head", Outcome.SUCCEEDED).to_json())


@pytest.mark.skipif(bool(versions.TERMINATED), reason="Airflow 2 itself raises, after on_kill")
def test_a_kill_interrupts_the_way_to_a_shared_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes may be away for minutes, and Airflow kills the process some seconds after it asked it to end."""
    task = submit(cluster=REF)

    def slow(*_: Any, breakable: Any = nullcontext, **__: Any) -> Any:
        with breakable():
            task.on_kill()
            raise AssertionError("it was not interrupted")

    monkeypatch.setattr(connect, "connect", slow)
    with pytest.raises(RayJobInterruptedError):
        task.execute(context())


def test_after_a_kill_kubernetes_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Mock()
    monkeypatch.setattr(connect, "connect", asked)
    task = submit(cluster=REF)
    task._new_guard(context()).killed = True
    assert task.hook.cluster
    assert asked.call_args.kwargs == {"patience": 0.0}


@pytest.mark.parametrize("make", [submit, function])
def test_a_refusal_of_kubernetes_is_not_retried(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise RayKubernetesRefusedError("403: may not get rayjobs", status=403)

    monkeypatch.setattr(connect, "connect", refused)
    with pytest.raises(AirflowFailException, match="may not get rayjobs"):
        make(cluster=REF).execute(context())

"""The operators that stop a job, and that delete the record of one."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, AirflowSkipException, XComArg

from airflow_provider_rayjobs import hooks
from airflow_provider_rayjobs.exceptions import RayJobTimeoutError
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.kuberay import KubeRayCluster
from airflow_provider_rayjobs.operators import (
    RayDeleteJobOperator,
    RayStopJobOperator,
    RaySubmitJobOperator,
    stop_delete,
)
from airflow_provider_rayjobs.tasks import stopping
from tests.support import answers
from tests.support.rendering import BOTH, Instance, rendered

if TYPE_CHECKING:
    from tests.support.scripted_server import ScriptedRay
    from tests.support.stats import KeptStats


def cleanup(kind: Any, submission_id: Any) -> Any:
    return kind(task_id="clean", submission_id=submission_id, trigger_rule="all_done")


KINDS = pytest.mark.parametrize(
    ("kind", "verb"), [(RayStopJobOperator, "stop"), (RayDeleteJobOperator, "delete")], ids=["stop", "delete"]
)


@BOTH
@KINDS
@pytest.mark.parametrize(
    "given",
    [
        "{{ ti.xcom_pull('submit') }}",
        "{{ ti.xcom_pull('submit') or '' }}",
        "{{ ti.xcom_pull('submit', key='submission_id') }}",
        lambda submit: submit.output,
        lambda submit: XComArg(submit, key="submission_id"),
        lambda submit: str(submit.output),
    ],
    ids=["jinja", "empty", "key", "output", "key of output", "text of output"],
)
def test_there_is_nothing_to_clean_up(native: bool, kind: Any, verb: str, given: Any, monkeypatch: Any) -> None:
    def make() -> Any:
        submit = RaySubmitJobOperator(task_id="submit", entrypoint="true")
        return cleanup(kind, given(submit) if callable(given) else given)

    _no_xcom(monkeypatch)
    ti = Instance()
    operator = rendered(make, native=native, ti=ti, task_instance=ti)
    with pytest.raises(AirflowSkipException, match=f"There is no Ray job to {verb}: submission_id is "):
        operator.execute({})


def _no_xcom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have XComArgs find nothing, as after a task that pushed nothing."""
    try:
        from airflow.sdk.definitions import xcom_arg
    except ImportError:
        from airflow.models import xcom_arg  # type: ignore[no-redef]
    from airflow.providers.common.compat.sdk import XComNotFound

    def resolve(self: Any, *_: Any, **__: Any) -> None:
        if self.key != "return_value":
            raise XComNotFound("dag", "submit", self.key)

    monkeypatch.setattr(xcom_arg.PlainXComArg, "resolve", resolve)


@KINDS
@pytest.mark.parametrize("wrong", [None, "", "None", 5, "a b", "a/b"])
def test_a_wrong_id_in_the_dag_is_an_error_there(kind: Any, verb: str, wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="submission_id"):
        cleanup(kind, wrong)


@KINDS
def test_a_wrong_id_of_a_template_is_an_error(kind: Any, verb: str) -> None:
    operator = rendered(lambda: cleanup(kind, "{{ version }}/x"), native=False)
    with pytest.raises(AirflowFailException, match=r"submission_id '3\.10/x' must contain only"):
        operator.execute({})


@KINDS
def test_a_mapped_task_without_a_job_is_skipped(kind: Any, verb: str) -> None:
    with DAG("mapped", schedule=None):
        mapped = kind.partial(task_id="clean").expand(submission_id=["a", "b"])
    operator = mapped.unmap({**mapped.partial_kwargs, "task_id": "clean", "submission_id": None})
    with pytest.raises(AirflowSkipException, match="submission_id is None"):
        operator.execute({})


# A job that was submitted


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that are not waited for."""
    found: list[float] = []
    monkeypatch.setattr(stop_delete, "time", SimpleNamespace(sleep=found.append))
    return found


@pytest.mark.parametrize("kind", [RayStopJobOperator, RayDeleteJobOperator])
def test_the_cluster_may_be_one_that_kuberay_made(
    kind: Any, conn_id: str, scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    scripted_ray.add_job("a", "SUCCEEDED")
    given: list[Any] = []

    def hook_of(_: str, *, cluster: Any) -> RayJobHook:
        given.append(cluster)
        return RayJobHook(conn_id)

    monkeypatch.setattr(hooks, "RayJobHook", hook_of)
    kind(task_id="t", submission_id="a", cluster={"name": "etl"}).execute({})
    assert given == [{"name": "etl"}]


@pytest.mark.parametrize("kind", [RayStopJobOperator, RayDeleteJobOperator])
def test_no_other_cluster_is_used_in_place_of_one_that_is_not_known(kind: Any, scripted_ray: ScriptedRay) -> None:
    task = kind(task_id="t", submission_id="a", cluster="{{ none }}")
    task.cluster = None  # as rendered, natively
    with pytest.raises(AirflowFailException, match="the task that makes the cluster was skipped or has failed"):
        task.execute({})
    with pytest.raises(TypeError, match="only a task that submits a job makes a cluster"):
        kind(task_id="t", submission_id="a", cluster=KubeRayCluster("spec.yaml"))
    with pytest.raises(ValueError, match="is not used beside cluster"):
        kind(task_id="t", submission_id="a", cluster={"name": "etl"}, ray_conn_id="other")


@pytest.mark.parametrize(("status", "last"), [("RUNNING", "STOPPED"), ("SUCCEEDED", "SUCCEEDED"), ("FAILED", "FAILED")])
def test_a_stop_returns_the_last_status(
    conn_id: str, scripted_ray: ScriptedRay, status: str, last: str, stats: KeptStats
) -> None:
    scripted_ray.add_job("a", status)
    operator = RayStopJobOperator(task_id="t", submission_id="a", ray_conn_id=conn_id)
    found = operator.execute({})
    assert (type(found), found) == (str, last)
    requests = len(scripted_ray.received)
    assert stats.sent == [("counter", "ray_jobs.head_requests", requests, {"conn_id": conn_id})]


def test_a_stop_of_a_job_that_the_cluster_does_not_know_fails(conn_id: str, scripted_ray: ScriptedRay) -> None:
    operator = RayStopJobOperator(task_id="t", submission_id="a", ray_conn_id=conn_id)
    with pytest.raises(AirflowFailException, match=r"Ray job a not found at .*: there is nothing to stop"):
        operator.execute({})


def test_a_job_that_does_not_end_in_time_is_an_error(
    conn_id: str, scripted_ray: ScriptedRay, pauses: list[float]
) -> None:
    scripted_ray.add_job("a")
    scripted_ray.stop_takes = None
    stop = RayStopJobOperator(task_id="t", submission_id="a", ray_conn_id=conn_id, stop_timeout=0.1)
    delete = RayDeleteJobOperator(task_id="d", submission_id="a", ray_conn_id=conn_id, end_timeout=0.1)
    for operator in (stop, delete):
        with pytest.raises(RayJobTimeoutError, match="is still RUNNING after 0 s"):
            operator.execute({})
    assert list(scripted_ray.jobs) == ["a"]
    assert (len(scripted_ray.received_on("POST")), scripted_ray.received_on("DELETE"), pauses) == (1, [], [])


def test_a_job_that_has_ended_is_deleted_after_a_pause(
    conn_id: str, scripted_ray: ScriptedRay, pauses: list[float], stats: KeptStats
) -> None:
    scripted_ray.add_job("a").reads.extend(["RUNNING", "SUCCEEDED"])
    RayDeleteJobOperator(task_id="t", submission_id="a", ray_conn_id=conn_id).execute({})
    assert scripted_ray.jobs == {}
    assert pauses == [stopping.DELETE_DELAY]
    assert stats.of("head_requests") == [len(scripted_ray.received)]
    assert scripted_ray.received_on("POST") == []  # it is not stopped


def test_a_record_that_is_not_there_needs_no_deletion(
    conn_id: str, scripted_ray: ScriptedRay, pauses: list[float]
) -> None:
    RayDeleteJobOperator(task_id="t", submission_id="a", ray_conn_id=conn_id).execute({})
    scripted_ray.add_job("a", "SUCCEEDED")
    scripted_ray.script("DELETE", ".*", answers.not_found("a"))
    RayDeleteJobOperator(task_id="t", submission_id="a", ray_conn_id=conn_id).execute({})


@pytest.mark.parametrize(
    ("kind", "name"), [(RayStopJobOperator, "stop_timeout"), (RayDeleteJobOperator, "end_timeout")]
)
@pytest.mark.parametrize("seconds", [0, -1, math.inf, "soon"])
def test_a_timeout_is_a_positive_number_of_seconds(kind: Any, name: str, seconds: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=name):
        kind(task_id="t", submission_id="a", **{name: seconds})

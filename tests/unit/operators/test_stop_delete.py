"""The operators that stop a job, and that delete the record of one."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, AirflowSkipException, XComArg

from airflow_provider_rayjobs.operators import RayDeleteJobOperator, RayStopJobOperator, RaySubmitJobOperator
from tests.support.rendering import BOTH, Instance, rendered


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
    with pytest.raises(AirflowFailException, match=r"submission_id '3\.10/x' can't be used"):
        operator.execute({})


@KINDS
def test_a_mapped_task_without_a_job_is_skipped(kind: Any, verb: str) -> None:
    with DAG("mapped", schedule=None):
        mapped = kind.partial(task_id="clean").expand(submission_id=["a", "b"])
    operator = mapped.unmap({**mapped.partial_kwargs, "task_id": "clean", "submission_id": None})
    with pytest.raises(AirflowSkipException, match="submission_id is None"):
        operator.execute({})

"""The operator that deletes the records of old jobs."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_rayjobs.client import pruning
from airflow_provider_rayjobs.compat.connections import derived_deployment
from airflow_provider_rayjobs.operators import RayPruneJobsOperator, prune
from tests.support import answers

if TYPE_CHECKING:
    from tests.support.scripted_server import ScriptedRay

DAY = 86_400


@pytest.fixture
def record(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> ScriptedRay:
    """Jobs of this deployment and of others, old and new; deleting makes no pauses."""
    monkeypatch.setattr(pruning, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(RayPruneJobsOperator, "log", logging.getLogger("t"))
    owners = {"ours": derived_deployment(), "theirs": "https://other.example"}
    for owner, deployment in owners.items():
        for days, status in ((1, "SUCCEEDED"), (8, "SUCCEEDED"), (9, "FAILED")):
            end = int((time.time() - days * DAY) * 1000)
            metadata = {"airflow_deployment": deployment}
            scripted_ray.add_job(f"{owner}-{days}", status, end_time=end, metadata=metadata)
    scripted_ray.add_job("ours-live", "RUNNING", metadata={"airflow_deployment": owners["ours"]})
    return scripted_ray


def run(conn_id: str, **arguments: Any) -> Any:
    return RayPruneJobsOperator(task_id="prune", ray_conn_id=conn_id, **arguments).execute({})


def test_old_records_of_this_deployment_are_deleted(
    conn_id: str, record: ScriptedRay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    counts = {"SUCCEEDED": 1, "FAILED": 1}
    result = run(conn_id)
    assert result == {"listed": 7, "chosen": counts, "deleted": counts, "left": 0, "refused": 0, "dry_run": False}
    assert set(record.jobs) == {"ours-1", "ours-live", "theirs-1", "theirs-8", "theirs-9"}
    assert "2 of 7 jobs on record to delete: 1 FAILED, 1 SUCCEEDED" in caplog.text
    assert "Deleted: 1 FAILED, 1 SUCCEEDED" in caplog.text


def test_the_connection_may_name_the_deployment(
    record: ScriptedRay, monkeypatch: pytest.MonkeyPatch, conn_id: str
) -> None:
    extra = '{"deployment": "https://other.example"}'
    monkeypatch.setenv("AIRFLOW_CONN_NAMED", f'{{"conn_type": "ray_jobs", "host": "{record.url}", "extra": {extra}}}')
    assert run("named", statuses=["FAILED"])["deleted"] == {"FAILED": 1}
    assert "theirs-9" not in record.jobs


def test_records_of_everyone_are_deleted_on_request(conn_id: str, record: ScriptedRay) -> None:
    assert run(conn_id, only_own=False, keep=2, older_than=3600)["deleted"] == {"SUCCEEDED": 2, "FAILED": 2}
    assert set(record.jobs) == {"ours-1", "theirs-1", "ours-live"}


def test_a_dry_run_only_names_them(
    conn_id: str, record: ScriptedRay, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(prune, "MOST_NAMED", 1)
    result = run(conn_id, dry_run=True)
    assert (result["chosen"], result["deleted"], result["dry_run"]) == ({"SUCCEEDED": 1, "FAILED": 1}, {}, True)
    assert record.received_on("DELETE") == []
    assert "Would delete FAILED ours-9" in caplog.text
    assert "and 1 more" in caplog.text


def test_what_is_left_for_the_next_run_is_told(
    conn_id: str, record: ScriptedRay, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "MOST_AT_ONCE", 1)
    assert run(conn_id)["left"] == 1
    assert "1 more records are left for the next run" in caplog.text


def test_a_record_that_can_t_be_deleted_does_not_stop_the_others(
    conn_id: str, record: ScriptedRay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ours = {"airflow_deployment": derived_deployment()}
    record.add_job("a b/c", "FAILED", end_time=1, metadata=ours)
    record.script("DELETE", "/api/jobs/ours-9", answers.text(500, "RuntimeError: damaged"))
    result = run(conn_id)
    assert (result["deleted"], result["refused"]) == ({"SUCCEEDED": 1}, 2)
    assert "1 old records can't be deleted: Ray can't find jobs with their ids" in caplog.text
    assert "Not deleted: ours-9: " in caplog.text
    assert "Refused: 1 records were not deleted" in caplog.text


def test_what_was_deleted_before_a_refusal_is_told(
    conn_id: str, record: ScriptedRay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    record.script("DELETE", "/api/jobs/ours-8", answers.text(403, "not allowed"))
    with pytest.raises(AirflowFailException, match="403"):
        run(conn_id)
    assert "Deleted: 1 FAILED" in caplog.text


@pytest.mark.parametrize("wrong", [{"older_than": 5}, {"keep": -1}, {"statuses": ["PENDING"]}])
def test_a_wrong_argument_is_an_error_in_the_dag(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RayPruneJobsOperator(task_id="prune", **wrong)

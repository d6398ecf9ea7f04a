"""The types that hooks hand out: each field that a cluster sends is checked."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from airflow_provider_rayjobs.jobs import LONGEST_MESSAGE, LONGEST_NAME, LONGEST_STATUS, JobDetails, JobStatus


def test_an_unknown_status_keeps_its_text_and_is_not_terminal() -> None:
    first, second = JobStatus("SUSPENDED"), JobStatus("SUSPENDED")
    assert (str(first), first.is_terminal, first.is_known, first == second) == ("SUSPENDED", False, False, True)
    assert JobStatus.FAILED.is_known
    assert [status.value for status in JobStatus] == ["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]


def test_only_three_statuses_are_terminal() -> None:
    assert {status for status in JobStatus if status.is_terminal} == {"STOPPED", "SUCCEEDED", "FAILED"}


def test_details_drop_unknown_fields_and_take_none_for_absent() -> None:
    job = JobDetails.from_json({"type": "SUBMISSION", "status": "RUNNING", "metadata": None, "of_a_later_ray": 1})
    assert (job.status, dict(job.metadata), job.message) == (JobStatus.RUNNING, {}, None)


@pytest.mark.parametrize(
    "status", ["", "RUN\nNING", "\x1b[31mRUNNING", "\0", "X" * (LONGEST_STATUS + 1), "L\xc4UFT", "\ud800"]
)
def test_a_status_is_a_short_text_that_can_be_shown(status: str) -> None:
    with pytest.raises(ValueError, match="is not a valid JobStatus"):
        JobStatus(status)
    with pytest.raises(ValueError, match="a job whose status is not a string of 1 to 64 printable ASCII characters"):
        JobDetails.from_json({"type": "SUBMISSION", "status": status})
    longest = "X" * LONGEST_STATUS
    assert JobDetails.from_json({"type": "SUBMISSION", "status": longest}).status == longest


def test_a_message_and_the_type_of_an_error_are_cut_to_their_longest() -> None:
    def details(message: str, error_type: str = "E") -> JobDetails:
        return JobDetails.from_json(
            {"type": "SUBMISSION", "status": "FAILED", "message": message, "error_type": error_type}
        )

    whole = "m" * LONGEST_MESSAGE
    assert details(whole).message == whole
    message = details("first line\n" + "m" * 2**20 + "\nlast line").message or ""
    assert message.startswith("first line\nmmm")
    assert message.endswith("mmm\nlast line")
    assert message.count("\n… (cut) …\n") == 1
    assert len(message) - len("\n… (cut) …\n") == LONGEST_MESSAGE
    assert details("", "E" * (LONGEST_NAME + 1)).error_type == "E" * LONGEST_NAME


def test_no_text_of_a_job_holds_what_can_not_be_stored() -> None:
    nasty, safe = "a\0b\ud800", r"a\x00b\ud800"
    texts = (
        *("type", "submission_id", "job_id", "entrypoint", "message", "error_type"),
        *("driver_agent_http_address", "driver_node_id"),
    )
    objects = {"runtime_env": {nasty: [nasty, {"k": {nasty: nasty}}]}, "driver_info": {nasty: {"id": nasty}}}
    given = {**dict.fromkeys(texts, nasty), **objects, "metadata": {nasty: nasty}, "status": "FAILED"}
    job = JobDetails.from_json(json.loads(json.dumps(given)))
    assert {name: getattr(job, name) for name in texts} == dict.fromkeys(texts, safe)
    assert job.metadata == {safe: safe}
    assert job.runtime_env == {safe: [safe, {"k": {safe: safe}}]}
    assert job.driver_info == {safe: {"id": safe}}
    assert set(given) == {one.name for one in fields(JobDetails)} - {"start_time", "end_time", "driver_exit_code"}

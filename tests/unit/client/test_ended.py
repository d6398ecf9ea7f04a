"""Which entries of a list are jobs that have ended, and whose they are."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_rayjobs.client.ended import ENDED, LONGEST_ID, EndedJob, deployment_of, ended_job

END = 1_700_000_000_000
ENTRY = {"type": "SUBMISSION", "submission_id": "a", "status": "SUCCEEDED", "end_time": END}


@pytest.mark.parametrize("status", ENDED)
def test_a_job_that_has_ended_is_one(status: str) -> None:
    assert ended_job({**ENTRY, "status": status}) == EndedJob(END, "a", status)


@pytest.mark.parametrize(
    "fields",
    [
        *({"status": "RUNNING"}, {"status": "PENDING"}, {"status": "RESTARTING"}, {"status": ["FAILED"]}),
        *({"status": None}, {"submission_id": None}, {"submission_id": ""}, {"submission_id": 5}),
        {"submission_id": "a" * (LONGEST_ID + 1)},
        *({"end_time": None}, {"end_time": 0}, {"end_time": True}, {"end_time": "1"}, {"end_time": 10**15}),
    ],
)
def test_other_entries_are_none(fields: dict[str, Any]) -> None:
    assert ended_job({**ENTRY, **fields}) is None
    assert ended_job({}) is None


@pytest.mark.parametrize(
    ("metadata", "name"),
    [({"airflow_deployment": "x"}, "x"), ({"airflow_deployment": 1}, None), ({}, None), (None, None), ([1], None)],
)
def test_the_metadata_name_the_deployment(metadata: Any, name: str | None) -> None:
    assert deployment_of({"metadata": metadata}) == name

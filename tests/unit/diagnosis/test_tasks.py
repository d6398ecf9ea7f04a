"""How far a job is: its tasks by state and function, as one line."""

from __future__ import annotations

import pytest

from airflow_provider_rayjobs.diagnosis.tasks import JobTasks, TaskCounts, job_tasks, progress_line
from tests.support.flows import outcome
from tests.support.state_answers import counted


def tasks_of(functions: dict[str, dict[str, int]]) -> JobTasks:
    found = outcome(job_tasks("02000000"), counted(functions))
    assert isinstance(found, JobTasks)
    return found


def test_the_largest_three_functions_are_named() -> None:
    found = tasks_of(
        {
            "square": {"FINISHED": 8000},
            "slow": {"FINISHED": 130, "RUNNING": 6, "PENDING_NODE_ASSIGNMENT": 1862, "FAILED": 2},
            "load": {"FINISHED": 9},
            "rare": {"FINISHED": 1},
        }
    )
    assert found.counts == TaskCounts(total=10010, done=8140, running=6, failed=2)
    assert progress_line(found) == (
        "Ray tasks: 8,140 of at least 10,010 done, 6 running, 2 failed "
        "(square 8,000 of 8,000; slow 130 of 2,000; load 9 of 9)"
    )


def test_a_task_that_waits_for_others_runs() -> None:
    found = tasks_of({"a": {"RUNNING": 1, "RUNNING_IN_RAY_GET": 1, "RUNNING_IN_RAY_WAIT": 1, "NIL": 1}})
    assert progress_line(found) == "Ray tasks: 0 of 4 done, 3 running (a 0 of 4)"


def test_a_job_without_tasks_has_no_progress() -> None:
    assert outcome(job_tasks("02000000"), counted({})) is None


@pytest.mark.parametrize("body", [b"<html>", b"{}"])
def test_what_can_not_be_counted_is_no_error(body: bytes) -> None:
    assert outcome(job_tasks("02000000"), body) is None


def test_a_functions_name_is_one_short_line_without_secrets() -> None:
    line = progress_line(
        tasks_of({"pass-hunter2\n" + "x" * 100: {"FINISHED": 1}}), lambda t: t.replace("hunter2", "***")
    )
    assert line == f"Ray tasks: 1 of 1 done, 0 running (pass-*** {'x' * 31} 1 of 1)"

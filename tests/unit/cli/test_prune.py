"""The command that deletes the records of old jobs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.client import pruning
from airflow_provider_rayjobs.compat.connections import derived_deployment

if TYPE_CHECKING:
    from tests.support.command_line import Run
    from tests.support.scripted_server import ScriptedRay


@pytest.fixture
def record(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> ScriptedRay:
    """Jobs that ended some days ago; deleting makes no pauses."""
    monkeypatch.setattr(pruning, "LONGEST_PAUSE", 0.0)
    ours = {"airflow_deployment": derived_deployment()}
    for days, status in ((1, "SUCCEEDED"), (8, "SUCCEEDED"), (9, "FAILED"), (10, "STOPPED")):
        end = int((time.time() - days * 86_400) * 1000)
        scripted_ray.add_job(f"ours-{days}", status, end_time=end, metadata=ours)
        scripted_ray.add_job(f"theirs-{days}", status, end_time=end, metadata={})
    return scripted_ray


@pytest.mark.parametrize(
    ("args", "gone"),
    [
        ([], {"ours-8", "ours-9", "ours-10"}),
        (["--older-than", "12h"], {"ours-1", "ours-8", "ours-9", "ours-10"}),
        (["--keep", "3"], {"ours-10"}),
        (["--status", "failed", "--status", "STOPPED"], {"ours-9", "ours-10"}),
        (["--all", "--status", "FAILED"], {"ours-9", "theirs-9"}),
    ],
)
def test_the_wanted_records_are_deleted(run: Run, record: ScriptedRay, args: list[str], gone: set[str]) -> None:
    before = set(record.jobs)
    done = run("prune", *args)
    assert (done.code, done.out) == (0, "")
    assert before - set(record.jobs) == gone
    assert f"{len(gone)} of 8 jobs on record to delete: " in done.err
    assert "Deleted: 1 " in done.err or "Deleted: 2 " in done.err


def test_a_dry_run_prints_what_would_go(run: Run, record: ScriptedRay) -> None:
    done = run("prune", "--dry-run")
    assert done.code == 0
    assert [line.split()[3:] for line in done.out.splitlines()] == [
        ["STOPPED", "ours-10"],
        ["FAILED", "ours-9"],
        ["SUCCEEDED", "ours-8"],
    ]
    assert record.received_on("DELETE") == []
    assert "Deleted" not in done.err


def test_what_is_left_is_told(run: Run, record: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "MOST_AT_ONCE", 1)
    assert "2 more records are left; run the command again" in run("prune").err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--older-than", "7"], "must be a number of minutes, hours or days"),
        (["--older-than", "30m"], "older_than must be at least 3600 s"),
        (["--keep", "-1"], "must be an integer of at least 0"),
        (["--keep", "x"], "must be an integer of at least 0"),
        (["--status", "RUNNING"], "RUNNING"),
    ],
)
def test_a_wrong_option_is_told(run: Run, scripted_ray: ScriptedRay, args: list[str], said: str) -> None:
    done = run("prune", *args)
    assert done.code == 2
    assert said in done.err
    assert scripted_ray.received == []

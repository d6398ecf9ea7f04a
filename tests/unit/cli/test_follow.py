"""Logs on stdout: as far as they are there, or until the job ends, and the exit codes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import answers
from tests.support.command_line import Done, finish, start

if TYPE_CHECKING:
    from tests.support.command_line import Run
    from tests.support.scripted_server import ScriptedRay


def test_logs_are_written_as_they_are(run: Run, scripted_ray: ScriptedRay) -> None:
    job = scripted_ray.add_job("a", "RUNNING", runtime_env={"env_vars": {"MY_TOKEN": "t0ken-value"}})
    job.log = ["grüße \ud83d\ude00\n", "it is t0ken", "-value\n", "\x1b[31mred\x1b[0m\nno end"]
    done = run("logs", "a")
    assert done == Done(0, "grüße 😀\nit is ***\n\x1b[31mred\x1b[0m\nno end\n", "")


@pytest.mark.parametrize(
    ("status", "fields", "code", "said"),
    [
        ("SUCCEEDED", {}, 0, ""),
        ("FAILED", {"driver_exit_code": 3}, 1, "Ray job a ended FAILED with exit code 3\n"),
        ("FAILED", {"driver_exit_code": None, "message": "no\nenv"}, 1, "Ray job a ended FAILED: no env\n"),
        ("STOPPED", {}, 1, "Ray job a ended STOPPED: Job was intentionally stopped.\n"),
    ],
)
def test_following_ends_as_the_job_ends(
    run: Run, scripted_ray: ScriptedRay, status: str, fields: dict[str, object], code: int, said: str
) -> None:
    scripted_ray.add_job("a", status, **fields).log = ["one\n", "two\n"]
    done = run("logs", "--follow", "a")
    assert (done.code, done.out) == (code, "one\ntwo\n")
    assert done.err.endswith(said)


def test_submit_follows_to_the_end(run: Run, scripted_ray: ScriptedRay) -> None:
    scripted_ray.new_job_reads = ("RUNNING", "SUCCEEDED")
    scripted_ray.new_job_log = ("one\n",)
    done = run("submit", "--follow", "--submission-id", "a", "--", "x")
    assert (done.code, done.out) == (0, "one\n")
    assert f"Submitted Ray job a: {scripted_ray.url}/#/jobs/a" in done.err


@pytest.mark.parametrize(("looks", "where"), [(1, ""), (2, "; its process may still run on node 127.0.0.1")])
def test_a_job_that_vanishes_is_said_to_be_gone(run: Run, scripted_ray: ScriptedRay, looks: int, where: str) -> None:
    scripted_ray.add_job("a")
    before = [answers.default()] * looks  # the second is the first of the one who follows the job
    scripted_ray.script("GET", "/api/jobs/a", *before, answers.not_found("a"), forever=True)
    done = run("logs", "--follow", "a")
    assert (done.code, done.out) == (4, "")
    assert done.err.endswith(
        f"Ray job a no longer exists: the cluster's head restarted, or the job was deleted{where}\n"
    )


def test_losing_the_cluster_while_following_says_nothing_of_the_job(
    run: Run, scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"unreachable_timeout": 1}
    monkeypatch.setenv(
        "AIRFLOW_CONN_RAY_X", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url, "extra": extra})
    )
    scripted_ray.add_job("a")
    scripted_ray.script("GET", "/api/jobs/a", answers.default(), answers.text(502, ""), forever=True)
    done = run("logs", "--follow", "a")
    assert done.code == 3
    assert "Lost contact with Ray job a, which may still run: " in done.err.splitlines()[-1]


@pytest.mark.parametrize("follow", [[], ["--follow"]], ids=["read", "followed"])
def test_a_log_that_cannot_be_written_is_no_success(follow: list[str], scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "SUCCEEDED").log = ["one\n", "two\n"]
    with Path("/dev/full").open("w") as full:
        done = finish(start(scripted_ray.url, "logs", *follow, "a", stdout=full))
    assert done.code == 1
    assert "No space left on device" in done.err


def test_ctrl_c_leaves_the_job_running(scripted_ray: ScriptedRay) -> None:
    scripted_ray.new_job_timeline = ((0, "RUNNING"),)
    scripted_ray.new_job_log = ("first\n",)
    process = start(scripted_ray.url, "submit", "--follow", "--submission-id", "a", "--", "x")
    assert process.stdout is not None
    assert process.stdout.readline() == "first\n"
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert (done.code, done.out) == (130, "")
    assert done.err.splitlines()[-1] == (
        "Ray job a was not stopped. To follow it again: python -m airflow_provider_rayjobs logs --follow a --conn-id "
        "ray_x; to stop it: python -m airflow_provider_rayjobs stop a --conn-id ray_x"
    )
    assert "Traceback" not in done.err
    assert scripted_ray.received_on("POST", ".*/stop") == []

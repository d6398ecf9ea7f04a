"""Logs and statuses on stdout: as far as they are there, or until the job ends, and the exit codes."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import answers
from tests.support.command_line import Done, finish, start
from tests.support.state_answers import failed_task, listed

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


def changes(out: str) -> list[str]:
    """Return the lines of ``status --watch`` without their times."""
    return [line.partition(" UTC  ")[2] for line in out.splitlines()]


def test_watching_writes_a_line_for_each_change(run: Run, scripted_ray: ScriptedRay) -> None:
    usage = {"data": {"clusterStatus": {"loadMetricsReport": {"usageByNode": {"ab": {"GPU": [1.0, 1.0]}}}}}}
    scripted_ray.script("GET", "/api/cluster_status", answers.as_json(usage), forever=True)
    job = scripted_ray.add_job("a", "PENDING", metadata={"airflow_resources": '{"GPU": 1}'}, message="")
    # The first two requests are those of the command and of the reason.
    job.reads.extend(["PENDING", "PENDING", "RUNNING", "RUNNING", "SUCCEEDED"])
    done = run("status", "--watch", "a")
    assert (done.code, done.err) == (0, "")
    first, second, last = changes(done.out)
    assert first == "PENDING    needs 1 GPU on one node, free are 0 GPU of 1 GPU"
    assert second == "RUNNING"
    assert last.startswith("SUCCEEDED  after ")


def test_watching_says_when_the_reason_of_pending_changes(
    run: Run, scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_rayjobs.diagnosis.pending.EXPLAIN_AFTER", (0.1,))
    job = scripted_ray.add_job("a", "PENDING", message="no worker")
    said = [{**job.fields, "message": message} for message in ("no node", "no node", "no node", "")]
    scripted_ray.script("GET", "/api/jobs/a", *map(answers.as_json, said))
    timer = threading.Timer(3, job.become, ("STOPPED",))
    timer.start()
    done = run("status", "--watch", "a")
    timer.join()
    assert done.code == 1
    lines = changes(done.out)
    assert lines[:2] == ["PENDING    Ray: no node", "PENDING    Ray: no worker"]
    assert (len(lines), lines[-1][:10]) == (3, "STOPPED   ")
    assert done.err == "Ray job a ended STOPPED: Job was intentionally stopped.\n"


@pytest.mark.parametrize(
    ("status", "fields", "code", "said"),
    [
        ("SUCCEEDED", {}, 0, ""),
        (
            "FAILED",
            {"driver_exit_code": 3, "message": "failed"},
            1,
            "Ray job a ended FAILED with exit code 3\nRay: failed\n",
        ),
        (
            "FAILED",
            {
                "driver_exit_code": None,
                "message": "no\nt0ken-value",
                "runtime_env": {"env_vars": {"T_TOKEN": "t0ken-value"}},
            },
            1,
            "Ray job a ended FAILED: no … ***\n",
        ),
    ],
)
def test_watching_ends_as_the_job_ends(
    run: Run, scripted_ray: ScriptedRay, status: str, fields: dict[str, object], code: int, said: str
) -> None:
    times = {"start_time": 1_700_000_000_000, "end_time": 1_700_000_133_400}
    scripted_ray.add_job("a", status, **times, **fields)
    done = run("status", "--watch", "a")
    assert (done.code, changes(done.out), done.err) == (code, [f"{status:9}  after 2m13s"], said)


def test_watching_tells_why_the_job_failed(run: Run, scripted_ray: ScriptedRay) -> None:
    said = "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\n"
    traceback = "".join(f"line {number}\n" for number in range(100)) + "ValueError: t0ken-value \x1b[2J\n"
    secret = {"env_vars": {"T_TOKEN": "t0ken-value"}}
    scripted_ray.add_job(
        "a", "FAILED", driver_exit_code=1, job_id="02000000", message=said + traceback, runtime_env=secret
    )
    row = failed_task("OUT_OF_MEMORY", "7 of 8 GB")
    scripted_ray.script("GET", "/api/v0/tasks[?].*", answers.Answer(body=listed(row)), forever=True)
    assert run("status", "--watch", "a").err.splitlines() == [
        "Ray job a ended FAILED with exit code 1",
        "1 Ray task failed (a retry counts again):",
        "  1 out of memory in train: 7 of 8 GB",
        r"Ray: Job entrypoint command failed with exit code 1 … ValueError: *** \x1b[2J",
    ]


def test_a_watched_job_that_vanishes_is_said_to_be_gone(run: Run, scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a")
    scripted_ray.script("GET", "/api/jobs/a", answers.default(), answers.not_found("a"), forever=True)
    done = run("status", "--watch", "a")
    assert (done.code, changes(done.out)) == (4, ["RUNNING"])
    assert done.err.startswith("Ray job a no longer exists: ")


def test_losing_the_cluster_while_watching_says_nothing_of_the_job(
    run: Run, scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {"conn_type": "ray_jobs", "host": scripted_ray.url, "extra": {"unreachable_timeout": 1}}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(connection))
    scripted_ray.add_job("a")
    scripted_ray.script("GET", "/api/jobs/a", answers.default(), answers.text(502, ""), forever=True)
    done = run("status", "--watch", "a")
    assert (done.code, changes(done.out)) == (3, ["RUNNING"])
    assert "Lost contact with Ray job a, which may still run: " in done.err.splitlines()[-1]


def test_watching_writes_no_json(run: Run, scripted_ray: ScriptedRay) -> None:
    done = run("status", "--watch", "-o", "json", "a")
    assert done == Done(2, "", "--watch prints lines of text; it can't be used with --output json\n")
    assert scripted_ray.received == []


@pytest.mark.parametrize("follow", [[], ["--follow"]], ids=["read", "followed"])
def test_a_log_that_cannot_be_written_is_no_success(follow: list[str], scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "SUCCEEDED").log = ["one\n", "two\n"]
    with Path("/dev/full").open("w") as full:
        done = finish(start(scripted_ray.url, "logs", *follow, "a", stdout=full))
    assert done.code == 1
    assert "No space left on device" in done.err


def test_ctrl_c_ends_a_watch_and_leaves_the_job_running(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a")
    process = start(scripted_ray.url, "status", "--watch", "a")
    assert process.stdout is not None
    assert process.stdout.readline().endswith(" UTC  RUNNING\n")
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert (done.code, done.out) == (130, "")
    assert done.err == (
        "Ray job a was not stopped. To follow it again: python -m airflow_provider_rayjobs status --watch a --conn-id "
        "ray_x; to stop it: python -m airflow_provider_rayjobs stop a --conn-id ray_x\n"
    )
    assert scripted_ray.received_on("POST", ".*/stop") == []


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


def test_a_failure_is_explained_by_the_jobs_ray_tasks(run: Run, scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "FAILED", driver_exit_code=1, job_id="02000000").log = ["one\n"]
    row = failed_task("OUT_OF_MEMORY", "7 of 8 GB\x1b[2J")
    scripted_ray.script("GET", "/api/v0/tasks[?].*", answers.Answer(body=listed(row)), forever=True)
    assert run("logs", "--follow", "a").err.splitlines()[-3:] == [
        "Ray job a ended FAILED with exit code 1",
        "1 Ray task failed (a retry counts again):",
        r"  1 out of memory in train: 7 of 8 GB\x1b[2J",
    ]

"""Each command on a real head, as a process: its output and its exit code."""

from __future__ import annotations

import json
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command_line import MODULE, Done, call, environment, finish, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.ray_head import RayHead

# On Python 3.14, `airflow` prints warnings about itself on stdout.
AIRFLOW = (sys.executable, "-W", "ignore", str(Path(sys.executable).parent / "airflow"), "ray-jobs")
KNOWN_TO_AIRFLOW = tuple(map(int, version("apache-airflow").split(".")[:2])) >= (3, 2)


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(tmp_path_factory.mktemp("home")))
        # Without it, Airflow 2.11 prints a warning in every process that imports it.
        patch.setenv("AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY", "True")
        yield


@pytest.mark.timeout(600)
def test_a_job_from_submission_to_deletion(ray_head: RayHead, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/job.py").write_text("import os, sys\nprint(os.environ['MY_TOKEN'], sys.argv[1:])\nsys.exit(3)\n")
    env = json.dumps({"env_vars": {"MY_TOKEN": "t0ken-value"}})
    options = ["--submission-id", "cli-failed", "--working-dir", str(tmp_path / "code"), "--runtime-env-json", env]
    # `airflow ray-jobs`, if this Airflow version supports it.
    program = AIRFLOW if KNOWN_TO_AIRFLOW else MODULE
    failed = call(ray_head, "submit", "--follow", *options, "--", "python", "job.py", "a b", "--c", program=program)
    assert failed.code == 1, failed
    assert "*** ['a b', '--c']" in failed.out.splitlines()  # Ray's own lines may come before or after
    assert failed.err.splitlines()[-1] == "Ray job cli-failed ended FAILED with exit code 3"

    submitted = call(ray_head, "submit", "--submission-id", "cli-sleeps", "--", "echo begun; sleep 1000")
    assert submitted == Done(0, "cli-sleeps\n", "")
    ray_head.wait_job("cli-sleeps", until={"RUNNING"})
    followed = start(ray_head, "logs", "--follow", "cli-sleeps")
    assert followed.stdout is not None
    assert "begun\n" in iter(followed.stdout.readline, "")
    followed.send_signal(signal.SIGINT)
    interrupted = finish(followed)
    assert interrupted.code == 130
    assert "Traceback" not in interrupted.err
    assert interrupted.err.splitlines()[-1].startswith("Ray job cli-sleeps was not stopped. To follow it again: ")

    listed = call(ray_head, "list", "-o", "json", "--status", "RUNNING", "--status", "FAILED")
    found = {job["submission_id"]: job["status"] for job in json.loads(listed.out)}
    assert (listed.code, found["cli-sleeps"], found["cli-failed"]) == (0, "RUNNING", "FAILED")
    shown = call(ray_head, "status", "cli-failed", "-o", "json")
    (details,) = json.loads(shown.out)
    assert (shown.code, details["status"], details["driver_exit_code"]) == (0, "FAILED", 3)
    assert details["runtime_env"]["env_vars"] == {"MY_TOKEN": "***"}
    assert "t0ken" not in shown.out
    live = call(ray_head, "delete", "cli-sleeps")
    assert (live.code, live.out) == (1, "")
    assert live.err.startswith("Ray job cli-sleeps is RUNNING, and only a job that has ended can be deleted; ")
    text = call(ray_head, "list", "--status", "FAILED", "--status", "RUNNING").out.splitlines()
    failed_line = text.index("  cli-failed")
    assert [text[failed_line - 1].partition(" ")[0], text[failed_line + 1]] == [
        "FAILED",
        "  Job entrypoint command failed with exit code 3",
    ]
    watching = start(ray_head, "status", "--watch", "cli-sleeps")
    assert watching.stdout is not None
    assert watching.stdout.readline().endswith(" UTC  RUNNING\n")
    asked = call(ray_head, "stop", "--no-wait", "cli-sleeps")
    assert (asked.code, asked.out) == (0, "")
    watched = finish(watching)
    assert (watched.code, watched.out.splitlines()[-1].split()[3:5]) == (1, ["STOPPED", "after"])
    assert watched.err == "Ray job cli-sleeps ended STOPPED: Job was intentionally stopped.\n"
    assert call(ray_head, "stop", "cli-sleeps") == Done(0, "STOPPED\n", "")
    written = call(ray_head, "logs", "cli-sleeps")
    assert (written.code, written.err) == (0, "")
    assert "begun\n" in written.out
    assert call(ray_head, "delete", "cli-sleeps") == Done(0, "", "Deleted Ray job cli-sleeps\n")
    assert ray_head.job("cli-sleeps") is None
    assert call(ray_head, "status", "cli-sleeps").code == 4


@pytest.mark.timeout(600)
def test_a_pending_job_is_watched_until_it_ends(ray_head: RayHead) -> None:
    all_cpus = {"entrypoint_num_cpus": ray_head.num_cpus}
    ray_head.submit("sleep 1000", submission_id="cli-has-all", **all_cpus)
    ray_head.wait_job("cli-has-all", until={"RUNNING"})
    call(ray_head, "submit", "--submission-id", "cli-waits", "--entrypoint-num-cpus", "1", "--", "sleep 5")
    watching, interrupted = (start(ray_head, "status", "--watch", "cli-waits") for _ in range(2))
    for process in (watching, interrupted):
        assert process.stdout is not None
        assert " UTC  PENDING    needs 1 CPU on one node" in process.stdout.readline()
    interrupted.send_signal(signal.SIGINT)
    done = finish(interrupted)
    assert (done.code, done.out) == (130, "")
    assert done.err.startswith("Ray job cli-waits was not stopped. To follow it again: ")
    assert call(ray_head, "stop", "cli-has-all").code == 0
    done = finish(watching)
    statuses = [line.split()[3] for line in done.out.splitlines() if " PENDING " not in line]
    assert (done.code, statuses, done.err) == (0, ["RUNNING", "SUCCEEDED"], "")


@pytest.mark.skipif(not KNOWN_TO_AIRFLOW, reason="Airflow supports commands of providers from 3.2 on")
@pytest.mark.timeout(600)
def test_both_ways_do_the_same(ray_head: RayHead) -> None:
    ray_head.submit("true", submission_id="cli-twice")
    ray_head.wait_job("cli-twice")
    for verb, *args in (
        ["status", "cli-twice", "-o", "yaml"],
        ["list", "--status", "x"],
        ["list", "--bogus"],
        ["logs", "--follow", "no-such"],
        ["submit", "--help"],
    ):
        results = []
        for program, name in ((None, "python -m airflow_provider_rayjobs"), (AIRFLOW, "airflow ray-jobs")):
            process = start(ray_head, verb, *args, program=program, env=environment(ray_head, COLUMNS="300"))
            done = finish(process)
            # The indentation of the usage depends on the length of the name.
            texts = (" ".join(text.replace(name, "NAME").split()) for text in (done.out, done.err))
            results.append(Done(done.code, *texts))
        assert results[0] == results[1]

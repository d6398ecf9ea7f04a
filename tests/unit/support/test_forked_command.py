"""A command in a fork is what a started one is: its output, signals and exit codes, and its own environment."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command_line import ROOT, Done, call, environment, finish, start
from tests.support.forked_command import ForkedCommand

if TYPE_CHECKING:
    from tests.support.scripted_server import ScriptedRay


@pytest.fixture
def followed(scripted_ray: ScriptedRay) -> ForkedCommand:
    """A command that has written the first line of a log, and goes on."""
    scripted_ray.add_job("a", "RUNNING").log = ["begun\n"]
    process = start(scripted_ray.url, "logs", "--follow", "a")
    assert isinstance(process, ForkedCommand)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def test_output_and_exit_codes(scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    assert call(scripted_ray.url, "list") == Done(0, "", "No jobs found\n")
    with (tmp_path / "out").open("w") as out:
        process = start(scripted_ray.url, "list", "--limit", "0", stdout=out, stderr=out)
        assert finish(process) == Done(2, "", "")
    assert "must be a positive integer, not '0'" in (tmp_path / "out").read_text()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGKILL, -9)])
def test_signals(followed: ForkedCommand, signum: int, code: int) -> None:
    assert followed.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        followed.communicate(0.01)
    followed.send_signal(signum)
    assert followed.wait(60) == followed.poll() == followed.returncode == code
    followed.kill()  # is nothing to a process that has ended
    assert followed.returncode == code


def test_an_error_that_nobody_caught_is_a_traceback(tmp_path: Path) -> None:
    done = finish(start("", "list", cwd=str(tmp_path / "none")))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Traceback")
    assert f"FileNotFoundError: [Errno 2] No such file or directory: '{tmp_path}/none'" in done.err


def test_the_environment_and_the_folder_are_its_own(scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/a.py").touch()
    wrong = environment("", AIRFLOW_CONN_RAY_X=json.dumps({"conn_type": "ray_jobs", "extra": {"verfy": True}}))
    for env, code in ((environment(scripted_ray.url), 0), (wrong, 2)):
        arguments = ["submit", "--working-dir", "code", "--", "x"]
        assert finish(start("", *arguments, env=env, cwd=str(tmp_path))).code == code
    assert len(scripted_ray.packages) == 1


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_nothing_is_left_when_the_run_is_killed(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "RUNNING").log = ["begun\n"]
    program = (
        "import time; from tests.support.command_line import start\n"
        f"process = start({scripted_ray.url!r}, 'logs', '--follow', 'a')\n"
        "assert process.stdout.readline() == 'begun\\n'\n"
        "print(process.pid, flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        left = {pid, parent_of(pid)}
        run.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in left):
        assert time.monotonic() < deadline
        time.sleep(0.05)

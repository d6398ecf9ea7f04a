"""Results on stdout, words on stderr, and an exit code for each kind of error."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.cli.output import log
from tests.support.command_line import environment, finish, start

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command_line import Run
    from tests.support.scripted_server import ScriptedRay


@pytest.mark.parametrize("verb", ["status", "logs", "stop", "delete"])
def test_an_unknown_job_has_an_exit_code_of_its_own(run: Run, scripted_ray: ScriptedRay, verb: str) -> None:
    done = run(verb, "no-such")
    assert (done.code, done.out, done.err.count("\n")) == (4, "", 1)
    assert "no-such" in done.err


def test_a_token_that_is_missing_is_an_error(run: Run, scripted_ray: ScriptedRay) -> None:
    scripted_ray.token = "secret-token"
    done = run("list")
    assert (done.code, done.out) == (1, "")
    assert "this Ray cluster requires a token; connection 'ray_x' has none" in done.err
    assert done.err.count("\n") == 1


def test_an_unreachable_cluster_has_an_exit_code_of_its_own(run: Run, scripted_ray: ScriptedRay) -> None:
    scripted_ray.stop()
    done = run("status", "a")
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)


def test_a_wrong_connection_is_the_callers_mistake(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps({"conn_type": "ray_jobs", "extra": {"verfy": True}}))
    done = run("list")
    assert done.code == 2
    assert "field 'verfy'" in done.err


def test_what_others_print_is_no_result(scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(
        "import logging, os, sys\n"
        "def token():\n"
        "    print('by print')\n"
        "    os.write(1, b'by write')\n"
        "    logging.StreamHandler(sys.__stdout__).emit(logging.makeLogRecord({'msg': 'by a log'}))\n"
        "    return 'token'\n"
    )
    connection = {"conn_type": "ray_jobs", "host": scripted_ray.url, "extra": {"token_callable": "noisy.token"}}
    env = environment(scripted_ray.url, AIRFLOW__RAY_JOBS__ALLOWED_MODULES="noisy")
    env |= {"AIRFLOW_CONN_RAY_X": json.dumps(connection), "PYTHONPATH": f"{tmp_path}{os.pathsep}{env['PYTHONPATH']}"}
    done = finish(start(scripted_ray.url, "list", env=env))
    assert (done.code, done.out) == (0, "")
    assert all(noise in done.err for noise in ("by print", "by write", "by a log"))


def test_logging_is_as_before_afterwards(run: Run, scripted_ray: ScriptedRay) -> None:
    before = log.level, log.propagate, list(log.handlers)
    run("list")
    assert (log.level, log.propagate, list(log.handlers)) == before


@pytest.mark.parametrize(
    ("verb", "options"), [("logs", []), ("logs", ["--follow"]), ("list", []), ("list", ["-o", "plain"])]
)
def test_a_reader_that_has_gone_is_no_traceback(scripted_ray: ScriptedRay, verb: str, options: list[str]) -> None:
    scripted_ray.add_job("a").log = ["x" * 10_000 + "\n"] * 20
    for number in range(1000):
        scripted_ray.add_job(f"j{number:0200}")  # more than fits into a pipe, so that the reader is always waited for
    reader, writer = os.pipe()
    process = start(scripted_ray.url, verb, *(["a"] if verb == "logs" else []), *options, stdout=writer)
    os.close(writer)
    assert os.read(reader, 1)
    os.close(reader)
    done = finish(process)
    assert done.code == 141
    assert "Traceback" not in done.err
    assert "BrokenPipe" not in done.err


def read_terminal(terminal: int) -> str:
    text = b""
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # EIO: the other side has closed it
            data = b""
        if not data:
            os.close(terminal)
            return text.decode()
        text += data


def test_a_terminal_shows_how_far_an_upload_is(scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(os.urandom(21_000_000))
    mine, its = pty.openpty()
    env = environment(scripted_ray.url, TERM="xterm", COLUMNS="150")
    options = {"stderr": its, "stdout": subprocess.PIPE, "env": env}
    process = start(scripted_ray.url, "submit", "--working-dir", str(tmp_path), "--", "x", **options)
    os.close(its)
    shown = read_terminal(mine)
    done = finish(process)
    assert (done.code, len(done.out.split())) == (0, 1)
    assert f"Uploading {tmp_path}" in shown
    assert "/21.0 MB" in shown
    assert "%" not in shown.partition("Uploading")[2].partition("\n")[2]  # the lines that the bar replaces


def test_without_a_terminal_lines_tell_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(os.urandom(21_000_000))
    done = run("submit", "--working-dir", str(tmp_path), "--", "x")
    assert (done.code, len(done.out.split())) == (0, 1)
    assert [line.partition(" %")[0][-3:] for line in done.err.splitlines()[1:]] == [" 25", " 50", " 75", "100"]

"""The command that rewrites DAG files: it prints what would change, and writes only if asked to."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from airflow_provider_rayjobs import __main__
from tests.support.command_line import Done

OLD = """\
from ray_provider.operators import SubmitRayJob

job = SubmitRayJob(task_id="t", conn_id="ray_conn", entrypoint="x", runtime_env={}, xcom_task_key=KEY)
other = SubmitRayJob(task_id="o", conn_id="ray_conn", entrypoint="x", runtime_env={})
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = Path("dag.py")
    made.write_text(OLD)
    return made


def migrate(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str) -> Done:
    monkeypatch.setattr(sys, "argv", ["x", "migrate", *args])
    code: object = 0
    try:
        __main__.main()
    except SystemExit as e:
        code = e.code
    assert isinstance(code, int)
    return Done(code, *capfd.readouterr())


def test_by_default_nothing_is_written(
    file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = migrate(capfd, monkeypatch, "dag.py")
    assert file.read_text() == OLD
    assert done.out.startswith(
        "--- dag.py\n+++ dag.py\n@@ -1,4 +1,12 @@\n+from airflow_provider_rayjobs.operators import"
    )
    assert done.code == 1
    assert done.err.splitlines() == [
        "dag.py:3: to do: no SetupRayCluster of this file has the task_id of xcom_task_key=KEY",
        'dag.py:4: check: connection "ray_conn" must have the type ray_jobs',
    ]


def test_with_write_the_lines_are_those_of_the_new_file(
    file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = migrate(capfd, monkeypatch, "--write", "dag.py")
    assert done.out == "Rewrote dag.py\n"
    assert file.read_text().splitlines()[4].startswith("other = RaySubmitJobOperator(")
    assert [line.split(": ")[0] for line in done.err.splitlines()] == ["dag.py:4", "dag.py:5"]
    again = migrate(capfd, monkeypatch, "--write", "dag.py")
    assert (again.code, again.out) == (1, "")


def test_each_file_is_tried(file: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("broken.py").write_text("x = (\n")
    Path("fine.py").write_text("from ray_provider.operators import SubmitRayJob\nSubmitRayJob(conn_id='ray')\n")
    done = migrate(capfd, monkeypatch, "none.py", "broken.py", "fine.py")
    assert done.code == 1
    assert "RaySubmitJobOperator" in done.out
    assert "none.py: can't be read or written: No such file or directory\nbroken.py:1: is not valid Python" in done.err
    assert migrate(capfd, monkeypatch, "fine.py").code == 0


def test_wrong_usage_is_told(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    done = migrate(capfd, monkeypatch)
    assert done.code == 2
    assert "the following arguments are required: FILE" in done.err

"""What becomes of the processes of a test run that is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.airflow_records import wait
from tests.support.processes import session

REPO = Path(__file__).parents[3]

# Starts two sessions, one of which it has ended by itself, and waits to be killed.
SCRIPT = """
import pathlib, subprocess, sys, time
from tests.support import guard
watched = subprocess.Popen(["sh", "-c", "sleep 300 & sleep 300"], start_new_session=True)
forgotten = subprocess.Popen(["sleep", "5"], start_new_session=True)
guard.watch(watched.pid)
guard.watch(forgotten.pid)
guard.forget(forgotten.pid)
guard.remove(pathlib.Path(sys.argv[1]))
print(watched.pid, forgotten.pid, flush=True)
time.sleep(300)
"""


def test_killed_run_leaves_neither_processes_nor_folders(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    command = [sys.executable, "-c", SCRIPT, folder]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        watched, forgotten = map(int, run.stdout.readline().split())
        assert session(watched)
        run.kill()

    wait(lambda: not session(watched) and not folder.exists(), 20, lambda: f"left: {session(watched)}, {folder}")
    assert session(forgotten)

"""
Ends the processes of a test run that is killed, and so can't clean up.

    python -m tests.support.guard

reads lines: ``watch PID``, ``forget PID`` or ``remove FOLDER``. When its input is closed, it kills all processes in the
sessions that the watched processes lead, and removes the folders. The functions with these names start one guard for
this process if needed, and write to it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.processes import kill_all, session

_REPO = Path(__file__).resolve().parents[2]

_lock = threading.Lock()
_guards: dict[int, subprocess.Popen[str]] = {}  # by the pid that started it, because a fork needs its own


def watch(leader: int) -> None:
    """Kill a session when this process ends.

    :param leader: pid of the process that leads it.
    """
    _say(f"watch {leader}")


def forget(leader: int | None) -> None:
    """No longer watch a session: it has ended, and its number may be reused."""
    _say(f"forget {leader}")


def remove(folder: Path) -> None:
    """Remove a folder when this process has ended, if it still exists."""
    _say(f"remove {folder}")


@atexit.register
def _end() -> None:
    """End the guard of this process; Python warns of a process that is left."""
    guard = _guards.pop(os.getpid(), None)
    if guard is not None:
        guard.communicate()


def _say(line: str) -> None:
    with _lock:
        guard = _guards.get(os.getpid())
        if guard is None:
            guard = _guards[os.getpid()] = subprocess.Popen(
                [sys.executable, "-m", "tests.support.guard"],
                cwd=_REPO,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C is only for the test run
            )
        assert guard.stdin is not None
        print(line, file=guard.stdin, flush=True)


def _main() -> None:
    watched: set[int] = set()
    folders: list[str] = []
    for line in sys.stdin:
        word, _, what = line.rstrip("\n").partition(" ")
        if word == "remove":
            folders.append(what)
        else:
            (watched.add if word == "watch" else watched.discard)(int(what))
    kill_all(lambda: set().union(*map(session, watched)))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main()

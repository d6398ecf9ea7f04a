"""
Ends the processes of a test run that is itself killed, which runs no clean-up.

    python -m tests.support.guard

reads lines, ``watch PID``, ``forget PID`` or ``remove FOLDER``. When its input closes it kills what lives of the
sessions that these processes lead, and removes the folders. The functions of these names start such a guard for this
process, at need, and write to it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.processes import kill_all, session

_REPO = Path(__file__).resolve().parents[2]

_lock = threading.Lock()
_guards: dict[int, subprocess.Popen[str]] = {}  # by the process that has started it: a fork has none


def watch(leader: int) -> None:
    """Have a session ended when this process is.

    :param leader: pid of the process that leads it.
    """
    _say(f"watch {leader}")


def forget(leader: int | None) -> None:
    """Leave a session alone: it has ended, and its number may be another's soon."""
    _say(f"forget {leader}")


def remove(folder: Path) -> None:
    """Have a folder removed, if it is still there, when this process has ended."""
    _say(f"remove {folder}")


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
                start_new_session=True,  # Ctrl-C is for the test run alone
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

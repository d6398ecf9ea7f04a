"""Finds and signals the processes that one process started, and no others (Linux only: reads ``/proc``)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Process:
    """A process, identified by its pid and start time, because pids are reused."""

    pid: int
    start_ticks: int

    def alive(self) -> bool:
        """Return whether it still runs; a zombie does not."""
        stat = _read_stat(self.pid)
        return stat is not None and stat.process == self and stat.state not in "ZX"

    def signal(self, signum: int) -> None:
        """Send a signal, unless it has ended."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, signum)


@dataclass(frozen=True)
class _Stat:
    process: Process
    state: str
    parent: int
    group: int
    session: int


def _read_stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, the name in parentheses, may contain blanks and parentheses.
    fields = text.rpartition(")")[2].split()
    return _Stat(Process(pid, int(fields[19])), fields[0], *map(int, fields[1:4]))


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def _all_stats() -> list[_Stat]:
    return [stat for entry in Path("/proc").iterdir() if entry.name.isdigit() and (stat := _read_stat(int(entry.name)))]


def session(leader: int) -> set[Process]:
    """Return the live processes of a session, even if its leader has ended."""
    return {stat.process for stat in _all_stats() if stat.session == leader and stat.state not in "ZX"}


def parent(process: Process) -> int:
    """Return the pid of a process' parent; 0 if it has ended."""
    stat = _read_stat(process.pid)
    return stat.parent if stat is not None and stat.process == process else 0


def family(root: int, mark: str) -> set[Process]:
    """Return the live processes that belong to ``root``.

    They are found in three ways, because each misses some: by their parents (misses those whose parent has ended), by
    the process group of ``root`` (misses those with their own session, such as drivers of Ray jobs), and by an
    inherited environment variable (misses those that overwrote their environment with a process title).

    :param root: pid of the first process, which leads its own process group.
    :param mark: a unique ``NAME=value`` in the environment of ``root``.
    """
    stats = _all_stats()
    found = {
        stat.process.pid
        for stat in stats
        if stat.process.pid == root or stat.group == root or _has_mark(stat.process.pid, mark.encode())
    }
    # This process is never a member; if it were found by mistake, it would kill itself.
    found.discard(os.getpid())
    grown = -1
    while grown != len(found):
        grown = len(found)
        found.update(stat.process.pid for stat in stats if stat.parent in found)
    return {stat.process for stat in stats if stat.process.pid in found and stat.state not in "ZX"}


def kill_all(find: Callable[[], set[Process]], timeout: float = 10.0) -> set[Process]:
    """Send SIGKILL to what ``find`` returns until it returns nothing, because dying processes may still fork.

    :param find: returns the live processes to kill.
    :param timeout: seconds until it gives up.
    :return: all processes that were killed.
    """
    killed: set[Process] = set()
    deadline = time.monotonic() + timeout
    while alive := find():
        for process in alive:
            process.signal(signal.SIGKILL)
        killed |= alive
        if time.monotonic() > deadline:
            raise TimeoutError(f"still alive after SIGKILL: {sorted(process.pid for process in alive)}")
        time.sleep(0.05)
    return killed


def wait_gone(processes: Iterable[Process], timeout: float) -> set[Process]:
    """Wait until all have ended; return those still alive after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    left = {process for process in processes if process.alive()}
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = {process for process in left if process.alive()}
    return left


def output_of(command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], timeout: float) -> str:
    """Run a program without input to its end.

    :param timeout: seconds.
    :return: its stdout.
    :raises RuntimeError: if it fails, with its output.
    """
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout

"""Child processes that end with the tool that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from console import ToolError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def start(command: list[str], *, env: dict[str, str], cwd: Path, stdout: Any) -> subprocess.Popen[str]:
    """Start a program in a process group of its own: Ctrl-C is for the tool, which then ends the program."""
    return subprocess.Popen(
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def end(process: subprocess.Popen[str], patience: float) -> None:
    """Ask a program that `start` started to end, then kill what is left of its group.

    :param patience: seconds between the two. Only the program itself is asked; its children are its business.
    """
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    kill_group(process)
    process.wait()


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a program that `start` started, and its children that stayed in its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def stream(command: list[str], *, env: dict[str, str], cwd: Path, timeout: float) -> Iterator[str]:
    """Run a program and yield the lines of its output as they come. Exhaust or close the iterator.

    :param timeout: seconds until the program is killed.
    :raises ToolError: when the program fails or takes too long.
    """
    name = f"`{os.path.basename(command[0])} {' '.join(command[1:])}`"  # noqa: PTH119 - a name, no path
    process = start(command, env=env, cwd=cwd, stdout=subprocess.PIPE)
    timed_out = threading.Event()

    def give_up() -> None:
        timed_out.set()
        kill_group(process)

    # This ends the output, and with it the loop below, also of a program that says nothing any more.
    watchdog = threading.Timer(timeout, give_up)
    watchdog.start()
    try:
        yield from process.stdout or ()
        code = process.wait()
    finally:
        watchdog.cancel()
        end(process, patience=10)
    if timed_out.is_set():
        raise ToolError(f"{name} did not end within {timeout:.0f} s.")
    if code:
        raise ToolError(f"{name} failed with exit code {code}.")

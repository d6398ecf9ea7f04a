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
    """Start a program in its own process group, so that Ctrl-C reaches only the tool, which then ends the program."""
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
    """Terminate a program that `start` started, then kill what is left of its process group.

    :param patience: seconds between the two. SIGTERM goes to the program only, which should end its children.
    """
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    kill_group(process)
    process.wait()


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a program that `start` started, and its children in the same process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def stream(command: list[str], *, env: dict[str, str], cwd: Path, timeout: float) -> Iterator[str]:
    """Run a program and yield the lines of its output as they arrive. The caller must exhaust or close the iterator.

    :param timeout: seconds until the program is killed.
    :raises ToolError: if the program fails or takes too long.
    """
    name = f"`{os.path.basename(command[0])} {' '.join(command[1:])}`"  # noqa: PTH119 - a name, no path
    process = start(command, env=env, cwd=cwd, stdout=subprocess.PIPE)
    timed_out = threading.Event()

    def give_up() -> None:
        timed_out.set()
        kill_group(process)

    # Killing the program ends its output, and so the loop below, even if it no longer prints anything.
    watchdog = threading.Timer(timeout, give_up)
    watchdog.start()
    try:
        yield from process.stdout or ()
        code = process.wait()
    finally:
        watchdog.cancel()
        end(process, patience=10)
    if timed_out.is_set():
        raise ToolError(f"{name} did not finish within {timeout:.0f} s.")
    if code:
        raise ToolError(f"{name} failed with exit code {code}.")

"""A command of the provider in a process that need not import Airflow: a fork of one that has."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from typing import IO, TextIO

ROOT = Path(__file__).parents[2]

#: What no module reads when it is imported: variables that begin so may differ among the forks of one process.
READ_AT_USE = ("AIRFLOW_CONN_", "COLUMNS", "PYTEST_CURRENT_TEST", "TERM")


class ForkedCommand:
    """Has what the tests use of :class:`subprocess.Popen`, with ``text=True``.

    The first command of an environment starts the process that this and later ones are forks of; it lives as long as
    this one. So what an import of Airflow writes does not come from the command: a test of that needs a true start.

    :param arguments: what follows ``python -m airflow_provider_rayjobs``.
    :param stdout: a file, its descriptor, or ``subprocess.PIPE``; ``stderr`` likewise.
    """

    def __init__(
        self, arguments: list[str], *, env: dict[str, str], stdout: int | IO[str], stderr: int | IO[str], cwd: str = "."
    ) -> None:
        self.args = arguments
        self.returncode: int | None = None
        fixed = frozenset((name, value) for name, value in env.items() if not name.startswith(READ_AT_USE))
        message = json.dumps([arguments, env, str(Path(cwd).absolute())]).encode()
        self._answers, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as handed_over:
            nothing = handed_over.enter_context(Path(os.devnull).open())
            handed_over.enter_context(its)
            self.stdout, out = _output(stdout, handed_over)
            self.stderr, err = _output(stderr, handed_over)
            socket.send_fds(_server(fixed), [message], [nothing.fileno(), out, err, its.fileno()])
        self.pid = self._next_answer()

    def _next_answer(self) -> int:
        answer = self._answers.recv(64)
        if not answer:
            raise RuntimeError("the process that commands are forks of has ended: see its stderr")
        return int(answer)

    def poll(self) -> int | None:
        """Return the exit code, or None while the command runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit code, which is negative if a signal ended the command."""
        if self.returncode is None:
            self._answers.settimeout(timeout)
            try:
                self.returncode = self._next_answer()
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._answers.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str | None, str | None]:
        """Read all that comes from the pipes, and wait for the end."""
        readers = [_Reader(stream) for stream in (self.stdout, self.stderr)]
        self.wait(timeout)
        out, err = (reader.text() for reader in readers)
        return out, err

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless the command has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ended in between
                os.kill(self.pid, signum)

    def kill(self) -> None:
        """End the command at once."""
        self.send_signal(signal.SIGKILL)


class _Reader:
    """Reads a stream to its end in a thread, as the other pipe must not fill up meanwhile."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._text: str | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        if self._stream:
            with self._stream:
                self._text = self._stream.read()

    def text(self) -> str | None:
        self._thread.join()
        return self._text


def _output(wanted: int | IO[str], handed_over: contextlib.ExitStack) -> tuple[TextIO | None, int]:
    """Return this side of an output, if it is a pipe, and the descriptor for the command."""
    if wanted != subprocess.PIPE:
        return None, wanted if isinstance(wanted, int) else wanted.fileno()
    mine, its = os.pipe()
    handed_over.callback(os.close, its)
    return os.fdopen(mine), its


@cache
def _server(env: frozenset[tuple[str, str]]) -> socket.socket:
    """Start a process that imports Airflow in this environment; return the socket that takes requests for forks."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        command = [sys.executable, "-m", "tests.support.fork_server"]
        process = subprocess.Popen(command, stdin=its, stdout=subprocess.DEVNULL, env=dict(env), cwd=ROOT)

    def end() -> None:
        mine.close()
        process.wait(10)

    atexit.register(end)
    return mine

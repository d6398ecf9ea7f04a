"""A command of the provider in a fork of a process that has already imported Airflow."""

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

#: Prefixes of variables that no module reads at its import, so they may differ between forks of one process.
READ_AT_USE = ("AIRFLOW_CONN_", "COLUMNS", "PYTEST_CURRENT_TEST", "TERM")


class ForkedCommand:
    """Has the part of :class:`subprocess.Popen`, with ``text=True``, that the tests use.

    The first command in an environment starts a server process, of which this and later commands are forks; it runs
    until this process ends. Output of the import of Airflow is therefore missing; a test of it needs a real start.

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
            raise RuntimeError("the server process that forks for commands has ended: see its stderr")
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
        """Read all output from the pipes, and wait for the end."""
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
    """Reads a stream to its end in a thread, so that the other pipe does not fill up."""

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
    """Return the readable end, if the output is a pipe, and the descriptor for the command."""
    if wanted != subprocess.PIPE:
        return None, wanted if isinstance(wanted, int) else wanted.fileno()
    mine, its = os.pipe()
    handed_over.callback(os.close, its)
    return os.fdopen(mine), its


@cache
def _server(env: frozenset[tuple[str, str]]) -> socket.socket:
    """Start a process that imports Airflow in this environment; return the socket for its requests."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        command = [sys.executable, "-m", "tests.support.fork_server"]
        process = subprocess.Popen(command, stdin=its, stdout=subprocess.DEVNULL, env=dict(env), cwd=ROOT)

    def end() -> None:
        mine.close()
        process.wait(10)

    atexit.register(end)
    return mine

"""A private Redis for tests and benchmarks, in which a Ray head stores its state."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.support import debian
from tests.support.ports import free_port
from tests.support.processes import Process, family, kill_all

HOST = "127.0.0.1"

_MARK = "RAYJOBS_TEST_REDIS"
# Debian's names: the second has the program, the first a link to it.
_PACKAGES = ("redis-server", "redis-tools", "libatomic1", "libjemalloc2", "liblzf1")


def find_redis() -> Path | None:
    """Return the ``redis-server`` for the tests; None if there is none yet."""
    named = os.environ.get("RAYJOBS_REDIS_BIN") or shutil.which("redis-server")
    path = Path(named) if named else debian.folder(_PACKAGES) / "usr" / "bin" / "redis-server"
    return path if path.is_file() else None


def require_redis() -> Path:
    """Return a ``redis-server``, downloaded if needed; if that fails, skip the test, or fail it in CI."""
    try:
        return find_redis() or debian.unpacked(_PACKAGES) / "usr" / "bin" / "redis-server"
    except (OSError, subprocess.SubprocessError) as e:
        reason = f"no redis-server: install it, or name it in RAYJOBS_REDIS_BIN ({e})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


class Redis:
    """One server on the loopback address, with its own port, password, files and processes.

    ``start`` after ``stop`` continues with the same data and port; after ``kill``, the newest data may be missing. The
    context manager starts it, and at the end stops it and removes its files.

    :param redis_bin: the ``redis-server`` program; default :func:`require_redis`.
    """

    def __init__(self, redis_bin: Path | None = None) -> None:
        self.redis_bin = redis_bin or require_redis()
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self.folder = Path(tempfile.mkdtemp(prefix="rjredis"))
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._mark = ""

    def __getstate__(self) -> dict[str, object]:
        # Another process can use a pickled copy to connect, but not to end the server.
        return self.__dict__ | {"_process": None, "_guard": None}

    def __enter__(self) -> Redis:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The pid of the server."""
        if self._process is None:
            raise RuntimeError("Redis is not started")
        return self._process.pid

    @property
    def address(self) -> str:
        """Host and port, for ``RAY_REDIS_ADDRESS``."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """The URL of the server, with its password."""
        return f"redis://:{self.password}@{self.address}/0"

    @property
    def log_path(self) -> Path:
        """The server's log file."""
        return self.folder / "redis.log"

    # Start and stop

    def start(self, timeout: float = 30.0) -> None:
        """Start the server and wait until it answers.

        :param timeout: seconds.
        :raises RuntimeError: if it ends or does not answer in time; the message has the end of its log.
        """
        if self._process is not None:
            raise RuntimeError("Redis is already started")
        self._mark = f"{_MARK}={secrets.token_hex(16)}"
        # Through stdin, because every user can read the arguments of a process.
        settings = f"bind {HOST}\nport {self.port}\nrequirepass {self.password}\ndir {self.folder}\n"
        settings += "appendonly yes\nappendfsync no\n"  # written data survives a crash of the server
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [self.redis_bin, "-"],
                cwd=self.folder,
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = self._start_guard()
        try:
            assert self._process.stdin is not None
            with self._process.stdin as stdin:
                stdin.write(settings.encode())
            self._wait_ready(timeout)
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout: float = 10.0) -> None:
        """Stop the server gracefully, or kill it after ``timeout`` seconds; keep the data."""
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """Crash: send SIGKILL; written data is kept."""
        if self._process is None:
            return
        self._disarm_guard()
        kill_all(self._family)
        self._process.wait(10)
        self._process = None

    def freeze(self) -> None:
        """Pause it: the kernel accepts connections, but the server does not answer."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a paused server."""
        os.kill(self.pid, signal.SIGCONT)

    # Internals

    def _environment(self) -> dict[str, str]:
        name, _, value = self._mark.partition("=")
        libraries = os.pathsep.join(str(folder) for folder in self.redis_bin.parents[1].glob("lib/*-linux-*"))
        own = {"LD_LIBRARY_PATH": libraries} if self.redis_bin.is_relative_to(debian.folder(_PACKAGES)) else {}
        return {"PATH": os.defpath, "LC_ALL": "C", name: value, **own}

    def _start_guard(self) -> subprocess.Popen[bytes]:
        # A killed test run can't clean up. The pipe is then closed, and this guard ends the server.
        return subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -KILL "$1"; rm -rf "$2"', "guard", str(self.pid), self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _disarm_guard(self) -> None:
        if self._guard is not None:
            self._guard.send_signal(signal.SIGKILL)
            self._guard.communicate()
            self._guard = None

    def _wait_ready(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._answers():
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Redis is not up:\n{self.log_path.read_text(errors='replace')[-4000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=5) as client:
            client.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
            with client.makefile("rb") as answer:
                return [answer.readline(), answer.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
        return False

    def _family(self) -> set[Process]:
        return family(self.pid, self._mark)

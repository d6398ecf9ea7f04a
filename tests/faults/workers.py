"""Starts tries of tasks as separate processes, and kills them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.names import DAG_FILE
from tests.support import airflow_processes
from tests.support.ports import free_port

if TYPE_CHECKING:
    from tests.support.databases import Database

_REPO = Path(__file__).resolve().parents[2]

#: Seconds after SIGTERM at which Airflow's supervisor sends SIGKILL to a task.
KILL_DELAY = 5.0

#: Seconds to wait for a process or a job: enough for a busy machine, and for the longest wait for a cluster.
PATIENCE = 200.0


class Process:
    """One process that runs a try, a trigger or a clear.

    It is a child of the server, which reaps it after it has reported its end to this object.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.status: int | None = None
        self._started = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()

    def note(self, message: dict[str, Any]) -> None:
        """Record a message of the server about this process."""
        with self._lock:
            self.pid = message["pid"]
            if "status" in message:
                self.status = message["status"]
                self._ended.set()
        self._started.set()

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._ended.is_set()

    def wait(self, timeout: float = PATIENCE) -> int:
        """Wait for its end; return its status, negative for a signal."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f"process {self.pid} has not ended after {timeout:.0f} s")
        assert self.status is not None
        return os.waitstatus_to_exitcode(self.status)

    def signal(self, signum: int) -> None:
        """Send a signal, unless it has ended."""
        if not self._started.wait(30):
            raise TimeoutError("the process did not start")
        # Its pid may be reused when the server has reaped it; the server reports its end before that.
        with self._lock:
            if not self._ended.is_set():
                try:
                    os.kill(self.pid, signum)
                except ProcessLookupError:
                    return

    def kill(self) -> None:
        """Send SIGKILL, and wait for its end."""
        self.signal(signal.SIGKILL)
        self.wait(30)

    def terminate(self) -> None:
        """End it like Airflow: SIGTERM, then SIGKILL if it takes too long. Does not wait."""
        self.signal(signal.SIGTERM)
        timer = threading.Timer(KILL_DELAY, self.signal, [signal.SIGKILL])
        timer.daemon = True
        timer.start()


class Workers:
    """The server of ``tests.faults.server``, with its own ``AIRFLOW_HOME``.

    :param home: an empty directory.
    :param database: an empty database.
    """

    def __init__(self, home: Path, database: Database) -> None:
        self.home = home
        self.database = database
        self._processes: dict[int, Process] = {}
        self._lock = threading.Lock()
        self._ready = threading.Event()
        (home / "dags").mkdir(parents=True)
        (home / "dags" / "faults.py").write_text(DAG_FILE)
        airflow_processes.write_home(home)
        environment = airflow_processes.clean_environment() | airflow_processes.settings(
            home, home / "dags", database, free_port(), parallelism=8
        )
        self._log = home / "server.log"
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.server"],
                cwd=_REPO,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, name="faults-server", daemon=True)
        self._reader.start()

    def wait_ready(self, timeout: float = 240.0) -> None:
        """Wait until it has imported Airflow and created the database."""
        if not self._ready.wait(timeout) or self._server.poll() is not None:
            raise RuntimeError(f"the server did not start:\n{self._log.read_text(errors='replace')[-4000:]}")

    def start(self, op: str, run_id: str, log: Path, env: dict[str, str], args: dict[str, Any]) -> Process:
        """Start a process.

        :param op: ``task``: the next try, or its end after a deferral; ``trigger``; ``clear``; ``lost``; ``forget``.
        :param log: file to which its output is appended.
        :param env: variables in addition to the server's.
        :param args: arguments of the operator.
        """
        process = Process()
        with self._lock:
            number = len(self._processes)
            self._processes[number] = process
            request = {"id": number, "op": op, "run_id": run_id, "log": str(log), "env": env, "args": args}
            assert self._server.stdin is not None
            self._server.stdin.write(json.dumps(request).encode() + b"\n")
            self._server.stdin.flush()
        return process

    def stop(self) -> None:
        """End the server and its processes."""
        if self._server.stdin is not None:
            self._server.stdin.close()
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._reader.join(5)
        if self._server.stdout is not None:
            self._server.stdout.close()

    def _read(self) -> None:
        assert self._server.stdout is not None
        for line in self._server.stdout:
            message = json.loads(line)
            if "ready" in message:
                self._ready.set()
                continue
            with self._lock:
                process = self._processes[message["id"]]
            process.note(message)
        self._ready.set()  # it has ended; who waits will see

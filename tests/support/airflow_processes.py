"""The processes of one Airflow on this machine: settings, start and stop.

This module has the differences between Airflow 2.11 and 3 in running them; ``airflow_env`` uses a running Airflow.
"""

from __future__ import annotations

import base64
import os
import secrets
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import environment, guard
from tests.support.airflow_records import tail
from tests.support.processes import Process, kill_all, parent, session, wait_gone

if TYPE_CHECKING:
    from tests.support.databases import Database

# Seconds. Short, so that Airflow soon notices a killed process; but a component that only waits for the CPU of a busy
# machine must not be considered dead.
TASK_HEARTBEAT_TIMEOUT = 10
COMPONENT_HEARTBEAT_TIMEOUT = 10

BIN = Path(sys.prefix) / "bin"
# The ``job`` table shows whether these are up; the API server is asked by a request.
JOB_TYPES = {
    "scheduler": "SchedulerJob",
    "dag-processor": "DagProcessorJob",
    "triggerer": "TriggererJob",
}


def airflow_version() -> tuple[int, int]:
    """Return (major, minor) of the Airflow installed here, without the cost of importing it."""
    major, minor = metadata.version("apache-airflow").split(".")[:2]
    return int(major), int(minor)


def migrated_as() -> str:
    """Return a name for the database that ``airflow db migrate`` creates here, with the settings below."""
    return f"airflow {metadata.version('apache-airflow')}"


def commands(port: int) -> dict[str, tuple[str, ...]]:
    """Return the commands of an Airflow of the installed version, by name.

    :param port: port of the API server.
    """
    airflow = f"{BIN}/airflow"
    named: dict[str, tuple[str, ...]] = {
        "scheduler": (airflow, "scheduler", "--skip-serve-logs"),
        "triggerer": (airflow, "triggerer", "--skip-serve-logs"),
    }
    if airflow_version() >= (3, 0):
        api_server: tuple[str, ...] = (airflow, "api-server")
        named["dag-processor"] = (airflow, "dag-processor")
    else:
        # ``airflow webserver`` would run and watch this command, and import Airflow once more.
        api_server = (
            *(sys.executable, "-m", "gunicorn", "--workers=1", "--timeout=120", f"--bind=127.0.0.1:{port}"),
            *("--config=python:airflow.www.gunicorn_config", "airflow.www.app:cached_app()"),
        )
    # It takes longest to start, so it comes first.
    return {"api-server": api_server, **named}


def settings(home: Path, dags_folder: Path, database: Database, port: int, parallelism: int) -> dict[str, str]:
    """Return the environment variables for an Airflow that uses ``home`` and reacts quickly.

    :param home: ``AIRFLOW_HOME``.
    :param dags_folder: the folder of the DAG files.
    :param database: its database.
    :param port: port of the API server.
    :param parallelism: how many tasks may run in parallel.
    """
    options = {
        "core.dags_folder": dags_folder,
        "core.dagbag_import_timeout": 120,
        "core.executor": "LocalExecutor",
        "core.fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "core.killed_task_cleanup_time": 5,
        "core.load_examples": False,
        "core.parallelism": parallelism,
        "scheduler.job_heartbeat_sec": 1,
        "scheduler.orphaned_tasks_check_interval": 5,
        "scheduler.scheduler_health_check_threshold": COMPONENT_HEARTBEAT_TIMEOUT,
        "scheduler.scheduler_heartbeat_sec": 1,
        "scheduler.scheduler_idle_sleep_time": 0.5,
        "triggerer.job_heartbeat_sec": 1,
        "triggerer.triggerer_health_check_threshold": COMPONENT_HEARTBEAT_TIMEOUT,
        "usage_data_collection.enabled": False,
    }
    own = _settings_3(port) if airflow_version() >= (3, 0) else _settings_2()
    variables = {"__".join(("AIRFLOW", *key.upper().split("."))): str(value) for key, value in (options | own).items()}
    variables["AIRFLOW_HOME"] = str(home)
    # For programs that write to their user's home, such as gunicorn with its control socket.
    variables["HOME"] = str(home)
    variables["PYTHONPATH"] = str(home / "site")
    return variables | database.environment()


def _settings_3(port: int) -> dict[str, object]:
    return {
        "api.host": "127.0.0.1",
        "api.port": port,
        "api.base_url": f"http://127.0.0.1:{port}",
        "api.secret_key": secrets.token_hex(),
        "api.workers": 1,
        "api_auth.jwt_secret": secrets.token_hex(),
        "core.execution_api_server_url": f"http://127.0.0.1:{port}/execution/",
        "core.simple_auth_manager_all_admins": True,
        "dag_processor.bundle_refresh_check_interval": 1,
        "dag_processor.min_file_process_interval": 10,
        "dag_processor.parsing_processes": 1,
        "dag_processor.refresh_interval": 3,
        "scheduler.task_instance_heartbeat_timeout": TASK_HEARTBEAT_TIMEOUT,
        "scheduler.task_instance_heartbeat_timeout_detection_interval": 2,
        # Limits how soon a task learns that a user has ended it.
        "workers.min_heartbeat_interval": 1,
    }


def _settings_2() -> dict[str, object]:
    return {
        "api.auth_backends": "airflow.api.auth.backend.default",
        "core.internal_api_secret_key": secrets.token_hex(),
        "core.min_serialized_dag_update_interval": 1,
        "scheduler.dag_dir_list_interval": 3,
        "scheduler.min_file_process_interval": 10,
        "scheduler.parsing_processes": 1,
        "scheduler.scheduler_zombie_task_threshold": TASK_HEARTBEAT_TIMEOUT,
        "scheduler.zombie_detection_interval": 2,
        "webserver.secret_key": secrets.token_hex(),
    }


def write_home(home: Path) -> None:
    """Write the files in ``AIRFLOW_HOME`` that Airflow reads at its start."""
    home.mkdir(parents=True, exist_ok=True)
    # All settings are in the environment. Without this file each process would write one of about 100 KB, and
    # processes that start at the same time would read each other's incomplete file.
    (home / "airflow.cfg").write_text("[core]\n")
    # The REST API of Airflow 2.11 treats everybody as an administrator.
    (home / "webserver_config.py").write_text('AUTH_ROLE_PUBLIC = "Admin"\nWTF_CSRF_ENABLED = False\n')
    # Airflow's imports create so many objects that the garbage collector, with its default threshold, takes a third
    # of the start time.
    (home / "site").mkdir(exist_ok=True)
    (home / "site" / "sitecustomize.py").write_text("import gc\n\ngc.set_threshold(50_000, 20, 50)\n")


def clean_environment() -> dict[str, str]:
    """Return the environment of children: without the caller's settings of Airflow, Ray, proxies and Python."""
    made = environment.for_programs()
    made["PATH"] = os.pathsep.join((str(BIN), made.get("PATH", os.defpath)))
    # So that the output of a killed process is complete.
    made["PYTHONUNBUFFERED"] = "1"
    return made


@dataclass
class Component:
    """One command of Airflow that runs in its own session.

    Its children are found by this session: they stay in it even if they create process groups, change their titles,
    or lose their parents.

    A pickled copy refers to the same processes from another process.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    log_path: Path
    _leader: int | None = field(default=None, init=False)  # the command's pid
    _popen: subprocess.Popen[bytes] | None = field(default=None, init=False)  # if this process has started it

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_popen": None}

    @property
    def is_ours(self) -> bool:
        """Whether this process has started it."""
        return self._popen is not None

    def start(self) -> None:
        """Start the command; its output is appended to the log file."""
        if self.members():
            raise RuntimeError(f"{self.name} is running")
        with self.log_path.open("ab") as log:
            self._popen = subprocess.Popen(
                self.command,
                cwd=self.environment["AIRFLOW_HOME"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._leader = self._popen.pid
        guard.watch(self._leader)

    def check(self) -> None:
        """Raise if the command has ended by itself.

        :raises RuntimeError: with the end of its log.
        """
        if self._leader is not None and self.main() is None:
            code = self._popen.returncode if self._popen is not None else "an unknown code"
            raise RuntimeError(f"airflow {self.name} ended with {code}; {self.log_path}:\n{tail(self.log_path)}")

    def members(self) -> set[Process]:
        """Return the command's live processes."""
        if self._leader is None:
            return set()
        if self._popen is not None:
            self._popen.poll()  # reaps a zombie
        return session(self._leader)

    def signal(self, signum: int) -> None:
        """Send a signal such as SIGSTOP or SIGCONT to all its processes, and do not wait."""
        for process in self.members():
            process.signal(signum)

    def terminate(self) -> None:
        """Send SIGTERM to the command, for a graceful shutdown, and do not wait."""
        if (command := self.main()) is not None:
            command.signal(signal.SIGTERM)

    def end(self, grace: float = 0.0) -> None:
        """Wait for its end, then kill its remaining processes.

        :param grace: seconds to wait before SIGKILL.
        """
        if self._leader is None:
            return
        wait_gone(self.members(), grace)
        kill_all(self.members)
        if self._popen is not None:
            self._popen.wait()
            guard.forget(self._leader)
        self._leader = self._popen = None

    def main(self) -> Process | None:
        """Return the command's first process; None if it has ended."""
        return next((member for member in self.members() if member.pid == self._leader), None)


def task_processes(pid: int, owners: list[Component]) -> tuple[Process, Process]:
    """Return the process that runs a task's code, and its supervisor.

    In Airflow 2.11 and 3, the task instance's pid is that of the process that runs the task's code. Its parent
    watches it, sends the heartbeats and reports the result: on 3.x a worker process of the executor, on 2.11 an
    ``airflow tasks run --local`` below that.

    :param pid: the ``pid`` of the task instance.
    :param owners: the components that may have started it; other processes are never returned.
    :raises ProcessLookupError: if these components have no such process.
    """
    ours = set().union(*(component.members() for component in owners))
    by_pid = {process.pid: process for process in ours}
    runner = by_pid.get(pid)
    supervisor = by_pid.get(parent(runner)) if runner else None
    if runner is None or supervisor is None:
        raise ProcessLookupError(f"no task of this Airflow runs as process {pid}")
    return runner, supervisor

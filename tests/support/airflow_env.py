"""A complete Airflow for tests: real processes, run from the environment that runs pytest.

User actions (trigger, clear, mark, connections) go through the REST API of the installed version: ``/api/v2`` on
Airflow 3, ``/api/v1`` on 2.11. Results are read from the database and the log files, which have more than the API.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any, Literal

from tests.support import airflow_processes
from tests.support.airflow_processes import JOB_TYPES, Component, airflow_version
from tests.support.airflow_records import AirflowRecords, tail, wait
from tests.support.databases import SqliteDatabase
from tests.support.ports import free_port
from tests.support.processes import output_of, wait_gone

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.support.databases import Database


class ApiError(Exception):
    """The REST API returned an HTTP error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text}")
        self.status = status


class DatabaseLockedError(ApiError):
    """The request had no effect, because it waited too long for another writer of SQLite. Not raised on PostgreSQL."""


class AirflowEnv(AirflowRecords):
    """An Airflow with all its processes. The base class reads its records.

    :param home: ``AIRFLOW_HOME``: an empty or missing directory, or one of an older version, which is upgraded.
    :param dags_folder: the folder of the DAG files; files added later are found within a few seconds.
    :param database: its database: it does not exist yet, or is one of an older version, which is upgraded.
    :param env: additional environment variables for all processes.
    :param parallelism: how many tasks may run in parallel.
    :param login: username and password of an administrator, if ``env`` makes Airflow require a login (3.x).
    """

    def __init__(
        self,
        home: Path,
        dags_folder: Path,
        database: Database,
        *,
        env: dict[str, str] | None = None,
        parallelism: int = 8,
        login: dict[str, str] | None = None,
    ) -> None:
        super().__init__(home, database)
        self.dags_folder = dags_folder
        self.version = airflow_version()
        port = free_port()
        self.base_url = f"http://127.0.0.1:{port}"
        self.environment = (
            airflow_processes.clean_environment()
            | airflow_processes.settings(home, dags_folder, database, port, parallelism)
            | (env or {})
        )
        self.components = self._make_components(port)
        self._login = login
        self._token: str | None = None

    # Processes

    def prepare(self) -> None:
        """Create the database, or upgrade one of an older version."""
        airflow_processes.write_home(self.home)
        self.database.migrate(lambda: self.cli("db", "migrate", timeout=300), airflow_processes.migrated_as())

    def start(self, timeout: float = 240.0) -> None:
        """Create or upgrade the database, start all processes and wait until they work.

        :param timeout: seconds.
        :raises RuntimeError: if a process ends, with the last lines that it printed.
        """
        self.prepare()
        try:
            for component in self.components.values():
                component.start()
            for name in self.components:
                self._wait_up(name, after_job=0, timeout=timeout)
        except BaseException:
            self.stop(grace=0)
            raise

    def stop(self, grace: float = 5.0) -> None:
        """Stop all processes.

        :param grace: seconds between SIGTERM and SIGKILL.
        """
        _end(self.components.values(), grace)

    def stop_own(self, grace: float = 5.0) -> None:
        """Stop the components that this process has restarted, of an Airflow that another process started.

        :param grace: seconds between SIGTERM and SIGKILL.
        """
        _end([component for component in self.components.values() if component.is_ours], grace)

    def start_process(self, name: str, timeout: float = 120.0) -> None:
        """Start one process again and wait until it works.

        :param name: ``scheduler``, ``triggerer``, ``api-server`` (2.11: its webserver) or
            ``dag-processor`` (3.x; part of the scheduler on 2.11).
        :param timeout: seconds.
        """
        (last,) = self.query("SELECT coalesce(max(id), 0) AS id FROM job")
        self.components[name].start()
        self._wait_up(name, after_job=last["id"], timeout=timeout)

    def kill_process(self, name: str, sig: int = signal.SIGKILL, grace: float = 20.0) -> None:
        """Stop one process with all its children, and wait until they have ended.

        :param name: as for :meth:`start_process`. The scheduler's children are the running tasks.
        :param sig: SIGKILL for a crash, or SIGTERM for a graceful shutdown.
        :param grace: seconds that a graceful shutdown may take.
        """
        if sig == signal.SIGTERM:
            self.components[name].terminate()
            self.components[name].end(grace)
        else:
            self.components[name].end()

    def signal_process(self, name: str, sig: int) -> None:
        """Send a signal to one process and its children: SIGSTOP pauses them, SIGCONT resumes them."""
        self.components[name].signal(sig)

    def cli(self, *arguments: str, timeout: float = 120.0) -> str:
        """Run an ``airflow`` command in this Airflow; this takes seconds.

        :return: its stdout.
        :raises RuntimeError: if it fails, with its output.
        """
        command = [airflow_processes.BIN / "airflow", *arguments]
        return output_of(command, cwd=self.home, env=self.environment, timeout=timeout)

    def _make_components(self, port: int) -> dict[str, Component]:
        """Return the processes by name, not started yet.

        :param port: of the API server.
        """
        return {
            name: Component(name, command, self.environment, self.home / f"{name}.out")
            for name, command in airflow_processes.commands(port).items()
        }

    def _task_owners(self) -> list[Component]:
        """Return the components whose children run the tasks."""
        return [self.components["scheduler"]]

    def _is_up(self, name: str, after_job: int) -> bool:
        """Return whether a component works.

        :param after_job: an id of the ``job`` table; rows up to it belong to earlier starts.
        """
        if name not in JOB_TYPES:
            return self._api_answers()
        return bool(
            self.query(
                "SELECT 1 FROM job WHERE job_type = ? AND id > ? AND state = 'running'", JOB_TYPES[name], after_job
            )
        )

    def _wait_up(self, name: str, after_job: int, timeout: float) -> None:
        def up() -> bool:
            for each in self.components.values():
                each.check()
            return self._is_up(name, after_job)

        component = self.components[name]
        wait(up, timeout, lambda: f"airflow {name} is not up; {component.log_path}:\n{tail(component.log_path)}")

    def _api_answers(self) -> bool:
        try:
            self.api("GET", "version")
            if self.version >= (3, 0):
                # The execution API, which tasks use, is created at its first request, and that takes seconds.
                self._http("GET", "/execution/health")
        except (OSError, ApiError):
            return False
        return True

    # User actions

    def api(self, method: str, path: str, body: object = None) -> Any:
        """Call the REST API.

        :param method: HTTP method.
        :param path: below ``/api/v2/`` (3.x) or ``/api/v1/`` (2.11), quoted as needed.
        :param body: sent as JSON.
        :return: the decoded response.
        :raises ApiError: for an HTTP error.
        """
        if self.version < (3, 0):
            return self._http(method, f"/api/v1/{path}", body)
        if self._token is None:
            # Without a login everybody is an administrator, but the API still requires a token.
            self._token = self._http("POST" if self._login else "GET", "/auth/token", self._login)["access_token"]
        token = {"Authorization": f"Bearer {self._token}"}
        for _ in range(4):
            with contextlib.suppress(DatabaseLockedError):
                return self._http(method, f"/api/v2/{path}", body, token)
            time.sleep(1)
        return self._http(method, f"/api/v2/{path}", body, token)

    def _http(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
        request = urllib.request.Request(
            self.base_url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers=headers or {},
        )
        if body is not None:
            request.add_header("Content-Type", "application/json")
        # Requests to this machine must not use a proxy.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")
            # 3.2 sometimes gives the reason for a 500 only in its output.
            reason = text if text != "Internal Server Error" else tail(self.components["api-server"].log_path)
            on_sqlite = isinstance(self.database, SqliteDatabase)
            locked = on_sqlite and error.code == 500 and ("Database error" in reason or "database is locked" in reason)
            raise (DatabaseLockedError if locked else ApiError)(error.code, text) from None
        return json.loads(answer) if answer else None

    def add_connection(self, conn_id: str, conn_type: str, **fields: Any) -> None:
        """Add a connection to the database, or replace the one with this id.

        :param fields: ``host``, ``port``, ``login``, ``password``, ``schema``, ``extra`` (a dict or JSON).
        """
        if isinstance(fields.get("extra"), dict):
            fields["extra"] = json.dumps(fields["extra"])
        try:
            self.api("DELETE", f"connections/{_quote(conn_id)}")
        except ApiError as error:
            if error.status != 404:
                raise
        self.api("POST", "connections", {"connection_id": conn_id, "conn_type": conn_type, **fields})

    def wait_dag(self, dag_id: str, timeout: float = 120.0) -> None:
        """Wait until Airflow has parsed a DAG, and unpause it.

        :raises RuntimeError: if a DAG file cannot be imported, with the traceback.
        """

        def known() -> bool:
            if self.query("SELECT 1 FROM serialized_dag WHERE dag_id = ?", dag_id):
                return True
            for error in self.query("SELECT filename, stacktrace FROM import_error"):
                raise RuntimeError(f"{error['filename']}: {error['stacktrace']}")
            return False

        def unpaused() -> bool:
            try:
                self.api("PATCH", f"dags/{_quote(dag_id)}", {"is_paused": False})
            except ApiError as error:  # 2.11 writes the serialized DAG before the row that this route reads
                if error.status != 404:
                    raise
                return False
            return True

        wait(known, timeout, lambda: f"no DAG {dag_id!r} in {self.dags_folder}\n{self.outputs()}")
        wait(unpaused, timeout, lambda: f"the DAG {dag_id!r} can't be unpaused")

    def trigger(self, dag_id: str, run_id: str, conf: dict[str, Any] | None = None) -> None:
        """Start a DAG run."""
        if self.version == (3, 0):
            # With the pydantic version of its constraints, the route of 3.0.6 answers every request with HTTP 500.
            self.cli("dags", "trigger", dag_id, "--run-id", run_id, "--conf", json.dumps(conf or {}))
            return
        body: dict[str, Any] = {"dag_run_id": run_id, "conf": conf or {}}
        if self.version >= (3, 0):
            body["logical_date"] = None
        self.api("POST", f"dags/{_quote(dag_id)}/dagRuns", body)

    def set_task_state(
        self, dag_id: str, run_id: str, task_id: str, state: Literal["failed", "success"], map_index: int = -1
    ) -> None:
        """Mark a task instance failed or successful."""
        path = f"dags/{_quote(dag_id)}/dagRuns/{_quote(run_id)}/taskInstances/{_quote(task_id)}"
        if map_index >= 0:
            path += f"/{map_index}"
        body: dict[str, Any] = {"new_state": state}
        if self.version < (3, 0):
            body["dry_run"] = False
        self.api("PATCH", path, body)

    def clear(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> None:
        """Clear a task instance, but none up- or downstream of it.

        :param map_index: one instance of a mapped task; -1 means all (2.11 clears all in any case).
        """
        if self.version < (3, 0):
            # The REST API of 2.11 does not change the state of a running task; the command does, like the web page.
            (run,) = self.query(
                "SELECT execution_date AS date FROM dag_run WHERE dag_id = ? AND run_id = ?", dag_id, run_id
            )
            date = str(run["date"]).removesuffix("+00:00") + "+00:00"  # SQLite omits the time zone
            self.cli("tasks", "clear", dag_id, "-t", f"^{re.escape(task_id)}$", "-s", date, "-e", date, "--yes")
            if isinstance(self.database, SqliteDatabase):
                _forget_triggers(self.database, dag_id, run_id, task_id)
            return
        body = {
            "dag_run_id": run_id,
            "dry_run": False,
            "only_failed": False,
            "reset_dag_runs": True,
            "task_ids": [[task_id, map_index] if map_index >= 0 else task_id],
        }
        self.api("POST", f"dags/{_quote(dag_id)}/clearTaskInstances", body)

    def set_run_state(self, dag_id: str, run_id: str, state: Literal["failed", "success", "queued"]) -> None:
        """Mark a DAG run; Airflow also ends its unfinished tasks."""
        self.api("PATCH", f"dags/{_quote(dag_id)}/dagRuns/{_quote(run_id)}", {"state": state})

    # Faults

    def kill_task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        sig: int = signal.SIGKILL,
        *,
        supervisor: bool = False,
        map_index: int = -1,
    ) -> None:
        """Send a signal to the process that runs a task's code.

        :param sig: the signal; after SIGKILL, this waits until the processes have ended.
        :param supervisor: also signal the task's supervisor, and do so first, so that it can't report the end. This
            is like the loss of a whole worker: Airflow only notices the missing heartbeats.
        :raises ProcessLookupError: if the task has no process.
        """
        pid = self.task(dag_id, run_id, task_id, map_index).pid
        if pid is None:
            raise ProcessLookupError(f"{dag_id} {run_id} {task_id} has no process")
        runner, watcher = airflow_processes.task_processes(pid, self._task_owners())
        victims = [watcher, runner] if supervisor else [runner]
        for victim in victims:
            victim.signal(sig)
        if sig == signal.SIGKILL and (left := wait_gone(victims, 10)):
            raise TimeoutError(f"still alive after SIGKILL: {left}")


def _end(components: Iterable[Component], grace: float) -> None:
    deadline = time.monotonic() + grace

    def end(component: Component) -> None:
        component.end(max(0.0, deadline - time.monotonic()))

    with contextlib.ExitStack() as ends:  # so that all are ended, even if one of them can't be
        for component in components:
            component.terminate()
            ends.callback(end, component)


def _forget_triggers(database: SqliteDatabase, dag_id: str, run_id: str, task_id: str) -> None:
    # The triggerer of 2.11 removes the trigger from tasks whose state differs from "deferred". A cleared task has
    # no state, and in SQL, NULL does not differ from anything. So the triggerer removes the trigger only when the
    # task is queued again, often just before a worker writes the trigger's id back, which then fails because the
    # foreign key is not valid. Remove it at once instead.
    database.execute(
        "UPDATE task_instance SET trigger_id = NULL"
        " WHERE dag_id = ? AND run_id = ? AND task_id = ? AND state IS NOT 'deferred'",
        *(dag_id, run_id, task_id),
    )


def _quote(name: str) -> str:
    return urllib.parse.quote(name, safe="")

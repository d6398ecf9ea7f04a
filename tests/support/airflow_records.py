"""Reads the database and the task logs of an Airflow for tests, and waits for states and lines in them.

Both are read directly because they have more than the REST API returns. This module does not import Airflow.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

    from tests.support.databases import Database

FINAL_STATES = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


@dataclass(frozen=True)
class TaskRow:
    """The latest try of a task instance, from the database."""

    state: str | None
    try_number: int
    max_tries: int
    pid: int | None
    hostname: str | None
    trigger_id: int | None
    next_method: str | None


class AirflowRecords:
    """The records of an Airflow.

    :param home: ``AIRFLOW_HOME``.
    """

    def __init__(self, home: Path, database: Database) -> None:
        self.home = home
        self.database = database

    def query(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        """Run a query in Airflow's database, with a ``?`` for each parameter."""
        return self.database.query(sql, *parameters)

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> TaskRow:
        """Return a task instance.

        :raises LookupError: if the run does not have the task instance, or not yet.
        """
        rows = self.query(
            "SELECT state, try_number, max_tries, pid, hostname, trigger_id, next_method FROM task_instance"
            " WHERE dag_id = ? AND run_id = ? AND task_id = ? AND map_index = ?",
            *(dag_id, run_id, task_id, map_index),
        )
        if not rows:
            raise LookupError(f"no task instance {dag_id} {run_id} {task_id} {map_index}")
        return TaskRow(**rows[0])

    def wait_task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        states: str | Collection[str],
        map_index: int = -1,
        timeout: float = 120.0,
        try_number: int | None = None,
    ) -> TaskRow:
        """Wait until a task instance is in one of the states, and return it.

        :param states: one state or several.
        :param try_number: wait for this try; earlier ones are ignored.
        :raises AssertionError: after ``timeout`` seconds, or as soon as the task has ended in another state. The
            message has the task's log.
        """
        wanted = {states} if isinstance(states, str) else set(states)
        row: TaskRow | None = None

        def trouble() -> str:
            log = self.task_log(dag_id, run_id, task_id, row.try_number, map_index) if row else self.outputs()
            return f"{dag_id} {run_id} {task_id}: expected {sorted(wanted)}, found {row}\n{log}"

        def reached() -> bool:
            nonlocal row
            with contextlib.suppress(LookupError):
                row = self.task(dag_id, run_id, task_id, map_index)
            if row is None or (try_number is not None and row.try_number < try_number):
                return False
            if row.state in wanted and try_number in (None, row.try_number):
                return True
            assert row.state not in FINAL_STATES, trouble()
            return False

        wait(reached, timeout, trouble)
        assert row is not None
        return row

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return a DAG run's state."""
        (row,) = self.query("SELECT state FROM dag_run WHERE dag_id = ? AND run_id = ?", dag_id, run_id)
        return str(row["state"])

    def wait_run(self, dag_id: str, run_id: str, states: str | Collection[str], timeout: float = 120.0) -> str:
        """Wait until a DAG run is in one of the states, and return it."""
        wanted = {states} if isinstance(states, str) else set(states)
        wait(
            lambda: self.run_state(dag_id, run_id) in wanted,
            timeout,
            lambda: f"run {dag_id} {run_id}: expected {sorted(wanted)}\n{self.outputs()}",
        )
        return self.run_state(dag_id, run_id)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return an XCom's value; None if there is none."""
        rows = self.query(
            f"SELECT {self.database.json_text('value')} AS value FROM xcom"
            " WHERE dag_id = ? AND run_id = ? AND task_id = ? AND key = ? AND map_index = ?",
            *(dag_id, run_id, task_id, key, map_index),
        )
        return json.loads(rows[0]["value"]) if rows else None

    def rendered_fields(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Any:
        """Return the task's rendered template fields; None before it has run."""
        rows = self.query(
            f"SELECT {self.database.json_text('rendered_fields')} AS fields FROM rendered_task_instance_fields"
            " WHERE dag_id = ? AND run_id = ? AND task_id = ? AND map_index = ?",
            *(dag_id, run_id, task_id, map_index),
        )
        return json.loads(rows[0]["fields"]) if rows else None

    def task_log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return the log of one try: the lines of the worker and the triggerer, by time.

        JSON lines (Airflow 3) are reduced to the message and, after an error, the exception.
        """
        folder = self.home / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        name = f"attempt={try_number}.log"
        files = [folder / name, *sorted(folder.glob(f"{name}.trigger.*.log"))]
        lines = [line for file in files if file.exists() for line in _log_lines(file)]
        return "\n".join(text for _, text in sorted(lines, key=lambda line: line[0]))

    def wait_log(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        text: str,
        try_number: int = 1,
        map_index: int = -1,
        timeout: float = 120.0,
    ) -> str:
        """Wait until the log of one try contains ``text``, and return the log."""

        def log() -> str:
            return self.task_log(dag_id, run_id, task_id, try_number, map_index)

        wait(lambda: text in log(), timeout, lambda: f"{text!r} is not in the log:\n{log()}")
        return log()

    def outputs(self) -> str:
        """Return the last lines of output of each process."""
        return "\n".join(f"--- {path}\n{tail(path, 15)}" for path in sorted(self.home.glob("*.out")))


def wait(done: Callable[[], bool], timeout: float, trouble: Callable[[], str]) -> None:
    """Wait until a condition holds.

    :param timeout: seconds.
    :param trouble: returns the message of the error.
    :raises AssertionError: after the timeout.
    """
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline, f"after {timeout:g} s: {trouble()}"
        time.sleep(0.1)


def tail(path: Path, lines: int = 40) -> str:
    """Return the last lines of a text file; empty if it does not exist."""
    if not path.exists():
        return ""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def _log_lines(file: Path) -> Iterator[tuple[str, str]]:
    """Yield (time, text) of each line; a line without a time gets that of the line before."""
    stamp = ""
    for line in file.read_text(errors="replace").splitlines():
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                stamp = record.get("timestamp") or stamp
                yield stamp, _record_text(record)
                continue
        if match := re.match(r"\[(\d{4}-\d\d-\d\dT[\d:.]+)", line):
            stamp = match[1]
        yield stamp, line


def _record_text(record: dict[str, Any]) -> str:
    raised = [f"{e.get('exc_type')}: {e.get('exc_value')}" for e in record.get("error_detail") or ()]
    return "\n".join([str(record.get("event", "")), *raised])

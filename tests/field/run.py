"""The DAG run of a case: brings its task to the right moment, and collects the results."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from tests.field.case import Facts
from tests.support.airflow_processes import task_processes
from tests.support.witness import TERMINAL

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from tests.field.bench import Bench
    from tests.field.case import Case
    from tests.support.processes import Process

TASK = "job"
#: After this many half-seconds, a driver gives up.
_LONGEST = 600
#: States of a task that is still active, even if its DAG run has ended.
_ACTIVE = ("running", "queued", "deferred", "restarting")
_LINE = re.compile(r"line (\d+) of (\d+) from the driver")
_ERROR = re.compile(r"\b(?:Ray\w+Error|AirflowTaskTimeout|AirflowTaskTerminated|TaskDeferralTimeout)\b")


class Run:
    """The DAG run of a case.

    :param session: the name of the session, unique on this bench.
    """

    def __init__(self, bench: Bench, case: Case, session: str) -> None:
        self.bench = bench
        self.airflow = bench.airflow
        self.case = case
        self.moment = case.moment.split()[0]
        kind = case.fault.kind or (self.moment if self.moment in ("queued", "uploading", "pending") else "plain")
        self.dag_id = f"field_{kind}_{case.mode}"
        self.run_id = re.sub(r"\W+", "-", f"{session}-{case.fault.hits}-{case.fault.name}-{case.moment}-{case.mode}")
        self.folder: Path = bench.folder / "runs" / self.run_id
        self.folder.mkdir(parents=True)
        self._trace, self._gate = self.folder / "trace", self.folder / "gate"

    # Actions

    def trigger(self) -> None:
        """Start the run."""
        files = self.folder / "files"
        files.mkdir()
        (files / "run.txt").write_text(self.run_id)  # so that no other run has uploaded the same package
        self.airflow.trigger(self.dag_id, self.run_id, {"command": self._command(), "working_dir": str(files)})

    def delete(self) -> None:
        """Delete the DAG run, like a user. Airflow 3 does not delete a running one, so it is marked as failed first."""
        if self.airflow.version >= (3, 0):
            self.airflow.set_run_state(self.dag_id, self.run_id, "failed")
        self.airflow.api("DELETE", f"dags/{self.dag_id}/dagRuns/{self.run_id}")

    def let_end(self) -> None:
        """Let the driver end, at once or as soon as it starts."""
        self._gate.touch()

    def is_there(self, jobs: list[dict[str, Any]]) -> bool:
        """Return whether the task is at its moment, or as close to it as the session needs.

        :param jobs: the jobs of the cluster.
        """
        if self.case.fault.kind and self.is_over():  # on a busy machine, the timeout may already have passed
            return True
        row = self.airflow.query("SELECT state FROM task_instance WHERE run_id = ?", self.run_id)
        state = row[0]["state"] if row else None
        if self.moment in ("queued", "uploading"):  # the proxy counts held uploads
            return state == ("queued" if self.moment == "queued" else "running")
        if state != ("running" if self.case.mode == "sync" else "deferred"):
            return False
        if self.moment == "pending":
            return [job["status"] for job in self.jobs(jobs)] == ["PENDING"]
        return bool(_LINE.search(self.log(1)))

    def processes(self) -> tuple[Process, Process] | None:
        """Return the process that runs the task's code, and its supervisor; None if there is none."""
        row = self.airflow.task(self.dag_id, self.run_id, TASK)
        if row.state != "running" or not row.pid or not row.hostname:
            return None
        try:
            return task_processes(row.pid, [self.airflow.components[row.hostname]])
        except ProcessLookupError:
            return None

    # Results

    def jobs(self, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the jobs of this run.

        :param jobs: the jobs of the cluster.
        """
        return [job for job in jobs if (job["metadata"] or {}).get("airflow_run_id") == self.run_id]

    def alive(self, jobs: list[dict[str, Any]]) -> list[str]:
        """Return the ids of its jobs that have not ended."""
        return [job["submission_id"] for job in self.jobs(jobs) if job["status"] not in TERMINAL]

    def is_over(self) -> bool:
        """Return whether the DAG run has ended and its task is not active, or both are deleted."""
        rows = self.airflow.query(
            "SELECT r.state AS run, t.state AS task FROM dag_run r LEFT JOIN task_instance t"
            " ON t.dag_id = r.dag_id AND t.run_id = r.run_id WHERE r.run_id = ?",
            self.run_id,
        )
        # If a user has ended the run, Airflow may leave its task scheduled, although it never runs.
        return not rows or (rows[0]["run"] in ("success", "failed") and rows[0]["task"] not in _ACTIVE)

    def log(self, try_number: int) -> str:
        """Return the log of a try."""
        return self.airflow.task_log(self.dag_id, self.run_id, TASK, try_number)

    def facts(self, orphans: int, trouble: str) -> Facts:
        """Return the results.

        :param orphans: how many jobs were alive too long.
        :param trouble: the error of the session, or an empty string.
        """
        rows = self.airflow.query("SELECT state, try_number FROM task_instance WHERE run_id = ?", self.run_id)
        folder = self.airflow.home / "logs" / f"dag_id={self.dag_id}" / f"run_id={self.run_id}" / f"task_id={TASK}"
        numbers = sorted({int(re.sub(r"\D+.*", "", file.name[8:])) for file in folder.glob("attempt=*.log*")})
        logs = {number: self.log(number) for number in numbers}
        lines = {number: Counter(_LINE.findall(log)) for number, log in logs.items()}
        trace = [line.split() for line in self._trace.read_text().splitlines()] if self._trace.exists() else []
        ends = {(pid, int(rest[0])) for word, pid, *rest in trace if word == "end"}
        said = {(str(number), pid) for pid, last in ends for number in range(1, last + 1)}
        return Facts(
            state=rows[0]["state"] or "none" if rows else "deleted",
            tries=rows[0]["try_number"] if rows else len(logs),
            starts=sum(word == "start" for word, *_ in trace),
            ends=len(ends),
            orphans=orphans,
            errors=tuple(sorted(set(_ERROR.findall("\n".join(logs.values()))))),
            missing=len(said - {line for counted in lines.values() for line in counted}),
            repeated=sum(count > 1 for counted in lines.values() for count in counted.values()),
            trouble=trouble,
            story="\n".join(f"--- try {number}\n{log}" for number, log in logs.items()),
        )

    def _command(self) -> str:
        """Return the driver's command. Its quotes distinguish the output from the command, which logs also show."""
        return (
            # Ray assumes that a command that ends at once could not be started.
            f"echo start $$ >> {self._trace}; sleep 1; n=0; "
            f"until [ -e {self._gate} ] || [ $n -gt {_LONGEST} ]; do "
            "n=$((n+1)); echo line $n of $$ from the 'driver'; sleep 0.5; done; "
            f"echo end $$ $n >> {self._trace}"
        )

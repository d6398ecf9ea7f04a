"""The environment of one case: a task, its own proxy in front of the head, and records of what the cluster did."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.faults.names import DAG_ID, TASK_ID
from tests.faults.workers import PATIENCE
from tests.support import faults
from tests.support.airflow_records import AirflowRecords, TaskRow
from tests.support.faulty_proxy import FaultyProxy
from tests.support.witness import TERMINAL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.workers import Process, Workers
    from tests.support.faults import Fault, Moment, Rule
    from tests.support.ray_head import RayHead

# The requests of a task, as method and path.
VERSION = ("GET", "/api/version")
SUBMIT = ("POST", "/api/jobs/")
STATUS = ("GET", "/api/jobs/[^/]+")
LOG = ("GET", "/api/jobs/[^/]+/logs/tail")
STOP = ("POST", "/api/jobs/[^/]+/stop")
LIST = ("GET", "/api/jobs/")

#: Seconds: short, so that timeouts pass soon, but long enough for a busy machine.
CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 3.0
UNREACHABLE_TIMEOUT = 20.0

#: Seconds, longer than the timeout, for responses that must come too late.
TOO_LATE = 5.0


@dataclass
class Facts:
    """The results of a case: from Airflow, the cluster and the witness file."""

    tries: int = 0
    statuses: list[str] = field(default_factory=list)
    starts: int = 0
    ends: int = 0
    orphans: int = 0
    state: str = ""

    @property
    def jobs(self) -> int:
        """How many jobs the cluster accepted."""
        return len(self.statuses)


class Bench:
    """The environment of one case.

    :param name: name of the case, and of its DAG run.
    :param folder: for its files.
    """

    def __init__(self, name: str, folder: Path, head: RayHead, workers: Workers, *, deferrable: bool = False) -> None:
        self.run_id = re.sub(r"[^\w]+", "_", name)
        self.head = head
        self.proxy = FaultyProxy(head.host, head.port)
        self.log = folder / f"{self.run_id}.log"
        self.file = folder / f"{self.run_id}.witness"
        self.args: dict[str, Any] = {"entrypoint": self.job(), "deferrable": deferrable, "poll_interval": 2.0}
        self.extra: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "unreachable_timeout": UNREACHABLE_TIMEOUT,
        }
        self.env: dict[str, str] = {}  # of the next processes
        self.current: Process | None = None
        self.fallen = threading.Event()  # set when the shared head is killed; only in cases_head
        self._workers = workers
        self._records = AirflowRecords(workers.home, workers.database)
        self._changed = threading.Condition()
        self._timers: list[threading.Timer] = []

    # The job and its results

    def job(self, seconds: float = 1, then: str = "") -> str:
        """Return the command of a job that writes a line to the witness file at its start and at its end."""
        # A killed head kills the driver's children first; with &&, the shell does not mistake this for their success.
        return f"echo start $$ >> {self.file}; {then or f'sleep {seconds}'} && echo end $$ >> {self.file}"

    def jobs(self) -> list[dict[str, Any]]:
        """Return this case's jobs on the head, oldest first."""
        mine = [job for job in self.head.jobs() if str(self.file) in job["entrypoint"]]
        return sorted(mine, key=lambda job: job["start_time"] or 0)

    def lines(self, word: str) -> int:
        """Count the lines of the witness file that start with a word: one per driver."""
        return sum(line.startswith(word) for line in self.file.read_text().splitlines()) if self.file.exists() else 0

    def wait_job(self, status: str, number: int = 1, timeout: float = PATIENCE) -> str:
        """Wait until a job has a status; return its id.

        :param number: number of the job, from 1.
        """
        self.wait(lambda: len(self.jobs()) >= number, timeout, f"job {number} did not appear")
        submission_id = str(self.jobs()[number - 1]["submission_id"])
        self.head.wait_job(submission_id, timeout, until={status})
        return submission_id

    def wait_quiet(self) -> list[str]:
        """Wait until all jobs have ended; return their statuses.

        A job that is stopped while it is PENDING starts first, which takes long on a busy machine.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            statuses = [str(job["status"]) for job in self.jobs()]
            if set(statuses) <= TERMINAL or time.monotonic() > deadline:
                return statuses
            time.sleep(0.3)

    def facts(self) -> Facts:
        """Wait until all jobs have ended, and return the results."""
        statuses = self.wait_quiet()
        row = self.row()
        return Facts(
            tries=row.try_number if row else 0,
            statuses=statuses,
            starts=self.lines("start"),
            ends=self.lines("end"),
            orphans=sum(status not in TERMINAL for status in statuses),
            state=str(row.state) if row else "",
        )

    def row(self) -> TaskRow | None:
        """Return the task instance, if there is one yet."""
        try:
            return self._records.task(DAG_ID, self.run_id, TASK_ID)
        except LookupError:
            return None

    def wait(self, condition: Callable[[], object], timeout: float, what: str) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} within {timeout:.0f} s; {self.story()}")
            time.sleep(0.1)

    def said(self, text: str) -> bool:
        """Return whether the task's processes have printed a text."""
        return self.log.exists() and text in self.log.read_text(errors="replace")

    def story(self) -> str:
        """Return the requests, jobs and log, for the message of a failure."""
        requests = [
            f"{one.time % 1000:7.2f} {one.method} {one.path[:60]} {one.fault or '-'} "
            f"{'' if one.forwarded else 'not forwarded'} {one.upstream_status or ''}"
            for one in self.proxy.requests[-60:]
        ]
        log = self.log.read_text(errors="replace")[-12_000:] if self.log.exists() else ""
        return "\n".join(["requests:", *requests, "jobs:", *map(str, self.jobs()), "log:", log])

    # The task

    def start(self, op: str = "task") -> Process:
        """Start the next process of the task, and do not wait."""
        connection = self.head.connection(self.proxy.url, extra=self.extra)
        env = {"AIRFLOW_CONN_RAY_DEFAULT": json.dumps(connection), **self.env}
        process = self._workers.start(op, self.run_id, self.log, env, self.args)
        with self._changed:
            self.current = process
            self._changed.notify_all()
        return process

    def finish(self, process: Process) -> str:
        """Wait for the end of a try, deferrals included; return the task's state."""
        process.wait()
        while (state := self.state) in ("deferred", "scheduled"):
            status = self.start("trigger" if state == "deferred" else "task").wait()
            if status:
                return self.state
        return state

    def attempt(self) -> str:
        """Run one try, from its start to its end; return the task's state."""
        return self.finish(self.start())

    @property
    def state(self) -> str:
        """The state of the task in Airflow's database."""
        row = self.row()
        return str(row.state) if row else ""

    def until_success(self, most: int = 1) -> None:
        """Run tries, like Airflow, until one succeeds.

        :param most: the most tries.
        """
        states: list[str] = []
        while len(states) < most:
            states.append(self.attempt())
            if states[-1] == "success":
                return
            if states[-1] == "failed":
                break
        raise AssertionError(f"no success in {most} tries but {states}; {self.story()}")

    def do(self, op: str) -> None:
        """Run a short operation on the task: ``clear``, ``lost`` or ``forget``."""
        status = self.start(op).wait(60)
        assert status == 0, self.story()

    def end(self) -> None:
        """Cancel timers and kill the current process, if a case has failed."""
        for timer in self._timers:
            timer.cancel()
            timer.join()
        if self.current is not None and not self.current.ended:
            self.current.kill()

    # Faults

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function after a number of seconds, unless the case has ended."""
        self._timers.append(threading.Timer(seconds, function))
        self._timers[-1].start()

    def on(self, request: tuple[str, str], fault: Fault, first: int = 1, times: int | None = 1) -> Rule:
        """Apply a fault to a request."""
        return self.proxy.on(fault, *request, first, times)

    def kill_at(
        self,
        signum: int | None,
        request: tuple[str, str],
        at: Moment,
        *,
        status: str = "",
        first: int = 1,
        then: Fault | None = None,
    ) -> None:
        """Signal the process that sends a request, at a moment of that request.

        :param signum: as for :meth:`signal_current`.
        :param status: send the signal only at a response with this job status.
        :param then: the fault that is then applied to the request.
        """
        done = threading.Event()

        def kill() -> None:
            if done.is_set():
                return
            done.set()
            self.signal_current(signum)

        pattern = f'"status": *"{status}"' if status else ""
        # With a status, the response may belong to any of the requests.
        self.on(request, faults.call(kill, at, pattern, then), first, None if status else 1)

    def signal_current(self, signum: int | None) -> None:
        """Signal the current process.

        :param signum: SIGKILL, and wait for its end; SIGTERM, like a worker that shuts down; None: a user clears the
            task, so Airflow changes its state and sends SIGTERM.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.current is not None, 30)
        assert self.current is not None
        if signum == signal.SIGKILL:
            self.current.kill()
            return
        if signum is None:
            self._workers.database.execute(
                "UPDATE task_instance SET state = 'restarting' WHERE dag_id = ? AND run_id = ?", DAG_ID, self.run_id
            )
        self.current.terminate()

"""What one case works with: a task, a proxy of its own before the head, and witnesses of what the cluster did."""

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

# The requests in the life of a task, as method and path.
VERSION = ("GET", "/api/version")
SUBMIT = ("POST", "/api/jobs/")
STATUS = ("GET", "/api/jobs/[^/]+")
LOG = ("GET", "/api/jobs/[^/]+/logs/tail")
STOP = ("POST", "/api/jobs/[^/]+/stop")
LIST = ("GET", "/api/jobs/")

#: Seconds; small, so that a time-out is soon, and large enough for a busy machine.
CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 3.0
UNREACHABLE_TIMEOUT = 20.0

#: Longer than the time-out, for what is to come too late.
TOO_LATE = 5.0


@dataclass
class Facts:
    """What became of a case, as the witnesses saw it."""

    tries: int = 0
    statuses: list[str] = field(default_factory=list)
    starts: int = 0
    ends: int = 0
    orphans: int = 0
    state: str = ""

    @property
    def jobs(self) -> int:
        """How many jobs the cluster took."""
        return len(self.statuses)


class Bench:
    """The surroundings of one case.

    :param name: of the case; its DAG run is named so.
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
        self.current: Process | None = None
        self.fallen = threading.Event()  # the head; only for cases that share one that does
        self._workers = workers
        self._records = AirflowRecords(workers.home, workers.database)
        self._changed = threading.Condition()
        self._timers: list[threading.Timer] = []

    # The job, and what became of it

    def job(self, seconds: float = 1, then: str = "") -> str:
        """Return the command of a job that leaves a line in the witness file at its start and at its end."""
        # A head that is killed takes the driver's children first; the shell must not take that for their end.
        return f"echo start $$ >> {self.file}; {then or f'sleep {seconds}'} && echo end $$ >> {self.file}"

    def jobs(self) -> list[dict[str, Any]]:
        """Return this case's jobs, oldest first, as the head knows them."""
        mine = [job for job in self.head.jobs() if str(self.file) in job["entrypoint"]]
        return sorted(mine, key=lambda job: job["start_time"] or 0)

    def lines(self, word: str) -> int:
        """Count the drivers that left this word in the witness file."""
        return sum(line.startswith(word) for line in self.file.read_text().splitlines()) if self.file.exists() else 0

    def wait_job(self, status: str, number: int = 1, timeout: float = PATIENCE) -> str:
        """Wait until the job of that number, from 1, has a status; return its id."""
        self.wait(lambda: len(self.jobs()) >= number, timeout, f"job {number} did not appear")
        submission_id = str(self.jobs()[number - 1]["submission_id"])
        self.head.wait_job(submission_id, timeout, until={status})
        return submission_id

    def wait_quiet(self) -> list[str]:
        """Wait until none of the jobs is alive; return the statuses.

        A job that was asked to stop while it was PENDING first starts, which takes long on a busy machine.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            statuses = [str(job["status"]) for job in self.jobs()]
            if set(statuses) <= TERMINAL or time.monotonic() > deadline:
                return statuses
            time.sleep(0.3)

    def facts(self) -> Facts:
        """Ask the witnesses."""
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
        """Whether the task's processes have printed this."""
        return self.log.exists() and text in self.log.read_text(errors="replace")

    def story(self) -> str:
        """Return what happened, for the message of a failure."""
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
        env = {"AIRFLOW_CONN_RAY_DEFAULT": json.dumps(self.head.connection(self.proxy.url, extra=self.extra))}
        process = self._workers.start(op, self.run_id, self.log, env, self.args)
        with self._changed:
            self.current = process
            self._changed.notify_all()
        return process

    def finish(self, process: Process) -> str:
        """Wait for the end of a try, deferrals included; return the state of the task then."""
        process.wait()
        while (state := self.state) in ("deferred", "scheduled"):
            status = self.start("trigger" if state == "deferred" else "task").wait()
            if status:
                return self.state
        return state

    def attempt(self) -> str:
        """Run one try, from its start to its end; return the state of the task then."""
        return self.finish(self.start())

    @property
    def state(self) -> str:
        """The state of the task in Airflow's database."""
        row = self.row()
        return str(row.state) if row else ""

    def until_success(self, most: int = 1) -> None:
        """Run tries, as Airflow does, until one succeeds.

        :param most: how many there may be.
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
        """Do something with the task that takes a moment: ``clear``, ``lost`` or ``forget``."""
        status = self.start(op).wait(60)
        assert status == 0, self.story()

    def end(self) -> None:
        """Leave nothing behind when a case has gone wrong."""
        for timer in self._timers:
            timer.cancel()
            timer.join()
        if self.current is not None and not self.current.ended:
            self.current.kill()

    # Faults

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function in so many seconds, if the case still goes on."""
        self._timers.append(threading.Timer(seconds, function))
        self._timers[-1].start()

    def on(self, request: tuple[str, str], fault: Fault, first: int = 1, times: int | None = 1) -> Rule:
        """Have a request meet a fault."""
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
        :param status: of the job, in the answer that counts.
        :param then: what becomes of the request.
        """
        done = threading.Event()

        def kill() -> None:
            if done.is_set():
                return
            done.set()
            self.signal_current(signum)

        pattern = f'"status": *"{status}"' if status else ""
        # With a status, any of the requests may have the answer that counts.
        self.on(request, faults.call(kill, at, pattern, then), first, None if status else 1)

    def signal_current(self, signum: int | None) -> None:
        """Signal the process that runs now.

        :param signum: SIGKILL, and it is seen dead; SIGTERM, as of a worker that shuts down; None: a user clears the
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

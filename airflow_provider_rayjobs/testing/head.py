"""The scripted Ray head: what a test tells it, and what it can tell a test."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, Unpack, get_args

from airflow_provider_rayjobs import metadata
from airflow_provider_rayjobs.cluster.fields import CONN_TYPE
from airflow_provider_rayjobs.functions.shipped import values
from airflow_provider_rayjobs.functions.shipped.result_file import FORMAT
from airflow_provider_rayjobs.testing import answers
from airflow_provider_rayjobs.testing.jobs import TERMINAL
from airflow_provider_rayjobs.testing.ray_server import ScriptedRay

if TYPE_CHECKING:
    from airflow_provider_rayjobs.testing.answers import Answer
    from airflow_provider_rayjobs.testing.http_server import Received
    from airflow_provider_rayjobs.testing.jobs import Job

__all__ = ["JobScript", "ScriptedRayHead", "SubmittedJob"]

Status = Literal["PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED"]

#: Stands for no result; None is one.
_NONE: Any = object()


@dataclass(frozen=True)
class SubmittedJob:
    """
    A job that the scripted head has accepted, as it is now.

    Example::

        with ScriptedRayHead() as head:
            assert [job.entrypoint for job in head.submitted] == []

    :param submission_id: its id.
    :param status: its status.
    :param entrypoint: the command that a real cluster would have run.
    :param runtime_env: its runtime environment; local files in it have become URIs.
    :param metadata: its metadata, with the strings that the provider adds.
    :param request: the whole body of the submission, as JSON.
    :param stop_requested: whether the head was asked to stop it.
    """

    submission_id: str
    status: str
    entrypoint: str
    runtime_env: dict[str, Any]
    metadata: dict[str, str]
    request: dict[str, Any] = field(repr=False)
    stop_requested: bool


class JobScript(TypedDict, total=False):
    """
    What a job of the scripted head does; all keys may be left out.

    Example::

        slow = JobScript(pending=2.0, runs=10.0, log="epoch 1")
        with ScriptedRayHead() as head:
            head.next_job(**slow)

    :param status: how it ends, by default ``SUCCEEDED``. ``RUNNING``: it runs until it is stopped. ``PENDING``: it
        never starts.
    :param pending: seconds that it is PENDING, by default 0.
    :param runs: seconds that it is RUNNING, by default 0.2.
    :param log: its output, which is there from the beginning.
    :param message: Ray's message about its end; by default one that Ray gives for the status.
    :param exit_code: exit code of its driver; by default 0 or 1, depending on the status.
    :param error_type: Ray's cause of a failure, such as ``RUNTIME_ENV_SETUP_FAILURE``.
    :param result: the value that it reports, for ``read_result=True`` and ``@task.ray_job``; by default none.
    """

    status: Status
    pending: float
    runs: float
    log: str
    message: str
    exit_code: int
    error_type: str
    result: Any


@dataclass(frozen=True)
class _Script:
    status: str = "SUCCEEDED"
    pending: float = 0.0
    runs: float = 0.2
    log: str = ""
    message: str | None = None
    exit_code: int | None = None
    error_type: str | None = None
    result: Any = _NONE

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise ValueError(f"status is {self.status!r}: it must be one of {', '.join(get_args(Status))}")
        for name in ("pending", "runs"):
            if (seconds := getattr(self, name)) < 0:
                raise ValueError(f"{name} is {seconds!r}: it must be 0 or more seconds")

    @property
    def end(self) -> dict[str, Any]:
        """The fields of the ended job that the test has chosen."""
        fields = {"message": self.message, "driver_exit_code": self.exit_code, "error_type": self.error_type}
        if self.status == "FAILED" and self.message is None:
            fields["message"] = (
                f"Job entrypoint command failed with exit code {self.exit_code or 1}, last available logs (truncated "
                f"to 20,000 chars):\n{self.log[-20000:]}"
            )
        return {name: value for name, value in fields.items() if value is not None}

    def timeline(self, now: float) -> list[tuple[float, str]]:
        steps = [] if self.status == "PENDING" else [(now + self.pending, "RUNNING")]
        return [*steps, (now + self.pending + self.runs, self.status)] if self.status in TERMINAL else steps


class ScriptedRayHead:
    """
    Plays Ray's Jobs REST API on the loopback address, without running anything.

    It accepts each job, and lets it wait, run and end as the test says. Jobs have a log and may have a result. The head
    can lose answers, and be absent for a while. Each job succeeds after 0.2 s unless a test says otherwise. All methods
    may be called at any time, from any thread.

    Example::

        with ScriptedRayHead() as head:
            head.next_job(status="FAILED", exit_code=3, log="no such file")
            os.environ["AIRFLOW_CONN_RAY_DEFAULT"] = head.connection()
            submission_id = RayJobHook().submit_job(entrypoint="python train.py")
            assert head.submitted[0].entrypoint == "python train.py"

    :param ray_version: the version of Ray that the head says it has.
    """

    def __init__(self, *, ray_version: str = "2.60.0") -> None:
        self._server = _Server()
        self._server.ray_version = ray_version

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    @property
    def address(self) -> str:
        """The head's address, ``http://127.0.0.1:port``."""
        return self._server.url

    def connection(self, **extra: Any) -> str:
        """
        Return the value of an environment variable ``AIRFLOW_CONN_…`` for a connection to this head.

        :param extra: keys of the connection's extra, such as ``unreachable_timeout=2``.
        """
        return json.dumps({"conn_type": CONN_TYPE, "host": self.address, "extra": extra})

    # What jobs do

    def all_jobs(self, **script: Unpack[JobScript]) -> None:
        """
        Say what each job does that is submitted from now on, unless :meth:`next_job` says otherwise.

        :param script: the keys of :class:`JobScript`.
        :raises ValueError: if the status is none of Ray's, or a time is negative.
        """
        self._server.usual = _Script(**script)

    def next_job(self, **script: Unpack[JobScript]) -> None:
        """
        Say what one job does: the next one, or with each further call the one after.

        :param script: the keys of :class:`JobScript`.
        :raises ValueError: if the status is none of Ray's, or a time is negative.
        """
        self._server.scripts.append(_Script(**script))

    # Faults

    def lose_answer(self, times: int = 1) -> None:
        """
        Accept the next submissions, but close the connection instead of answering.

        :param times: how many submissions.
        """
        self._server.script("POST", "/api/jobs/?", *[answers.lost()] * times)

    def go_away(self, seconds: float, *, after_submission: bool = False) -> None:
        """
        Close each connection without an answer for a while, like a head that restarts and keeps its record of jobs.

        :param seconds: how long.
        :param after_submission: begin when the next submission has been answered, instead of now.
        """
        if after_submission:
            self._server.then_absent = seconds
        else:
            self._server.absent_until = time.monotonic() + seconds

    # What happened

    @property
    def submitted(self) -> list[SubmittedJob]:
        """The accepted jobs, oldest first; also those that were deleted since."""
        return self._server.snapshot()


class _Server(ScriptedRay):
    """Serves the jobs of one :class:`ScriptedRayHead`."""

    def __init__(self) -> None:
        super().__init__()
        self.usual = _Script()
        self.scripts: deque[_Script] = deque()
        self.then_absent: float | None = None
        self._accepted: list[Job] = []
        self._stop_requested: set[str] = set()
        self._count = threading.Lock()

    def begin(self, job: Job) -> None:
        """Let a job do what the test says."""
        with self._count:
            script = self.scripts.popleft() if self.scripts else self.usual
        job.timeline = script.timeline(time.time())
        job.log = script.log.splitlines(keepends=True)
        job.end = script.end
        if script.result is not _NONE:
            job.result = _result_file(script.result, job.request)
        self._accepted.append(job)

    def default_answer(self, received: Received) -> Answer:
        """Do what a head does, and note what the test may want to know."""
        if received.method == "POST" and received.path.endswith("/stop"):
            self._stop_requested.add(received.path.split("/")[-2])
        answer = super().default_answer(received)
        if self.then_absent is not None and received.method == "POST" and received.path == "/api/jobs/":
            self.absent_until, self.then_absent = time.monotonic() + self.then_absent, None
        return answer

    def snapshot(self) -> list[SubmittedJob]:
        """Return the jobs as they are now."""
        with self._lock:
            return [
                SubmittedJob(
                    submission_id=job.fields["submission_id"],
                    status=job.status,
                    entrypoint=job.request["entrypoint"],
                    runtime_env=job.request.get("runtime_env") or {},
                    metadata=job.request.get("metadata") or {},
                    request=job.request,
                    stop_requested=job.fields["submission_id"] in self._stop_requested,
                )
                for job in self._accepted
            ]


def _result_file(value: Any, request: dict[str, Any]) -> bytes:
    """Return the file that the job would have written with its value, see ``write_record`` of ``result_file``."""
    text = values.dumps(value, "result")
    header = {
        "format": FORMAT,
        "submission": (request.get("metadata") or {}).get(metadata.SUBMISSION),
        "outcome": "value",
        "bytes": len(text),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "progress": None,
    }
    return f"{json.dumps(header)}\n{text}".encode()

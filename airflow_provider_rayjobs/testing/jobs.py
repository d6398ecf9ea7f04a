"""Simulates a Ray head's jobs in memory, as a test scripts them, without I/O."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from airflow_provider_rayjobs.testing import answers
from airflow_provider_rayjobs.testing.answers import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

TERMINAL = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})

SUBMIT_FIELDS = frozenset(
    {
        "entrypoint",
        "submission_id",
        "job_id",
        "runtime_env",
        "metadata",
        "entrypoint_num_cpus",
        "entrypoint_num_gpus",
        "entrypoint_memory",
        "entrypoint_resources",
        "entrypoint_label_selector",
    }
)


@dataclass
class Job:
    """A recorded job.

    :param fields: the fields of JobDetails.
    :param request: the JSON of its submission.
    :param log: chunks of output; the WebSocket sends each as one message.
    :param timeline: future statuses, each with its start in Unix seconds.
    :param reads: future statuses, one for each GET of the job.
    :param result: the file that the job left beside its log.
    :param end: fields that the job has when it has ended as the timeline says, beside those that the status implies.
    """

    fields: dict[str, Any]
    request: dict[str, Any] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    timeline: list[tuple[float, str]] = field(default_factory=list)
    reads: deque[str] = field(default_factory=deque)
    result: bytes | None = None
    end: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The current status."""
        now = time.time()
        while self.timeline and self.timeline[0][0] <= now:
            status = self.timeline.pop(0)[1]
            self.become(status, **(self.end if status in TERMINAL else {}))
        return str(self.fields["status"])

    @property
    def ended(self) -> bool:
        """Whether the status is terminal."""
        return self.status in TERMINAL

    def become(self, status: str, **fields: Any) -> None:
        """Change the status and the fields that depend on it, then the given ones."""
        self.fields["status"] = status
        if status != "PENDING":
            self.fields.update(driver_agent_http_address="http://127.0.0.1:52365", driver_node_id="ab" * 28)
        if status in TERMINAL:
            self.timeline.clear()
            self.reads.clear()
            self.fields["end_time"] = int(time.time() * 1000)
        self.fields.update(_ENDS.get(status, {}))
        self.fields.update(fields)


_ENDS: dict[str, dict[str, Any]] = {
    "RUNNING": {"message": "Job is currently running."},
    "SUCCEEDED": {"message": "Job finished successfully.", "driver_exit_code": 0},
    "STOPPED": {"message": "Job was intentionally stopped."},
    "FAILED": {
        "message": "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 "
        "chars):\nboom\n",
        "error_type": "JOB_ENTRYPOINT_COMMAND_ERROR",
        "driver_exit_code": 1,
    },
}


class ScriptedJobs:
    """The jobs and packages of one head, and the default response to each request about them.

    The attributes may be set at any time, from any thread.
    """

    def __init__(self) -> None:
        #: Fields of ``/api/version``.
        self.session_name = "session_2026-01-01_00-00-00_000000_1"
        self.ray_version = "2.60.0"
        #: Statuses of newly submitted jobs, with seconds after the submission; PENDING before the first one.
        self.new_job_timeline: Sequence[tuple[float, str]] = ()
        #: Statuses of newly submitted jobs, one for each GET; PENDING before the first GET.
        self.new_job_reads: Sequence[str] = ()
        #: Output of newly submitted jobs.
        self.new_job_log: Sequence[str] = ()
        #: Returns the result file of a newly submitted job, from what identifies the submission; None: there is none.
        self.new_job_result: Callable[[str], bytes] | None = None
        #: Fields of a submission that this head's version knows; others are rejected with 400.
        self.submit_fields: frozenset[str] = SUBMIT_FIELDS
        #: Seconds from a stop request to STOPPED; None if the job ignores the request.
        self.stop_takes: float | None = 0.0
        #: Additional entries in the list of jobs: drivers that were not submitted.
        self.other_jobs: list[dict[str, Any]] = []
        self.jobs: dict[str, Job] = {}
        self.packages: dict[str, bytes] = {}
        self._lock = threading.RLock()

    # For tests

    def add_job(self, submission_id: str, status: str = "RUNNING", **fields: Any) -> Job:
        """Add a job as if it had been submitted before."""
        with self._lock:
            job = self.jobs[submission_id] = Job(_details(submission_id, {"entrypoint": "true"}))
            job.become(status, **fields)
            return job

    def set_status(self, submission_id: str, status: str, **fields: Any) -> None:
        """Change a job's status, and other fields if given."""
        with self._lock:
            self.jobs[submission_id].become(status, **fields)

    def append_log(self, submission_id: str, chunks: Iterable[str]) -> None:
        """Append output to a job's log."""
        with self._lock:
            self.jobs[submission_id].log.extend(chunks)

    def begin(self, job: Job) -> None:
        """Decide what a newly submitted job does, before the submission is answered."""
        now = time.time()
        job.timeline = [(now + seconds, status) for seconds, status in self.new_job_timeline]
        job.reads = deque(self.new_job_reads)
        job.log = list(self.new_job_log)
        if self.new_job_result:
            job.result = self.new_job_result(job.request["metadata"]["airflow_submission"])

    def restart(self) -> None:
        """Forget everything and start a new session, like a head without fault tolerance."""
        with self._lock:
            self.jobs.clear()
            self.packages.clear()
            self.session_name = f"session_2026-01-01_00-00-00_000000_{secrets.randbelow(10**6)}"

    # Default responses

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Handle a request and return the head's response."""
        parts = [unquote(part) for part in path.partition("?")[0].strip("/").split("/")]
        with self._lock:
            match (method, *parts):
                case ("GET", "api", "version"):
                    return answers.as_json(self._version())
                case ("POST", "api", "jobs"):
                    return self._submit(body)
                case ("GET", "api", "jobs"):
                    jobs = [_current(job) for job in self.jobs.values()]
                    return answers.as_json([*jobs, *self.other_jobs])
                case ("GET", "api", "v0", "logs", "file"):
                    return self._log_file(path)
                case (_, "api", "jobs", submission_id, *rest):
                    job = self.jobs.get(submission_id)
                    if job is None:
                        return answers.not_found(submission_id)
                    return self._about_job(method, submission_id, job, rest)
                case (_, "api", "packages", "gcs", name):
                    return self._package(method, name, body)
        return answers.text(404, "404: Not Found")

    def _version(self) -> dict[str, str]:
        return {
            "version": "4",
            "ray_version": self.ray_version,
            "ray_commit": "b7f4259e944bf6959f721b106adc366ddfa0c356",
            "session_name": self.session_name,
        }

    def _submit(self, body: bytes) -> Answer:
        try:
            request = json.loads(body)
            error = self._fault_in(request)
        except ValueError:
            error = "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)"
        if error:
            return answers.bad_request(error)
        submission_id = request.get("submission_id") or f"raysubmit_{secrets.token_hex(8)}"
        if submission_id in self.jobs:
            return answers.already_exists(submission_id)
        job = self.jobs[submission_id] = Job(_details(submission_id, request), request)
        self.begin(job)
        return answers.as_json({"job_id": submission_id, "submission_id": submission_id})

    def _fault_in(self, request: dict[str, Any]) -> str:
        for name in request:
            if name not in self.submit_fields:
                return f"TypeError: JobSubmitRequest.__init__() got an unexpected keyword argument '{name}'"
        if not isinstance(request.get("entrypoint"), str):
            return f"TypeError: entrypoint must be a string, got {type(request.get('entrypoint'))}"
        for value in (request.get("metadata") or {}).values():
            if not isinstance(value, str):
                return f"TypeError: metadata values must be strings, got {type(value)}"
        return ""

    def _about_job(self, method: str, submission_id: str, job: Job, rest: list[str]) -> Answer:
        match (method, *rest):
            case ("GET",):
                if job.reads and not job.ended:
                    job.become(job.reads.popleft())
                return answers.as_json(_current(job))
            case ("DELETE",):
                if not job.ended:
                    return answers.not_deletable(submission_id, job.status)
                del self.jobs[submission_id]
                return answers.as_json({"deleted": True})
            case ("POST", "stop"):
                return answers.as_json({"stopped": self._stop(job)})
            case ("GET", "logs"):
                return answers.as_json({"logs": "".join(job.log)})
        return answers.text(405, "405: Method Not Allowed")

    def _log_file(self, path: str) -> Answer:
        query = {name: values[0] for name, values in parse_qs(path.partition("?")[2]).items()}
        name, lines = query.get("filename", ""), int(query.get("lines", "1000"))
        stem, _, extension = name.removeprefix("job-driver-").rpartition(".")
        job = self.jobs.get(stem)
        if job and job.result is not None and extension == "result":
            return Answer(200, job.result, "text/plain")
        if job is None or extension != "log":
            return answers.text(500, f"A file is not found at: /tmp/ray/{name}")
        content = b"".join(map(_encoded, job.log))
        if lines != -1:
            content = b"".join(content.splitlines(keepends=True)[-lines:])
        return Answer(200, content, "text/plain")

    def _stop(self, job: Job) -> bool:
        if job.ended:
            return False
        if self.stop_takes is not None:
            job.reads.clear()
            job.end = {}  # of the status that does not come any more
            job.timeline = [(time.time() + self.stop_takes, "STOPPED")]
        return True

    def _package(self, method: str, name: str, body: bytes) -> Answer:
        if method == "PUT":
            self.packages[name] = body
        elif name not in self.packages:
            return answers.text(404, f"Package gcs://{name} does not exist")
        return Answer(200, b"", "application/octet-stream")


def _current(job: Job) -> dict[str, Any]:
    status = job.status  # may change the other fields
    return {**job.fields, "status": status}


def _details(submission_id: str, request: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "SUBMISSION",
        "job_id": None,
        "submission_id": submission_id,
        "driver_info": None,
        "status": "PENDING",
        "entrypoint": request["entrypoint"],
        "message": "Job has not started yet.",
        "error_type": None,
        "start_time": int(time.time() * 1000),
        "end_time": None,
        "metadata": request.get("metadata"),
        "runtime_env": request.get("runtime_env"),
        "driver_agent_http_address": None,
        "driver_node_id": None,
        "driver_exit_code": None,
    }


def _encoded(text: str) -> bytes:
    """Encode text in which lone surrogates stand for bytes that are not UTF-8, and pairs for one character."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return whole.encode("utf-8", "surrogateescape")

"""
The Ray Jobs REST API without I/O: what to ask, and what each answer means.

Each verb is a *flow*: a generator that yields :class:`Request` (or :class:`Pause`) and is sent the
:class:`Response`. ``transport`` drives the flows, once for ``requests`` and once for ``aiohttp``, so that no verb
is written twice. Routes and answers follow ``dashboard/modules/job/job_head.py`` of Ray 2.60; what older ones answer
stands in ``tests/samples/``.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from itertools import chain, repeat
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from airflow_provider_rayjobs.answers import Response, no_jobs_api, read_json, read_object
from airflow_provider_rayjobs.exceptions import (
    RayAPIError,
    RayAuthError,
    RayClusterUnreachableError,
    RayJobExistsError,
    RayJobNotFoundError,
    RayJobsError,
    RayProtocolError,
    RayRequestRefusedError,
    RayTLSError,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds to wait after a doubtful answer to a submission, before the look-up and the next attempt.
SUBMIT_GRACE = (0.5, 1.0, 2.0, 4.0, 8.0)

#: Seconds between two looks at a job that was asked to stop, and until it is asked again.
STOP_LOOK = 0.5
STOP_REPEAT = 5.0

#: Seconds after which a submission gives up when it is certain that none of its attempts left this machine.
SUBMIT_UNSENT_PATIENCE = 10.0


class JobStatus(StrEnum):
    """
    Status of a job, as in ``ray.job_submission.JobStatus``.

    A status that this version does not know keeps its text and counts as not terminal.
    """

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @classmethod
    def _missing_(cls, value: object) -> JobStatus | None:
        if not isinstance(value, str) or not value:
            return None
        log.warning("Ray reports the unknown job status %r; treated as not terminal", value)
        unknown = str.__new__(cls, value)
        unknown._name_ = value
        unknown._value_ = value
        cls._value2member_map_[value] = unknown
        return unknown

    def __str__(self) -> str:
        return str(self.value)

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended and its status will not change any more."""
        return self in (JobStatus.STOPPED, JobStatus.SUCCEEDED, JobStatus.FAILED)


@dataclass(frozen=True)
class JobDetails:
    """
    One job as ``GET /api/jobs/{id}`` describes it (``JobDetails`` of Ray's ``pydantic_models.py``).

    Times are Unix milliseconds. Fields that a newer Ray adds are dropped.
    """

    type: str
    status: JobStatus
    submission_id: str | None = None
    job_id: str | None = None
    entrypoint: str = ""
    message: str | None = None
    error_type: str | None = None
    start_time: int | None = None
    end_time: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    runtime_env: Mapping[str, Any] = field(default_factory=dict, repr=False)
    driver_info: Mapping[str, Any] | None = None
    driver_agent_http_address: str | None = None
    driver_node_id: str | None = None
    driver_exit_code: int | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> JobDetails:
        """
        Build the details from the decoded JSON object of an answer.

        :param data: the object; ``type`` and ``status`` are required.
        :raises ValueError: a required field is missing or of a wrong type.
        """
        values = {key: value for key, value in data.items() if key in _JOB_FIELDS and value is not None}
        try:
            return cls(**{**values, "status": JobStatus(data["status"])})
        except (KeyError, TypeError) as e:
            raise ValueError(f"job details without {e}") from None


_JOB_FIELDS = frozenset(f.name for f in fields(JobDetails))


@dataclass(frozen=True)
class VersionInfo:
    """Answer of ``GET /api/version``; ``session_name`` changes when the head restarts."""

    ray_version: str
    session_name: str | None = None


class Body(Protocol):
    """A body that is read while it is sent."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes]: ...

    def read(self, length: int = -1, /) -> bytes:
        """Read on; no bytes are the end."""


@dataclass(frozen=True)
class Request:
    """
    A request to send.

    :param method: HTTP method.
    :param path: path below the cluster's address, quoted.
    :param json: body, encoded as JSON when given.
    :param repeatable: whether sending it twice does no harm; only then is it retried.
    :param secrets: texts that must not show in an error message.
    :param upload: opens the body, from its beginning, for each attempt to send it; it is streamed. Reading it blocks,
        so only ``RequestsTransport`` sends it.
    """

    method: str
    path: str
    json: Any = field(default=None, repr=False)
    repeatable: bool = True
    secrets: tuple[str, ...] = field(default=(), repr=False)
    upload: Callable[[], Body] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Pause:
    """A wait, in seconds, that a flow asks its driver for."""

    seconds: float


Flow = Generator[Request | Pause, Response, T]


@dataclass(frozen=True)
class Submission:
    """
    The body of ``POST /api/jobs/`` (``JobSubmitRequest`` of Ray's ``dashboard/modules/job/common.py``).

    Fields that are None are not sent: older servers refuse fields that they do not know.
    """

    entrypoint: str
    submission_id: str
    runtime_env: Mapping[str, Any] | None = field(default=None, repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)
    entrypoint_num_cpus: float | None = None
    entrypoint_num_gpus: float | None = None
    entrypoint_memory: int | None = None
    entrypoint_resources: Mapping[str, float] | None = None
    entrypoint_label_selector: Mapping[str, str] | None = None

    def request(self) -> Request:
        """Return the request that submits this job."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        body = {key: dict(v) if isinstance(v, Mapping) else v for key, v in values.items() if v is not None}
        env_vars = (self.runtime_env or {}).get("env_vars") or {}
        secrets = tuple(str(value) for value in env_vars.values())
        return Request("POST", "/api/jobs/", json=body, repeatable=False, secrets=secrets)


def submit_job(
    submission: Submission,
    is_ours: Callable[[JobDetails], bool],
    *,
    patience: float,
    clock: Callable[[], float] = time.monotonic,
) -> Flow[str]:
    """
    Submit a job so that it runs once, whatever happens to the answer (``POST /api/jobs/``).

    Ray refuses a submission id that it has seen. So after an answer that leaves a doubt (cut off, timed out,
    500 ``already exists``, a proxy's 502), the id is looked up: a job that is ours is taken for accepted; no job
    means that the same id can be sent again.

    :param submission: the job.
    :param is_ours: tells from the details of a job of this id whether this submission made it.
    :param patience: seconds to go on while the job may have been accepted and the cluster can't be asked.
    :param clock: monotonic clock, in seconds.
    :return: the submission id.
    :raises RayJobExistsError: a job that is not ours has this id.
    :raises RayRequestRefusedError: Ray refused the request.
    :raises RayClusterUnreachableError: the doubt could not be cleared.
    """
    started, maybe_sent = clock(), False
    for grace in chain(SUBMIT_GRACE, repeat(SUBMIT_GRACE[-1])):
        try:
            return _read_submitted((yield submission.request()))
        except (RayTLSError, RayRequestRefusedError):
            raise
        except (RayClusterUnreachableError, RayAPIError) as e:
            doubt, exists = e, isinstance(e, RayJobExistsError)
            maybe_sent = maybe_sent or not isinstance(e, RayClusterUnreachableError) or e.maybe_sent
            log.warning(
                "Whether Ray job %s was accepted is not certain; looking it up: %s", submission.submission_id, e
            )
        if not exists:
            yield Pause(grace)
        if (yield from _was_accepted(submission, is_ours, doubt)):
            return submission.submission_id
        if exists:  # and can't be read: a record without a job, or one that is being deleted
            yield Pause(grace)
        if clock() - started > (patience if maybe_sent else min(patience, SUBMIT_UNSENT_PATIENCE)):
            raise doubt
    raise AssertionError("unreachable: the loop has no end of its own")


def _was_accepted(submission: Submission, is_ours: Callable[[JobDetails], bool], doubt: RayJobsError) -> Flow[bool]:
    """Look the id of a doubtful submission up; False when there is no job, or none can be seen."""
    try:
        job = yield from get_job_info(submission.submission_id)
    except RayAuthError:
        return False  # a token that has just run out; if not, the next attempt is refused
    except (RayRequestRefusedError, RayProtocolError):
        raise
    except (RayClusterUnreachableError, RayAPIError):
        return False
    if not is_ours(job):
        raise _foreign_job(doubt, submission.submission_id, job) from doubt
    return True


def _foreign_job(doubt: RayJobsError, submission_id: str, job: JobDetails) -> RayJobExistsError:
    address = str(doubt).partition(": ")[0]  # every message of an exchange begins with it
    return RayJobExistsError(
        f"{address}: submission id {submission_id!r} already belongs to another job ({job.status}); choose "
        "another submission_id, or delete that job"
    )


def _read_submitted(response: Response) -> str:
    data = read_object(response)
    submission_id = data.get("submission_id") or data.get("job_id")
    if not isinstance(submission_id, str):
        raise no_jobs_api(response, "the answer to the submission names no submission_id")
    return submission_id


def stop_job(submission_id: str) -> Flow[bool]:
    """
    Ask a job to stop (``POST /api/jobs/{id}/stop``); it ends STOPPED some seconds later.

    :return: True when it was running, False when it had already ended.
    :raises RayJobNotFoundError: no such job.
    """
    data = read_object((yield Request("POST", f"{job_path(submission_id)}/stop")))
    return bool(data.get("stopped"))


def stop_and_wait(
    submission_id: str, *, patience: float, appear: float = 0.0, clock: Callable[[], float] = time.monotonic
) -> Flow[JobDetails | None]:
    """
    Stop a job and wait until it has ended.

    The request is repeated: a job on record whose actor has not started yet does not hear a first one.

    :param patience: seconds to wait for the job's end.
    :param appear: seconds within which a job that the cluster does not know may still appear.
    :param clock: monotonic clock, in seconds.
    :return: the job's last details, whose status is not terminal when the patience ran out; None when the cluster
        does not know the job.
    """
    started, asked = clock(), -math.inf
    while True:
        job = None
        try:
            if clock() - asked > STOP_REPEAT and (yield from stop_job(submission_id)):
                asked = clock()
            job = yield from get_job_info(submission_id)
        except RayJobNotFoundError:
            asked = -math.inf
        if job is not None and job.status.is_terminal:
            return job
        if clock() - started >= (appear if job is None else patience):
            return job
        yield Pause(STOP_LOOK)


def delete_job(submission_id: str) -> Flow[bool]:
    """
    Delete an ended job's record (``DELETE /api/jobs/{id}``); Ray answers 500 for a live one.

    :return: True when it was deleted.
    :raises RayJobNotFoundError: no such job.
    """
    data = read_object((yield Request("DELETE", job_path(submission_id))))
    return bool(data.get("deleted"))


def get_job_info(submission_id: str) -> Flow[JobDetails]:
    """
    Read a job's details (``GET /api/jobs/{id}``).

    :raises RayJobNotFoundError: no such job.
    """
    response = yield Request("GET", job_path(submission_id))
    try:
        return JobDetails.from_json(read_object(response))
    except ValueError as e:
        raise no_jobs_api(response, str(e)) from None


def list_jobs() -> Flow[list[JobDetails]]:
    """Read all jobs that the cluster ever had (``GET /api/jobs/``), drivers that nobody submitted included."""
    response = yield Request("GET", "/api/jobs/")
    data = read_json(response)
    if not isinstance(data, list):
        raise no_jobs_api(response, "JSON that is no list")
    try:
        return [JobDetails.from_json(job) for job in data]
    except (ValueError, AttributeError) as e:
        raise no_jobs_api(response, f"not a list of jobs ({e})") from None


def get_job_logs(submission_id: str) -> Flow[str]:
    """Read a job's whole log in one text (``GET /api/jobs/{id}/logs``); it has no bound."""
    response = yield Request("GET", f"{job_path(submission_id)}/logs")
    logs = read_object(response).get("logs")
    if not isinstance(logs, str):
        raise no_jobs_api(response, "an answer without logs")
    return logs


def get_version() -> Flow[VersionInfo]:
    """Read Ray's version and the head's session (``GET /api/version``)."""
    response = yield Request("GET", "/api/version")
    data = read_object(response)
    if not isinstance(data.get("ray_version"), str):
        raise no_jobs_api(response, "an answer without ray_version")
    return VersionInfo(data["ray_version"], data.get("session_name"))


def job_path(submission_id: str) -> str:
    """
    Return the path of a job's route.

    :raises ValueError: no route has this id.
    """
    if submission_id in ("", ".", ".."):
        raise ValueError(f"submission_id is {submission_id!r}, which names no job")
    return f"/api/jobs/{quote(submission_id, safe='')}"

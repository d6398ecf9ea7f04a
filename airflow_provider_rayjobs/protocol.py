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
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from itertools import chain, repeat
from typing import Any, Protocol, TypeGuard, TypeVar
from urllib.parse import quote, urlsplit

from airflow_provider_rayjobs.answer_body import ANSWER_LIMIT, TakePiece
from airflow_provider_rayjobs.answers import Response, no_jobs_api, read_object
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
from airflow_provider_rayjobs.safe_text import safe_text, safe_value

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds to wait after a doubtful answer to a submission, before the look-up and the next attempt.
SUBMIT_GRACE = (0.5, 1.0, 2.0, 4.0, 8.0)

#: Seconds between two looks at a job that was asked to stop, and until it is asked again.
STOP_LOOK = 0.5
STOP_REPEAT = 5.0

#: Characters that a status may have, and a version, the name of a head's session, or the type of an error.
LONGEST_STATUS = 64
LONGEST_NAME = 200

#: Characters of a message that are kept. Ray itself cuts what it quotes of a job's log to 20,000.
LONGEST_MESSAGE = 22_000

#: Ray's own id of a job.
_JOB_ID = re.compile("[0-9a-f]{8}")

#: Unix milliseconds that a job may have begun or ended at, at most: the end of the year 9999.
LATEST_TIME = 253_402_300_799_999

#: Containers in containers of a ``runtime_env`` or other object of a job, or of a connection's extra, at most.
MOST_LEVELS = 100


class JobStatus(StrEnum):
    """
    Status of a job, as in ``ray.job_submission.JobStatus``.

    A status that this version does not know keeps its text, equals it, and counts as not terminal.
    """

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @classmethod
    def _missing_(cls, value: object) -> JobStatus | None:
        if not isinstance(value, str) or not _may_be_status(value):
            return None
        unknown = str.__new__(cls, value)  # not kept: a cluster may invent any number of them
        unknown._name_ = value
        unknown._value_ = value
        return unknown

    def __str__(self) -> str:
        return str(self.value)

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended and its status will not change any more."""
        return self in (JobStatus.STOPPED, JobStatus.SUCCEEDED, JobStatus.FAILED)

    @property
    def is_known(self) -> bool:
        """Whether it is one of those above."""
        return self.value in JobStatus._value2member_map_


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

    @property
    def driver_ip(self) -> str | None:
        """The address of the node that runs the job's process, or ran it; None when it is not known."""
        try:
            return urlsplit(self.driver_agent_http_address or "").hostname
        except ValueError:  # "http://[": the cluster may say anything
            return None

    @classmethod
    def from_json(cls, data: Any) -> JobDetails:
        """
        Build the details from the decoded JSON of an answer; the one place where a cluster's word on a job is checked.

        :param data: the object; ``type`` and ``status`` are required.
        :raises ValueError: it is not an object, a required field is missing, or a field has a wrong type or value.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"a job that is not an object but {type(data).__name__}")
        values: dict[str, Any] = {}
        for name, check in _CHECKS.items():
            value = data.get(name)
            if value is None and name not in ("type", "status"):
                continue
            try:
                values[name] = safe_value(check(value))
            except (TypeError, ValueError, OverflowError) as e:
                raise ValueError(f"a job whose {name} {e}") from None
        return cls(**values)


def may_run_hint(submission_id: str, job: JobDetails | None) -> str:
    """
    Say that the process of a job may still run which a restarted head has forgotten, where, and what to do.

    :param job: what the last look saw; None when there was none.
    """
    where = "the job's node"
    if job is not None and job.driver_node_id:
        where = f"node {job.driver_ip or 'of an unknown address'} (node id {job.driver_node_id})"
    return (
        f"Its process may still run on {where}: one on a worker node outlives the head. Look there for a process with "
        f"{submission_id} in its environment, and end it."
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"is not a string but {type(value).__name__}")
    return value


def _message(value: Any) -> str:
    text, half = _text(value), LONGEST_MESSAGE // 2
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:half]}\n… (cut) …\n{text[-half:]}"


def _name(value: Any) -> str:
    return _text(value)[:LONGEST_NAME]


def _status(value: Any) -> JobStatus:
    if not isinstance(value, str) or not _may_be_status(value):
        raise ValueError(f"is not a string of 1 to {LONGEST_STATUS} printable ASCII characters")
    return JobStatus(value)


def _may_be_status(value: str) -> bool:
    return 0 < len(value) <= LONGEST_STATUS and value.isascii() and value.isprintable()


def _whole_number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise TypeError("is not a whole number")
    return int(value)


def _exit_code(value: Any) -> int:
    if not -(2**31) <= (number := _whole_number(value)) < 2**32:
        raise ValueError("is not an exit code")
    return number


def _milliseconds(value: Any) -> int:
    if not 0 <= (number := _whole_number(value)) <= LATEST_TIME:
        raise ValueError("is not a time in milliseconds")
    return number


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"is not an object but {type(value).__name__}")
    if not has_levels(value, MOST_LEVELS):
        raise ValueError(f"has more than {MOST_LEVELS} levels")
    return value


def has_levels(value: Any, most: int) -> bool:
    """Whether a JSON value has at most ``most`` containers in containers."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most > 0 and all(has_levels(item, most - 1) for item in items)


def _strings(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise TypeError("is not an object of strings")
    return value


#: The fields of a job, and what checks each.
_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "type": _text,
    "status": _status,
    "submission_id": _text,
    "job_id": _text,
    "entrypoint": _text,
    "message": _message,
    "error_type": _name,
    "start_time": _milliseconds,
    "end_time": _milliseconds,
    "metadata": _strings,
    "runtime_env": _object,
    "driver_info": _object,
    "driver_agent_http_address": _name,
    "driver_node_id": _name,
    "driver_exit_code": _exit_code,
}


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
    :param receive: begins, for each attempt, with an answer that is too large to hold: what it returns takes the
        pieces of the body of a 200, and the answer's own text stays empty.
    :param limit: bytes that the answer may have.
    :param within: seconds that the answer may take, from the open connection to its last byte, where that is more than
        the connection's ``read_timeout``.
    """

    method: str
    path: str
    json: Any = field(default=None, repr=False)
    repeatable: bool = True
    secrets: tuple[str, ...] = field(default=(), repr=False)
    upload: Callable[[], Body] | None = field(default=None, repr=False)
    receive: Callable[[], TakePiece] | None = field(default=None, repr=False)
    limit: int = ANSWER_LIMIT
    within: float = 0.0


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
    means that the same id can be sent again. An error that comes back word for word, while there is no job, is final.

    :param submission: the job.
    :param is_ours: tells from the details of a job of this id whether this submission made it.
    :param patience: seconds to go on while the answers leave a doubt. When none of the attempts left this machine, and
        the cluster can't be asked either, there is no doubt, and it ends at once.
    :param clock: monotonic clock, in seconds.
    :return: the submission id.
    :raises RayJobExistsError: a job that is not ours has this id.
    :raises RayRequestRefusedError: Ray refused the request.
    :raises RayAPIError: Ray answered with the same error twice.
    :raises RayClusterUnreachableError: nothing was sent, or the doubt could not be cleared.
    """
    started, maybe_sent, before, told = clock(), False, "", ""
    for grace in chain(SUBMIT_GRACE, repeat(SUBMIT_GRACE[-1])):
        try:
            _check_accepted((yield submission.request()), submission.submission_id)
            return submission.submission_id
        except (RayTLSError, RayRequestRefusedError):
            raise
        except (RayClusterUnreachableError, RayAPIError) as e:
            doubt, exists = e, isinstance(e, RayJobExistsError)
            waited = clock() - started  # until the attempt failed: a look-up that waited is followed by another one
            maybe_sent = maybe_sent or not isinstance(e, RayClusterUnreachableError) or e.maybe_sent
            told = _tell_doubt(submission, e, told)
        if not exists:
            yield Pause(grace)
        accepted = yield from _was_accepted(submission, is_ours, doubt, maybe_sent=maybe_sent)
        if accepted:
            return submission.submission_id
        if accepted is False and isinstance(doubt, RayAPIError):
            if str(doubt) == before:
                raise doubt
            before = str(doubt)
        if exists:  # and can't be read: a record without a job, or one that is being deleted
            yield Pause(grace)
        if waited >= patience:
            raise _given_up(doubt, waited)
    raise AssertionError("unreachable: the loop has no end of its own")


def _tell_doubt(submission: Submission, doubt: RayClusterUnreachableError | RayAPIError, told: str) -> str:
    """Log a doubt, unless there is none, or it is the one that was told last; return what was told."""
    if isinstance(doubt, RayClusterUnreachableError) and not doubt.maybe_sent:
        return told
    if str(doubt) != told:
        log.warning(
            "Whether Ray job %s was accepted is not certain; looking it up: %s", submission.submission_id, doubt
        )
    return str(doubt)


def _given_up(doubt: RayClusterUnreachableError | RayAPIError, waited: float) -> RayJobsError:
    if not isinstance(doubt, RayClusterUnreachableError) or waited < 1:
        return doubt
    return RayClusterUnreachableError(f"{doubt}; the submission was given up after {waited:.0f} s")


def _was_accepted(
    submission: Submission, is_ours: Callable[[JobDetails], bool], doubt: RayJobsError, *, maybe_sent: bool
) -> Flow[bool | None]:
    """Look the id of a doubtful submission up; False when there is no job, None when that can't be seen."""
    try:
        job = yield from get_job_info(submission.submission_id)
    except RayJobNotFoundError:
        return False
    except RayAuthError:
        return None  # a token that has just run out; if not, the next attempt is refused
    except (RayRequestRefusedError, RayProtocolError):
        raise
    except RayClusterUnreachableError:
        if not maybe_sent:
            raise
        return None
    except RayAPIError:
        return None
    if not is_ours(job):
        raise _foreign_job(doubt, submission.submission_id, job) from doubt
    return True


def _foreign_job(doubt: RayJobsError, submission_id: str, job: JobDetails) -> RayJobExistsError:
    address = str(doubt).partition(": ")[0]  # every message of an exchange begins with it
    return RayJobExistsError(
        f"{address}: submission id {submission_id!r} already belongs to another job ({job.status}); choose "
        "another submission_id, or delete that job"
    )


def _check_accepted(response: Response, submission_id: str) -> None:
    """Check that Ray has accepted the job under the id that was sent."""
    data = read_object(response)
    accepted = data.get("submission_id") or data.get("job_id")
    if accepted != submission_id:
        raise no_jobs_api(response, f"the answer to a submission with another submission_id ({str(accepted)[:100]!r})")


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

    :param patience: seconds to wait for the job's end, from the first answer on.
    :param appear: seconds within which a job that the cluster does not know may still appear, likewise.
    :param clock: monotonic clock, in seconds.
    :return: the job's last details, whose status is not terminal when the patience ran out; None when the cluster
        does not know the job.
    """
    answered, asked = math.inf, -math.inf
    while True:
        job = None
        try:
            if clock() - asked > STOP_REPEAT and (yield from stop_job(submission_id)):
                asked = clock()
            job = yield from get_job_info(submission_id)
        except RayJobNotFoundError:
            asked = -math.inf
        answered = min(answered, clock())
        if job is not None and job.status.is_terminal:
            return job
        if clock() - answered >= (appear if job is None else patience):
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
        job = JobDetails.from_json(read_object(response))
    except ValueError as e:
        raise no_jobs_api(response, str(e)) from None
    # Ray takes its own id of a job, too.
    if job.submission_id != submission_id and not (job.job_id == submission_id and _JOB_ID.fullmatch(submission_id)):
        raise no_jobs_api(response, f"the details of another job ({str(job.submission_id or job.job_id)[:100]!r})")
    return job


def get_version() -> Flow[VersionInfo]:
    """Read Ray's version and the head's session (``GET /api/version``)."""
    response = yield Request("GET", "/api/version")
    data = read_object(response)
    version, session = data.get("ray_version"), data.get("session_name")
    if not _is_name(version):
        raise no_jobs_api(response, "an answer without a ray_version")
    if session is not None and not _is_name(session):
        raise no_jobs_api(response, "an answer with a wrong session_name")
    return VersionInfo(safe_text(version), None if session is None else safe_text(session))


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME


def job_path(submission_id: str) -> str:
    """
    Return the path of a job's route.

    :raises ValueError: no route has this id.
    """
    if submission_id in ("", ".", ".."):
        raise ValueError(f"submission_id is {submission_id!r}, which names no job")
    return f"/api/jobs/{quote(submission_id, safe='')}"

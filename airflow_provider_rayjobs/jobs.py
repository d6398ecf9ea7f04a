"""
Types that hooks, operators and triggers return.

They follow ``dashboard/modules/job/common.py`` and ``pydantic_models.py`` of Ray 2.60. Every value of a job that a
cluster sends is checked in :meth:`JobDetails.from_json`, and nowhere else. Example::

    from airflow_provider_rayjobs.hooks import RayJobHook
    from airflow_provider_rayjobs.jobs import JobStatus

    failed = [job for job in RayJobHook().list_jobs() if job.status is JobStatus.FAILED]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_rayjobs.text.json_levels import MOST_LEVELS, has_at_most_levels
from airflow_provider_rayjobs.text.safe_text import safe_value

__all__ = ["FailedTasks", "JobDetails", "JobFailure", "JobStatus", "VersionInfo"]

#: Maximum length of a status; and of a version, a session's name or an error's type, in characters.
LONGEST_STATUS = 64
LONGEST_NAME = 200

#: Maximum length of a message, in characters; longer ones are cut. Ray itself quotes at most 20,000 of a job's log.
LONGEST_MESSAGE = 22_000

#: Latest start or end of a job, in Unix milliseconds: the end of the year 9999.
LATEST_TIME = 253_402_300_799_999


class JobStatus(StrEnum):
    """
    Status of a job, as in ``ray.job_submission.JobStatus``.

    A status unknown to this version keeps its text, is equal to it, and counts as not terminal.

    Example::

        status = JobStatus("FAILED")
        assert status is JobStatus.FAILED
        assert status.is_terminal
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
        unknown = str.__new__(cls, value)  # not kept in the enum: a cluster may send any number of them
        unknown._name_ = unknown._value_ = value
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
        return self.name in JobStatus.__members__


@dataclass(frozen=True)
class JobDetails:
    """
    One job as ``GET /api/jobs/{id}`` describes it (``JobDetails`` of Ray's ``pydantic_models.py``).

    Times are Unix milliseconds. Fields that a newer Ray adds are ignored.

    Example::

        data = {"type": "SUBMISSION", "status": "RUNNING", "submission_id": "a", "start_time": 1764382000000}
        job = JobDetails.from_json(data)
        assert job.status is JobStatus.RUNNING
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
        """The address of the node on which the job's process runs or ran; None if it is not known."""
        try:
            return urlsplit(self.driver_agent_http_address or "").hostname
        except ValueError:  # such as "http://["; the cluster is not trusted
            return None

    @classmethod
    def from_json(cls, data: Any) -> JobDetails:
        """
        Build the details from the decoded JSON of an answer, and check every field.

        :param data: the object; ``type`` and ``status`` are required.
        :raises ValueError: it is not an object, a required field is missing, or a field has a wrong type or value.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"a job that is {type(data).__name__} instead of an object")
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


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"is {type(value).__name__} instead of a string")
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
        raise TypeError(f"is {type(value).__name__} instead of an object")
    if not has_at_most_levels(value, MOST_LEVELS):
        raise ValueError(f"is nested more than {MOST_LEVELS} levels deep")
    return value


def _strings(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise TypeError("is not an object of strings")
    return value


#: The check of each field of a job.
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
    """
    The answer of ``GET /api/version``; ``session_name`` changes when the head restarts.

    Example::

        assert VersionInfo("2.60.0") == VersionInfo(ray_version="2.60.0", session_name=None)
    """

    ray_version: str
    session_name: str | None = None


@dataclass(frozen=True)
class FailedTasks:
    """
    The Ray tasks of a job that failed in one way.

    Ray counts each attempt: a task that fails and is retried counts once for each failure.

    Example::

        tasks = FailedTasks("OUT_OF_MEMORY", 208, functions=("train_step",))
        assert tasks.number == 208

    :param cause: Ray's word for it (``ErrorType`` of ``common.proto``): ``OUT_OF_MEMORY``, ``NODE_DIED``,
        ``WORKER_DIED``, ``ACTOR_DIED``, ``TASK_EXECUTION_EXCEPTION`` (the task's code raised) and others.
    :param number: how many failed in this way.
    :param message: Ray's most frequent text about it, as one line, without the job's secrets.
    :param functions: names of the functions or classes, the most frequent first; at most three.
    """

    cause: str
    number: int
    message: str = ""
    functions: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobFailure:
    """
    Why a job FAILED, as far as Ray tells.

    Example::

        failure = JobFailure(cause="OUT_OF_MEMORY", exit_code=1, failed_tasks=(FailedTasks("OUT_OF_MEMORY", 208),))
        assert JobFailure.from_json(failure.to_json()) == failure

    :param cause: the cause of the Ray task that failed last (see :class:`FailedTasks`), else Ray's ``error_type`` of
        the job, such as ``RUNTIME_ENV_SETUP_FAILURE`` or ``JOB_ENTRYPOINT_COMMAND_ERROR``; empty if Ray gave none.
    :param exit_code: exit code of the job's entrypoint; negative for a signal. None if it is not known.
    :param failed_tasks: the failed tasks by cause, the most frequent first.
    :param tasks: how many tasks of the job Ray knows; 0 if that is not known.
    :param dead_nodes: the nodes that died while the job ran, each with what Ray says.
    :param dead_actors: what Ray says of the job's actors that died, by class; at most three.
    """

    cause: str = ""
    exit_code: int | None = None
    failed_tasks: tuple[FailedTasks, ...] = ()
    tasks: int = 0
    dead_nodes: tuple[str, ...] = ()
    dead_actors: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the failure as JSON values, for events and XComs."""
        failure: dict[str, Any] = safe_value(
            {
                **asdict(self),
                "failed_tasks": [{**asdict(tasks), "functions": list(tasks.functions)} for tasks in self.failed_tasks],
                "dead_nodes": list(self.dead_nodes),
                "dead_actors": list(self.dead_actors),
            }
        )
        return failure

    @classmethod
    def from_json(cls, data: Any) -> JobFailure:
        """
        Read what :meth:`to_json` returned; fields of a newer version are ignored.

        :raises ValueError: it is not a failure.
        """
        try:
            code = data["exit_code"]
            return cls(
                cause=str(data["cause"]),
                exit_code=None if code is None else int(code),
                failed_tasks=tuple(
                    FailedTasks(
                        cause=str(tasks["cause"]),
                        number=int(tasks["number"]),
                        message=str(tasks["message"]),
                        functions=tuple(map(str, tasks["functions"])),
                    )
                    for tasks in data["failed_tasks"]
                ),
                tasks=int(data["tasks"]),
                dead_nodes=tuple(map(str, data["dead_nodes"])),
                dead_actors=tuple(map(str, data["dead_actors"])),
            )
        except (KeyError, TypeError, ValueError) as e:
            raise ValueError(f"not the failure of a job ({e!r})") from None

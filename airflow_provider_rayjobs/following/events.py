"""
The outcome of a followed job: the one event that a trigger sends to its operator.

The event is JSON, versioned, and checked on arrival. It holds everything that the operator needs after the deferral,
because neither its attributes nor (in ``airflow dags test``) the keyword arguments of ``defer`` survive that.
"""

from __future__ import annotations

import re
import signal
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_rayjobs import progress
from airflow_provider_rayjobs.diagnosis.failure import failure_lines, in_words
from airflow_provider_rayjobs.diagnosis.packages import remedy_for
from airflow_provider_rayjobs.exceptions import (
    RayClusterUnreachableError,
    RayJobFailedError,
    RayJobLostError,
    RayJobStoppedError,
    RayJobTimeoutError,
)
from airflow_provider_rayjobs.jobs import JobFailure
from airflow_provider_rayjobs.text.ray_messages import LOGS_FOLLOW
from airflow_provider_rayjobs.text.safe_text import safe_value

if TYPE_CHECKING:
    from airflow_provider_rayjobs.jobs import JobDetails

EVENT_VERSION = 1

#: Maximum length of the last line of a log that is shown elsewhere, in characters.
LONGEST_LAST_LINE = 300

#: Lines that Ray adds to a job's log.
_OF_RAY = re.compile(r"(\x1b\[\d+m)?\(raylet\)|Running entrypoint for job |\S+ \S+\s+INFO\s+(job_manager|worker)\.py:")

#: Fields of an event that are Unix seconds, where known.
_TIMES = ("submitted_at", "left_pending_at", "finished_at")

_COMMAND_FAILED = "Job entrypoint command failed with exit code"


class Outcome(StrEnum):
    """How following a job ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    TIMEOUT = "timeout"
    LOST = "lost"
    UNREACHABLE = "unreachable"

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class JobEvent:
    """
    How following one job ended.

    :param submission_id: the job.
    :param address: the cluster's address, for messages.
    :param outcome: how it ended.
    :param detail: for TIMEOUT, LOST and UNREACHABLE: what happened, as a predicate of the job.
    :param message: Ray's own message.
    :param error_type: Ray's ``error_type``.
    :param exit_code: exit code of the driver.
    :param log_tail: last lines of the job's log.
    :param log_shown: whether the task log has the job's whole log.
    :param failure: for FAILED: why, as far as Ray tells; None if this could not be found out.
    :param reattached_at: Unix seconds at which a later try took over an earlier try's job, else None.
    :param ended_at: Unix seconds at which the end was noticed.
    :param progress: the function's last progress report that the followed log contained.
    :param may_run: for LOST and TIMEOUT: whether the job's process may still run.
    :param node_id: for LOST: Ray's id of the node that ran the job's process, where known.
    :param node_ip: for LOST: this node's address, where known.
    :param submitted_at: Unix seconds of the submission.
    :param left_pending_at: Unix seconds at which the job was seen to have left PENDING, to within the time between two
        requests for it; None if nobody saw that.
    :param finished_at: Unix seconds of the job's end; None if it was not seen.
    """

    submission_id: str
    address: str
    outcome: Outcome
    detail: str = ""
    message: str | None = None
    error_type: str | None = None
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()
    log_shown: bool = False
    failure: JobFailure | None = None
    reattached_at: float | None = None
    ended_at: float = 0.0
    progress: dict[str, Any] | None = None
    may_run: bool = True
    node_id: str | None = None
    node_ip: str | None = None
    submitted_at: float | None = None
    left_pending_at: float | None = None
    finished_at: float | None = None

    def to_json(self) -> dict[str, Any]:
        """
        Return the event as a JSON object that every database can store.

        Only what differs from the default is in it: Airflow takes longer to store an event with more items, and stores
        one event after the other.
        """
        values = {**asdict(self), "outcome": str(self.outcome), "log_tail": list(self.log_tail)}
        values = {f.name: values[f.name] for f in fields(self) if getattr(self, f.name) != f.default}
        if self.progress is not None:
            values["progress"] = progress.stored(self.progress)
        event: dict[str, Any] = safe_value({"version": EVENT_VERSION, **values})
        return event

    @classmethod
    def from_json(cls, data: Any) -> JobEvent:
        """
        Check and read an event.

        :param data: what the trigger sent.
        :raises ValueError: if it is not a valid event of this version.
        """
        if not isinstance(data, dict) or data.get("version") != EVENT_VERSION:
            raise ValueError(
                f"the trigger's event is not of version {EVENT_VERSION}: {str(data)[:200]!r}; the triggerer and "
                "the worker must run the same version of airflow-provider-rayjobs"
            )
        known = {f.name for f in fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        try:
            event = cls(
                **{
                    **values,
                    "outcome": Outcome(values["outcome"]),
                    "log_tail": tuple(map(str, values.get("log_tail") or ())),
                    "log_shown": values.get("log_shown") is True,
                    "failure": _failure_in(values.get("failure")),
                    **{name: None if values.get(name) is None else float(values[name]) for name in _TIMES},
                    "progress": None if values.get("progress") is None else progress.checked(values["progress"]),
                }
            )
        except (KeyError, TypeError, ValueError) as e:
            raise ValueError(f"the trigger sent a malformed event ({e}): {str(data)[:200]!r}") from None
        if not (event.submission_id and isinstance(values["submission_id"], str)):
            raise ValueError(f"the trigger sent an event without submission_id: {str(data)[:200]!r}")
        return event


def failed_error(event: JobEvent, traceback: str = "") -> RayJobFailedError:
    """
    Return the error of a job that FAILED.

    :param traceback: as for :func:`describe_failure`.
    """
    failure = _failure(event)
    return RayJobFailedError(
        describe_failure(event, traceback),
        submission_id=event.submission_id,
        cause=failure.cause,
        exit_code=event.exit_code,
        failed_tasks=failure.failed_tasks,
        log_tail=event.log_tail,
        dead_nodes=failure.dead_nodes,
    )


def _failure_in(data: Any) -> JobFailure | None:
    """Read the failure in an event; None if there is none of this version: the outcome does not depend on it."""
    try:
        return None if data is None else JobFailure.from_json(data)
    except ValueError:
        return None


def _failure(event: JobEvent) -> JobFailure:
    return event.failure or JobFailure(event.error_type or "", event.exit_code)


def describe_failure(event: JobEvent, traceback: str = "") -> str:
    """
    Return the error text of a job that FAILED: the cause, what failed, Ray's message, and the end of the log.

    Of a log that the task log has already, only the last line is repeated.

    :param traceback: of the function that the job ran, without secrets. The function's job prints it, too.
    """
    failure = _failure(event)
    known = "; ".join(fact for fact in (_cause_in_words(failure.cause), _exit_code_in_words(event.exit_code)) if fact)
    raised = traceback.rstrip().rpartition("\n")[2]
    lines = [f"Ray job FAILED: {raised or known or 'Ray gives no reason'}", *failure_lines(failure)]
    if message := _message_without_log(event):
        lines.append(f"Ray: {message}")
        lines += [f"What to do: {remedy}"] if (remedy := remedy_for(message)) else []
    if traceback:
        lines += [] if event.log_shown else [traceback.rstrip()]
    elif not event.log_shown:
        lines += ["Last lines of the job's log:", *event.log_tail] if event.log_tail else []
    elif own := [line for line in event.log_tail if line.strip() and not _OF_RAY.match(line)]:
        lines.append(f"Last line of the job's log: {own[-1][:LONGEST_LAST_LINE]}")
    lines.append(f"The job is {event.submission_id} at {event.address}")
    return "\n".join(lines)


def _cause_in_words(cause: str) -> str:
    """Return a cause in words; empty for none, and for that of an entrypoint, whose exit code tells more."""
    return "" if cause in ("", "JOB_ENTRYPOINT_COMMAND_ERROR") else in_words(cause)


def _exit_code_in_words(code: int | None) -> str:
    """Describe an exit code; a shell reports a signal as 128 plus its number."""
    if code is None:
        return ""
    number = -code if code < 0 else code - 128
    if number == signal.SIGKILL:
        hint = "if nobody sent it, the node's kernel did, because memory ran out; see entrypoint_memory"
        return f"exit code {code} (SIGKILL: {hint})"
    names = {one.value: one.name for one in signal.Signals}
    return f"exit code {code}{f' ({names[number]})' if number in names else ''}"


def _message_without_log(event: JobEvent) -> str:
    """
    Return Ray's message without the end of the log that it quotes, if that is known or empty.

    For an entrypoint that failed, nothing is left: the message only repeats the exit code (``job_manager.py`` of Ray
    2.60: "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):").
    """
    said, quotes, log = (event.message or "").strip().partition(LOGS_FOLLOW)
    if not quotes:
        return said
    log = log.partition("\n")[2].strip()
    if log and not any(map(str.strip, event.log_tail)):
        return f"{said}\n{log}"
    return "" if event.exit_code is not None and said.startswith(_COMMAND_FAILED) else said


def raise_for_outcome(event: JobEvent) -> None:
    """
    Return if the job SUCCEEDED, else raise the error for its outcome.

    :raises RayJobFailedError: if it FAILED; with Ray's message and the last lines of the log.
    :raises RayJobStoppedError: if somebody else stopped it.
    :raises RayJobTimeoutError: if a deadline passed.
    :raises RayJobLostError: if the cluster no longer knows the job.
    :raises RayClusterUnreachableError: if there was no contact for ``unreachable_timeout`` seconds.
    """
    if event.outcome is not Outcome.SUCCEEDED:
        _raise(event)


def _raise(event: JobEvent) -> NoReturn:
    job = f"{event.address}: Ray job {event.submission_id}"
    if event.outcome is Outcome.FAILED:
        raise failed_error(event)
    if event.outcome is Outcome.STOPPED:
        raise RayJobStoppedError(
            f"{job} was stopped by somebody other than this task ({event.message or 'no message'})",
            submission_id=event.submission_id,
        )
    if event.outcome is Outcome.TIMEOUT:
        raise RayJobTimeoutError(f"{job} {event.detail}", submission_id=event.submission_id, may_run=event.may_run)
    if event.outcome is Outcome.LOST:
        raise RayJobLostError(
            f"{job} {event.detail}",
            submission_id=event.submission_id,
            may_run=event.may_run,
            node_id=event.node_id,
            node_ip=event.node_ip,
        )
    raise RayClusterUnreachableError(f"{job} {event.detail}", address=event.address)


def event_of_job(job: JobDetails, address: str, **extra: Any) -> JobEvent:
    """Build the event of a job that has ended."""
    outcome = {"SUCCEEDED": Outcome.SUCCEEDED, "FAILED": Outcome.FAILED, "STOPPED": Outcome.STOPPED}
    return JobEvent(
        submission_id=job.submission_id or "",
        address=address,
        outcome=outcome[job.status.value],
        message=job.message,
        error_type=job.error_type,
        exit_code=job.driver_exit_code,
        **extra,
    )


def may_run_hint(submission_id: str, job: JobDetails | None) -> str:
    """
    Return a hint that the process of a lost job may still run, on which node, and what to do about it.

    :param job: the job as it was last seen; None if it never was.
    """
    where = "the job's node"
    if job is not None and job.driver_node_id:
        where = f"node {job.driver_ip or 'with unknown address'} (node id {job.driver_node_id})"
    return (
        f"Its process may still run on {where}: a process on a worker node outlives the head. Find the process with "
        f"{submission_id} in its environment there, and end it."
    )

"""
What a followed job came to: the one event that passes from a trigger to its operator.

It is JSON, versioned and checked on arrival, and holds all that the operator's second half needs, because neither
the operator's attributes nor (in ``airflow dags test``) the keyword arguments of ``defer`` survive the deferral.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_rayjobs import progress
from airflow_provider_rayjobs.exceptions import (
    RayClusterUnreachableError,
    RayJobFailedError,
    RayJobLostError,
    RayJobStoppedError,
    RayJobTimeoutError,
)
from airflow_provider_rayjobs.text.safe_text import safe_value

if TYPE_CHECKING:
    from airflow_provider_rayjobs.jobs import JobDetails

EVENT_VERSION = 1


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
    The end of following one job.

    :param submission_id: the job.
    :param address: the cluster's address, for messages.
    :param outcome: how it ended.
    :param detail: for TIMEOUT, LOST and UNREACHABLE: what happened, a sentence.
    :param message: Ray's own message.
    :param error_type: Ray's ``error_type``.
    :param exit_code: exit code of the driver.
    :param log_tail: last lines of the job's log.
    :param reattached_at: Unix seconds at which a later try took over an earlier try's job, else None.
    :param ended_at: Unix seconds at which the end was noticed.
    :param progress: the last report of the job's function, as far as it was in the log that was followed.
    :param may_run: for LOST: whether the job's process may still run.
    :param node_id: for LOST: Ray's id of the node that ran the job's process, where known.
    :param node_ip: for LOST: the address of this node, where known.
    """

    submission_id: str
    address: str
    outcome: Outcome
    detail: str = ""
    message: str | None = None
    error_type: str | None = None
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()
    reattached_at: float | None = None
    ended_at: float = 0.0
    progress: dict[str, Any] | None = None
    may_run: bool = True
    node_id: str | None = None
    node_ip: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the event as a JSON object that every database takes."""
        values = {**asdict(self), "outcome": str(self.outcome), "log_tail": list(self.log_tail)}
        if self.progress is not None:
            values["progress"] = progress.stored(self.progress)
        event: dict[str, Any] = safe_value({"version": EVENT_VERSION, **values})
        return event

    @classmethod
    def from_json(cls, data: Any) -> JobEvent:
        """
        Check and read an event.

        :param data: what the trigger sent.
        :raises ValueError: it is no event of this version.
        """
        if not isinstance(data, dict) or data.get("version") != EVENT_VERSION:
            raise ValueError(
                f"the trigger sent no event of version {EVENT_VERSION} but {str(data)[:200]!r}; the triggerer and "
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
                    "progress": None if values.get("progress") is None else progress.checked(values["progress"]),
                }
            )
        except (KeyError, TypeError, ValueError) as e:
            raise ValueError(f"the trigger sent a malformed event ({e}): {str(data)[:200]!r}") from None
        if not (event.submission_id and isinstance(values["submission_id"], str)):
            raise ValueError(f"the trigger sent an event without submission_id: {str(data)[:200]!r}")
        return event


def describe_failure(event: JobEvent) -> str:
    """Return what a reader of the task log needs of a job that FAILED, its traceback included."""
    facts = [event.error_type or "", f"exit code {event.exit_code}" if event.exit_code is not None else ""]
    known = ", ".join(fact for fact in facts if fact)
    lines = [f"{event.address}: Ray job {event.submission_id} ended FAILED{f' ({known})' if known else ''}"]
    message, tail = (event.message or "").strip(), "\n".join(event.log_tail)
    if message and message.splitlines()[-1] in event.log_tail:
        message = message.partition("\n")[0]  # the rest repeats the last ten lines of the log
    if message:
        lines += ["Ray's message:", message]
    if tail:
        lines += ["Last lines of the job's log:", tail]
    return "\n".join(lines)


def raise_for_outcome(event: JobEvent) -> None:
    """
    Return for a job that SUCCEEDED, else raise what it came to.

    :raises RayJobFailedError: FAILED, with Ray's message and the last lines of the log.
    :raises RayJobStoppedError: STOPPED by somebody else.
    :raises RayJobTimeoutError: a deadline passed.
    :raises RayJobLostError: the cluster forgot the job.
    :raises RayClusterUnreachableError: no contact for the whole budget.
    """
    if event.outcome is not Outcome.SUCCEEDED:
        _raise(event)


def _raise(event: JobEvent) -> NoReturn:
    job = f"{event.address}: Ray job {event.submission_id}"
    if event.outcome is Outcome.FAILED:
        raise RayJobFailedError(describe_failure(event), submission_id=event.submission_id)
    if event.outcome is Outcome.STOPPED:
        raise RayJobStoppedError(
            f"{job} was stopped by somebody other than this task ({event.message or 'no message'})",
            submission_id=event.submission_id,
        )
    if event.outcome is Outcome.TIMEOUT:
        raise RayJobTimeoutError(f"{job} {event.detail}", submission_id=event.submission_id)
    if event.outcome is Outcome.LOST:
        raise RayJobLostError(
            f"{job} {event.detail}",
            submission_id=event.submission_id,
            may_run=event.may_run,
            node_id=event.node_id,
            node_ip=event.node_ip,
        )
    raise RayClusterUnreachableError(f"{job} {event.detail}")


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

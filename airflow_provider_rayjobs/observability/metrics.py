"""
The metrics: their names, and how they are sent through Airflow's own Stats.

All have a bounded number of values for each tag: none has a submission id, and what a cluster says becomes one of
:data:`CAUSES`. Sending never fails a task: an error is logged once in each process.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from airflow_provider_rayjobs import exceptions as errors
from airflow_provider_rayjobs.compat.stats import airflow_hostname, airflow_stats

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

log = logging.getLogger(__name__)


class Kind(StrEnum):
    """What StatsD calls the kinds of metrics."""

    COUNTER = "counter"
    TIMER = "timer"
    GAUGE = "gauge"


@dataclass(frozen=True)
class Metric:
    """
    One metric.

    :param name: its name, without the prefix that Airflow's configuration adds.
    :param kind: its kind.
    :param unit: what is counted or measured.
    :param tags: names of its tags.
    :param meaning: what it tells, as one sentence for people.
    """

    name: str
    kind: Kind
    unit: str
    tags: tuple[str, ...]
    meaning: str


_OF_TASK = ("conn_id", "dag_id", "task_id")

SUBMITTED = Metric(
    "ray_jobs.submitted", Kind.COUNTER, "jobs", _OF_TASK, "Jobs that were submitted and that the cluster accepted."
)
ADOPTED = Metric(
    "ray_jobs.adopted",
    Kind.COUNTER,
    "jobs",
    _OF_TASK,
    "Submissions whose job the cluster had already, because an answer was lost or another process of the same try had "
    "submitted it. They are not in `ray_jobs.submitted`.",
)
REATTACHED = Metric(
    "ray_jobs.reattached", Kind.COUNTER, "jobs", _OF_TASK, "Jobs of an earlier try that a later try followed."
)
FAILED = Metric(
    "ray_jobs.failed",
    Kind.COUNTER,
    "tries",
    (*_OF_TASK, "cause"),
    "Tries that ended with an error, by its cause.",
)
ORPHANS_STOPPED = Metric(
    "ray_jobs.orphans_stopped",
    Kind.COUNTER,
    "jobs",
    _OF_TASK,
    "Jobs that an earlier try left running, and that a later try stopped instead of following them.",
)
PENDING_TIME = Metric(
    "ray_jobs.pending_time",
    Kind.TIMER,
    "milliseconds",
    _OF_TASK,
    "Time from a job's submission until it was seen to have left PENDING.",
)
RUN_TIME = Metric(
    "ray_jobs.run_time",
    Kind.TIMER,
    "milliseconds",
    _OF_TASK,
    "Time from then until the job's end, whatever its status.",
)
UPLOAD_BYTES = Metric(
    "ray_jobs.upload_bytes",
    Kind.COUNTER,
    "bytes",
    _OF_TASK,
    "Bytes of packages that were stored on the cluster or in object storage.",
)
HEAD_REQUESTS = Metric(
    "ray_jobs.head_requests",
    Kind.COUNTER,
    "requests",
    ("conn_id",),
    "HTTP requests that tasks and triggerers sent to the head, with repeated ones; a log stream counts once.",
)
FOLLOWED = Metric(
    "ray_jobs.followed",
    Kind.GAUGE,
    "jobs",
    ("conn_id", "hostname"),
    "Jobs that a triggerer follows now.",
)

METRICS = (
    *(SUBMITTED, ADOPTED, REATTACHED, FAILED, ORPHANS_STOPPED),
    *(PENDING_TIME, RUN_TIME, UPLOAD_BYTES, HEAD_REQUESTS, FOLLOWED),
)

#: What Ray itself says of a job that FAILED: ``JobErrorType`` (Ray 2.60), and the ``ErrorType`` of a task that failed.
RAYS_CAUSES = (
    *("JOB_ENTRYPOINT_COMMAND_ERROR", "JOB_ENTRYPOINT_COMMAND_START_ERROR", "JOB_SUPERVISOR_ACTOR_DIED"),
    *("JOB_SUPERVISOR_ACTOR_START_FAILURE", "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"),
    *("JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE", "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE", "RUNTIME_ENV_SETUP_FAILURE"),
    *("ACTOR_CREATION_FAILED", "ACTOR_DIED", "ACTOR_PLACEMENT_GROUP_REMOVED", "ACTOR_UNAVAILABLE"),
    *("ACTOR_UNSCHEDULABLE_ERROR", "DEPENDENCY_RESOLUTION_FAILED", "LOCAL_RAYLET_DIED", "NODE_DIED"),
    *("OBJECT_DELETED", "OBJECT_FETCH_TIMED_OUT", "OBJECT_FREED", "OBJECT_LOST", "OBJECT_UNRECONSTRUCTABLE"),
    *("OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED", "OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED"),
    *("OUT_OF_DISK_ERROR", "OUT_OF_MEMORY", "OWNER_DIED", "RUNTIME_ENV_SETUP_FAILED", "TASK_CANCELLED"),
    *("TASK_EXECUTION_EXCEPTION", "TASK_PLACEMENT_GROUP_REMOVED", "TASK_UNSCHEDULABLE_ERROR", "WORKER_DIED"),
)

#: The cause for each class of errors; the first one that fits counts.
_CAUSE_OF_CLASS: tuple[tuple[type[BaseException], str], ...] = (
    (errors.RayJobTimeoutError, "timeout"),
    (AirflowTaskTimeout, "timeout"),
    (errors.RayJobLostError, "lost"),
    (errors.RayJobStoppedError, "stopped"),
    (errors.RayJobInterruptedError, "interrupted"),
    (errors.RayJobResultError, "result"),
    (errors.RayKubernetesError, "cluster"),
    (errors.RayClusterUnreachableError, "unreachable"),
    (errors.RayPackageError, "package"),
    (errors.RayAPIError, "refused"),
    (errors.RayConnectionConfigError, "refused"),
    (AirflowFailException, "refused"),
)

#: The same for Airflow's own errors, by name: their module differs between its versions.
_CAUSE_OF_NAME = {
    "AirflowTaskTerminated": "interrupted",
    "TaskDeferralTimeout": "timeout",
    "TaskDeferralError": "trigger",
}

#: What the provider calls a cause, and what each means.
OWN_CAUSES = {
    "timeout": "the job was stopped for a limit of its task",
    "lost": "the cluster forgot the job",
    "stopped": "the job was stopped: by somebody else, or because a user ended its task",
    "interrupted": "the task's process was asked to end, for instance by its worker",
    "result": "the job succeeded, but its result is missing or damaged",
    "cluster": "the cluster for the job did not come up, or Kubernetes refused it",
    "unreachable": "no usable answer from the cluster",
    "package": "local files could not be packed or sent",
    "refused": "the cluster answered with an error, or a check found a wrong value",
    "trigger": "the trigger crashed; a retry goes on with the job",
    "unknown": "the job FAILED, and Ray gives no cause",
    "other": "any other error, or a word of Ray that this version does not know",
}

#: All values of the tag ``cause``.
CAUSES = (*OWN_CAUSES, *map(str.lower, RAYS_CAUSES))


def cause_of(error: BaseException) -> str:
    """Return the cause of an error that ended a try: one of :data:`CAUSES`."""
    if isinstance(error, errors.RayJobFailedError):
        return cause_in_ray(error.cause)
    if named := _CAUSE_OF_NAME.get(type(error).__name__):
        return named
    return next((cause for kind, cause in _CAUSE_OF_CLASS if isinstance(error, kind)), "other")


def cause_in_ray(word: str) -> str:
    """Return the cause of a job that FAILED, from Ray's word for it: one of :data:`CAUSES`."""
    if not word:
        return "unknown"
    return word.lower() if word in RAYS_CAUSES else "other"


def tell(metric: Metric, value: float, tags: Mapping[str, str], *, in_triggerer: bool = False) -> None:
    """
    Send one value; a count of zero is not sent.

    This may block, if the deployment's Stats does: not for an event loop.

    :param metric: one of :data:`METRICS`.
    :param value: a number; of a timer, seconds.
    :param tags: a value for each of its tags.
    :param in_triggerer: whether this is a triggerer, not a task.
    """
    if metric.kind is Kind.COUNTER and not value:
        return
    try:
        stats = airflow_stats(in_triggerer=in_triggerer)
        named = {name: tags[name] for name in metric.tags}
        if metric.kind is Kind.COUNTER:
            stats.incr(metric.name, int(value), tags=named)
        elif metric.kind is Kind.TIMER:
            stats.timing(metric.name, timedelta(seconds=value), tags=named)
        else:
            stats.gauge(metric.name, value, tags=named)
    except Exception as e:  # noqa: BLE001 - of Airflow, or of any client that the deployment has chosen
        _warn_once(metric, e)


_warned: list[str] = []


def _warn_once(metric: Metric, error: Exception) -> None:
    if not _warned:
        _warned.append(metric.name)
        log.warning("The metric %s could not be sent (%r); other metrics may be missing, too", metric.name, error)


def tell_followed(connections: Iterable[tuple[str, int, int]]) -> None:
    """
    Send what the triggers of this process do. This may block: not for an event loop.

    :param connections: for each connection: its id, how many jobs are followed now, and how many requests were sent
        since the last time.
    """
    try:
        hostname = airflow_hostname()
    except Exception as e:  # noqa: BLE001 - of a callable of the deployment
        _warn_once(FOLLOWED, e)
        return
    for conn_id, followed, requests in connections:
        tell(FOLLOWED, followed, {"conn_id": conn_id, "hostname": hostname}, in_triggerer=True)
        tell(HEAD_REQUESTS, requests, {"conn_id": conn_id}, in_triggerer=True)

"""The jobs of a list that have ended, with no more of each than is needed to choose among them; no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.jobs import LATEST_TIME, JobStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The statuses of a job that has ended.
ENDED = tuple(str(status) for status in JobStatus if status.is_terminal)

#: Longest submission id in characters that is looked at. Ray's own ids have 26, those of this provider less than 241.
LONGEST_ID = 1000


class EndedJob(NamedTuple):
    """
    A job that has ended. Jobs sort by their ends.

    :param end_time: Unix milliseconds.
    :param start_time: Unix milliseconds; 0 if Ray gives none.
    """

    end_time: int
    submission_id: str
    status: str
    start_time: int = 0


def ended_job(data: Mapping[str, Any]) -> EndedJob | None:
    """
    Return a job that has ended; None for all others.

    Others are live jobs, drivers that were not submitted, jobs without an end, and malformed entries. One such entry
    must not spoil the list, because any user of the cluster can make one.

    :param data: an entry of the list (``GET /api/jobs/``), as decoded JSON.
    """
    status, name = data.get("status"), data.get("submission_id")
    end, start = data.get("end_time"), data.get("start_time")
    if status not in ENDED or not isinstance(name, str) or not 0 < len(name) <= LONGEST_ID:
        return None
    if not _is_time(end):
        return None
    return EndedJob(end, name, status, start if _is_time(start) else 0)


def _is_time(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LATEST_TIME


def deployment_of(data: Mapping[str, Any]) -> str | None:
    """
    Return the name of the Airflow deployment that submitted a job with this provider; None for other jobs.

    :param data: an entry of the list, as decoded JSON.
    """
    metadata = data.get("metadata")
    found = metadata.get(keys.DEPLOYMENT) if isinstance(metadata, dict) else None
    return found if isinstance(found, str) else None

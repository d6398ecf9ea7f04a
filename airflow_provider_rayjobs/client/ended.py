"""The jobs of a list that have ended, with no more of each than is needed to choose among them; no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

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
    """

    end_time: int
    submission_id: str
    status: str


def ended_job(data: Mapping[str, Any]) -> EndedJob | None:
    """
    Return a job that has ended; None for all others.

    Others are live jobs, drivers that were not submitted, jobs without an end, and malformed entries. One such entry
    must not spoil the list, because any user of the cluster can make one.

    :param data: an entry of the list (``GET /api/jobs/``), as decoded JSON.
    """
    status, name, end = data.get("status"), data.get("submission_id"), data.get("end_time")
    if status not in ENDED or not isinstance(name, str) or not 0 < len(name) <= LONGEST_ID:
        return None
    if isinstance(end, bool) or not isinstance(end, int) or not 0 < end <= LATEST_TIME:
        return None
    return EndedJob(end, name, status)


def deployment_of(data: Mapping[str, Any]) -> str | None:
    """
    Return the name of the Airflow deployment that submitted a job with this provider; None for other jobs.

    :param data: an entry of the list, as decoded JSON.
    """
    metadata = data.get("metadata")
    found = metadata.get(keys.DEPLOYMENT) if isinstance(metadata, dict) else None
    return found if isinstance(found, str) else None

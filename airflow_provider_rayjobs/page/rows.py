"""The rows of the page "Ray jobs": the newest jobs of one cluster, without secrets."""

from __future__ import annotations

import asyncio
import heapq
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.client.listing import read_list
from airflow_provider_rayjobs.compat.connections import derived_deployment
from airflow_provider_rayjobs.compat.masking import public_for
from airflow_provider_rayjobs.jobs import JobDetails
from airflow_provider_rayjobs.text.safe_text import safe_value, without_logins

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_rayjobs.cluster.connection import ClusterConnection

#: The page holds so many jobs of a cluster: Ray's list has no bound.
MOST_JOBS = 2000

#: Seconds until a cluster's list must be there.
LIST_TIMEOUT = 20.0

#: Characters that the page shows of a message or an entrypoint.
LONGEST_TEXT = 300

#: Characters of these that are kept until the secrets are taken out of them, and of all that tells a job's secrets.
LONGEST_KEPT = 5_000
MOST_ENVIRONMENT = 20_000

#: What is shown of a job that has more.
WITHHELD = "(not shown: this job's runtime_env is too large to look for secrets in it)"

#: What Ray puts between a failed job's error and up to 20,000 characters of its output.
_LOGS_FOLLOW = ", last available logs"


@dataclass
class JobTable:
    """
    The newest submitted jobs of a cluster.

    :param jobs: the newest first, with short texts.
    :param number: how many there are in all.
    :param malformed: how many more there are whose details can't be read.
    """

    jobs: list[JobDetails] = field(default_factory=list)
    number: int = 0
    malformed: int = 0


async def newest_jobs(cluster: ClusterConnection) -> JobTable:
    """
    Read a cluster's submitted jobs (``GET /api/jobs/``) in bounded memory.

    :param cluster: the cluster.
    :raises RayJobsError: no answer, or not one of the Jobs API.
    :raises TimeoutError: no whole answer within :data:`LIST_TIMEOUT`.
    """
    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport

    table, newest = JobTable(), list[tuple[int, int, JobDetails]]()

    def take(data: dict[str, Any]) -> None:
        try:
            job = JobDetails.from_json(data)
        except ValueError:
            table.malformed += 1
            return
        if job.submission_id is None:  # a driver that nobody submitted
            return
        table.number += 1
        push = heapq.heappush if len(newest) < MOST_JOBS else heapq.heappushpop
        push(newest, (job.start_time or 0, table.number, _shortened(job)))

    transport = AiohttpTransport(cluster)
    try:
        async with asyncio.timeout(LIST_TIMEOUT):
            await transport.run(read_list(lambda: take, repeatable=False))
    finally:
        await transport.close()
    table.jobs = [job for _, _, job in sorted(newest, reverse=True)]
    return table


def _shortened(job: JobDetails) -> JobDetails:
    """Return a job without what the page does not need of it; what tells its secrets is kept, within bounds."""
    if len(json.dumps([job.runtime_env, job.metadata])) > MOST_ENVIRONMENT:
        origin = {key: text for key, text in job.metadata.items() if key.startswith("airflow_") and len(text) < 1000}
        return replace(job, message=WITHHELD, entrypoint=WITHHELD, runtime_env={}, metadata=origin)
    message = _short(job.message or "")[:LONGEST_KEPT]
    return replace(job, message=message, entrypoint=job.entrypoint[:LONGEST_KEPT])


def _short(message: str) -> str:
    """Return what a message begins and ends with: of a failed job that is Ray's word, and the error itself."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if len(lines) < 2:
        return "".join(lines)
    return f"{lines[0].partition(_LOGS_FOLLOW)[0]} … {lines[-1]}"


def dag_ids(jobs: Collection[JobDetails]) -> set[str]:
    """Return the DAGs that the jobs name."""
    return {job.metadata[keys.DAG_ID] for job in jobs if job.metadata.get(keys.DAG_ID)}


def rows(
    jobs: Collection[JobDetails], cluster: ClusterConnection, readable_dags: Collection[str]
) -> list[dict[str, Any]]:
    """
    Return what the page shows of each job. Masking takes its time: not for an event loop.

    :param jobs: those of :func:`newest_jobs`.
    :param cluster: their cluster.
    :param readable_dags: the DAGs whose jobs may be shown, beside the jobs that name no DAG.
    """
    deployment = cluster.deployment or derived_deployment()
    return [_row(job, cluster, deployment) for job in jobs if job.metadata.get(keys.DAG_ID, "") in {"", *readable_dags}]


def _row(job: JobDetails, cluster: ClusterConnection, deployment: str) -> dict[str, Any]:
    said = job.metadata
    dag_id, run_id, task_id = (said.get(f"airflow_{name}", "") for name in ("dag_id", "run_id", "task_id"))
    digits = said.get(keys.MAP_INDEX, "")
    map_index = int(digits) if digits.isdecimal() and len(digits) < 10 else -1
    public = public_for(job)
    row: dict[str, Any] = {
        "submission_id": job.submission_id,
        "status": str(job.status),
        "dag_id": dag_id,
        "run_id": run_id,
        "task_id": task_id,
        "map_index": map_index,
        "try_number": said.get(keys.TRY_NUMBER, ""),
        "started": job.start_time,
        "ended": job.end_time,
        "message": without_logins(public(job.message or ""))[:LONGEST_TEXT],
        "entrypoint": public(job.entrypoint)[:LONGEST_TEXT],
        "job_url": cluster.job_page(str(job.submission_id)),
        "task_url": _task_path(dag_id, run_id, task_id, map_index) if _is_here(job, deployment) else None,
    }
    safe: dict[str, Any] = safe_value(row)
    return safe


def _is_here(job: JobDetails, deployment: str) -> bool:
    """Whether the job's task instance is one of this Airflow's."""
    named = all(job.metadata.get(f"airflow_{name}") for name in ("dag_id", "run_id", "task_id"))
    return named and job.metadata.get(keys.DEPLOYMENT) == deployment


def _task_path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """Return the path of a task instance in Airflow's UI (3.x), relative to the page's own."""
    dag, run, task = (quote(name, "", errors="replace") for name in (dag_id, run_id, task_id))
    names = f"../dags/{dag}/runs/{run}/tasks/{task}"
    return names if map_index < 0 else f"{names}/mapped/{map_index}"

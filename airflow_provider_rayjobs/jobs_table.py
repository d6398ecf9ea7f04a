"""The rows of the page "Ray jobs": the newest jobs of one cluster, without secrets."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_rayjobs.compat import derived_deployment, without_secrets
from airflow_provider_rayjobs.job_list import read_list
from airflow_provider_rayjobs.protocol import JobDetails

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_rayjobs.connection import ClusterConnection

#: The page holds so many jobs of a cluster: Ray's list has no bound.
MOST_JOBS = 2000

#: Seconds until a cluster's list must be there.
LIST_TIMEOUT = 20.0

#: Characters that the page shows of a message or an entrypoint.
LONGEST_TEXT = 300

#: What Ray puts between a failed job's error and up to 20,000 characters of its output.
_LOGS_FOLLOW = ", last available logs"


async def newest_jobs(cluster: ClusterConnection) -> tuple[list[JobDetails], int]:
    """
    Read a cluster's submitted jobs (``GET /api/jobs/``) in bounded memory.

    :param cluster: the cluster.
    :return: the newest ones, the newest first, with short messages and no more of the ``runtime_env`` than its
        ``env_vars``; and how many there are.
    :raises RayJobsError: no answer, or none of the Jobs API.
    :raises TimeoutError: no whole answer within :data:`LIST_TIMEOUT`.
    """
    from airflow_provider_rayjobs.transport import AiohttpTransport

    newest: list[tuple[int, int, JobDetails]] = []
    number = itertools.count()

    def take(data: dict[str, Any]) -> None:
        job = JobDetails.from_json(data)
        if job.submission_id is None:  # a driver that nobody submitted
            return
        env_vars = (job.runtime_env or {}).get("env_vars")
        job = replace(job, message=_short(job.message or ""), runtime_env={"env_vars": env_vars})
        push = heapq.heappush if len(newest) < MOST_JOBS else heapq.heappushpop
        push(newest, (job.start_time or 0, next(number), job))

    transport = AiohttpTransport(cluster)
    try:
        async with asyncio.timeout(LIST_TIMEOUT):
            await read_list(transport, take)
    finally:
        await transport.close()
    return [job for _, _, job in sorted(newest, reverse=True)], next(number)


def _short(message: str) -> str:
    """Return what a message begins and ends with: of a failed job that is Ray's word, and the error itself."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if len(lines) < 2:
        return "".join(lines)
    return f"{lines[0].partition(_LOGS_FOLLOW)[0]} … {lines[-1]}"


def dag_ids(jobs: Collection[JobDetails]) -> set[str]:
    """Return the DAGs that the jobs name."""
    return {job.metadata["airflow_dag_id"] for job in jobs if job.metadata.get("airflow_dag_id")}


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
    return [
        _row(job, cluster, deployment) for job in jobs if job.metadata.get("airflow_dag_id", "") in {"", *readable_dags}
    ]


def _row(job: JobDetails, cluster: ClusterConnection, deployment: str) -> dict[str, Any]:
    said = job.metadata
    dag_id, run_id, task_id = (said.get(f"airflow_{name}", "") for name in ("dag_id", "run_id", "task_id"))
    map_index = int(said["airflow_map_index"]) if said.get("airflow_map_index", "").isdecimal() else -1
    return {
        "submission_id": job.submission_id,
        "status": str(job.status),
        "dag_id": dag_id,
        "run_id": run_id,
        "task_id": task_id,
        "map_index": map_index,
        "try_number": said.get("airflow_try_number", ""),
        "started": job.start_time,
        "ended": job.end_time,
        "message": without_secrets(job, job.message or "")[:LONGEST_TEXT],
        "entrypoint": without_secrets(job, job.entrypoint)[:LONGEST_TEXT],
        "job_url": cluster.job_page(str(job.submission_id)),
        "task_url": _task_path(dag_id, run_id, task_id, map_index) if _is_here(job, deployment) else None,
    }


def _is_here(job: JobDetails, deployment: str) -> bool:
    """Whether the job's task instance is one of this Airflow's."""
    named = all(job.metadata.get(f"airflow_{name}") for name in ("dag_id", "run_id", "task_id"))
    return named and job.metadata.get("airflow_deployment") == deployment


def _task_path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """Return the path of a task instance in Airflow's UI (3.x), relative to the page's own."""
    names = "/".join(("..", "dags", quote(dag_id, ""), "runs", quote(run_id, ""), "tasks", quote(task_id, "")))
    return names if map_index < 0 else f"{names}/mapped/{map_index}"

"""The rows of the page "Ray jobs": the newest jobs of one cluster, without secrets."""

from __future__ import annotations

import asyncio
import heapq
import json
import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.client.cluster_status import ClusterResources, cluster_resources
from airflow_provider_rayjobs.client.listing import read_list
from airflow_provider_rayjobs.client.verbs import get_version
from airflow_provider_rayjobs.compat.connections import derived_deployment
from airflow_provider_rayjobs.compat.masking import public_for
from airflow_provider_rayjobs.exceptions import RayJobsError
from airflow_provider_rayjobs.jobs import JobDetails
from airflow_provider_rayjobs.text.ray_messages import first_and_last_line
from airflow_provider_rayjobs.text.safe_text import safe_value, without_logins

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
    from airflow_provider_rayjobs.client.exchange import Flow
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.jobs import VersionInfo

T = TypeVar("T")

#: Maximum number of jobs per cluster on the page, because Ray's list has no limit.
MAX_JOBS = 2000

#: Maximum seconds to wait for a cluster's list.
LIST_TIMEOUT = 20.0

#: Seconds to wait for what a cluster says of itself, at least, and after its list is complete: whoever waits for a slow
#: list can wait for that, too.
FACTS_TIMEOUT = 5.0
FACTS_GRACE = 1.0

#: Maximum number of characters of a message or an entrypoint in the table. The whole text is read on demand.
MAX_TEXT = 300

#: Maximum number of characters of a message or an entrypoint that are searched for secrets.
MAX_SEARCHED_TEXT = 5_000

#: Maximum number of characters of a job's ``runtime_env`` and metadata, where its secrets are.
MAX_ENVIRONMENT = 20_000

#: Replaces the texts of a job that has more.
WITHHELD = "(not shown: this job's runtime_env is too large to search for secrets)"


@dataclass
class JobTable:
    """
    The newest submitted jobs of a cluster.

    :param jobs: the newest first, with shortened texts.
    :param number: number of submitted jobs on the cluster.
    :param malformed: number of further jobs whose details can't be read.
    :param version: the head's version and session; None if it does not say.
    :param resources: the cluster's nodes; None if it does not say.
    :param read_at: when the list was complete, in Unix milliseconds.
    """

    jobs: list[JobDetails] = field(default_factory=list)
    number: int = 0
    malformed: int = 0
    version: VersionInfo | None = None
    resources: ClusterResources | None = None
    read_at: int = 0


async def newest_jobs(cluster: ClusterConnection) -> JobTable:
    """
    Read a cluster's submitted jobs (``GET /api/jobs/``) in bounded memory, and meanwhile its session and resources.

    :param cluster: the cluster.
    :raises RayJobsError: if there is no answer, or it is not an answer of the Jobs API.
    :raises TimeoutError: if the answer is not complete within :data:`LIST_TIMEOUT` seconds.
    """
    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport

    table, newest = JobTable(), list[tuple[int, int, JobDetails]]()

    def take(data: dict[str, Any]) -> None:
        try:
            job = JobDetails.from_json(data)
        except ValueError:
            table.malformed += 1
            return
        if job.submission_id is None:  # a driver, which was not submitted as a job
            return
        table.number += 1
        place = (job.start_time or 0, table.number)
        if len(newest) < MAX_JOBS:
            heapq.heappush(newest, (*place, _shortened(job)))
        elif place > newest[0][:2]:  # shortening costs more than all else, so the others are left as they are
            heapq.heapreplace(newest, (*place, _shortened(job)))

    transport = AiohttpTransport(cluster)
    version = asyncio.ensure_future(_known(transport, get_version()))
    resources = asyncio.ensure_future(_known(transport, cluster_resources()))
    began = time.monotonic()
    try:
        async with asyncio.timeout(LIST_TIMEOUT):
            await transport.run(read_list(lambda: take, repeatable=False))
        table.read_at = int(time.time() * 1000)
        await asyncio.wait((version, resources), timeout=max(FACTS_GRACE, began + FACTS_TIMEOUT - time.monotonic()))
        table.version = version.result() if version.done() else None
        table.resources = resources.result() if resources.done() else None
    finally:
        version.cancel()
        resources.cancel()
        await asyncio.gather(version, resources, return_exceptions=True)
        await transport.close()
    table.jobs = [job for _, _, job in sorted(newest, reverse=True)]
    return table


async def _known(transport: AiohttpTransport, flow: Flow[T]) -> T | None:
    """Return what a cluster says of itself; None if it does not say."""
    try:
        return await transport.run(flow)
    except RayJobsError:
        return None


def amounts(resources: ClusterResources | None) -> dict[str, Any] | None:
    """Return the number of nodes, and how much of the CPUs and GPUs is free and there in all; None if not known."""
    if resources is None:
        return None
    shown: dict[str, Any] = {"nodes": len(resources.nodes)}
    for name in ("CPU", "GPU"):
        usage = [node[name] for node in resources.nodes if name in node]
        used, total = sum(used for used, _ in usage), sum(total for _, total in usage)
        if usage and math.isfinite(used) and math.isfinite(total):
            shown[name] = {"free": total - used, "total": total}
    return shown


def _shortened(job: JobDetails) -> JobDetails:
    """Return a job with shortened texts, and with its ``runtime_env``, which is needed to find its secrets."""
    if len(json.dumps([job.runtime_env, job.metadata])) > MAX_ENVIRONMENT:
        origin = {key: text for key, text in job.metadata.items() if key.startswith(keys.PREFIX) and len(text) < 1000}
        return replace(job, message=WITHHELD, entrypoint=WITHHELD, runtime_env={}, metadata=origin)
    message = first_and_last_line(job.message or "")[:MAX_SEARCHED_TEXT]
    return replace(job, message=message, entrypoint=job.entrypoint[:MAX_SEARCHED_TEXT])


def dag_ids(jobs: Iterable[JobDetails]) -> set[str]:
    """Return the ids of the DAGs that submitted the jobs."""
    return {job.metadata[keys.DAG_ID] for job in jobs if job.metadata.get(keys.DAG_ID)}


@dataclass(frozen=True)
class Row:
    """
    A row of the table, without secrets.

    :param dag_id: the DAG that submitted the job; empty if none did.
    :param data: what the page shows of it, as JSON.
    """

    dag_id: str
    data: dict[str, Any]


def masked_rows(jobs: Iterable[JobDetails], cluster: ClusterConnection, session: str | None = None) -> list[Row]:
    """
    Return the rows of jobs, for all users. Call it in a thread: masking would block an event loop.

    :param jobs: jobs that :func:`newest_jobs` has returned.
    :param cluster: their cluster.
    :param session: name of the head's session, if it is known; for links to the history server.
    """
    deployment = cluster.deployment or derived_deployment()
    return [Row(job.metadata.get(keys.DAG_ID, ""), _row(job, cluster, deployment, session)) for job in jobs]


def visible(
    rows: Iterable[Row], readable_dags: Collection[str], dags_with_logs: Collection[str]
) -> list[dict[str, Any]]:
    """
    Return what a user may see of rows.

    :param readable_dags: DAGs whose jobs may be shown. Jobs without a DAG are always shown.
    :param dags_with_logs: DAGs whose logs may be shown, and so the messages of their jobs, which quote the logs.
    """
    readable, with_logs = {"", *readable_dags}, {"", *dags_with_logs}
    return [
        row.data if row.dag_id in with_logs else {**row.data, "message": ""} for row in rows if row.dag_id in readable
    ]


def _row(job: JobDetails, cluster: ClusterConnection, deployment: str, session: str | None) -> dict[str, Any]:
    metadata = job.metadata
    dag_id, run_id, task_id = (metadata.get(key, "") for key in (keys.DAG_ID, keys.RUN_ID, keys.TASK_ID))
    digits = metadata.get(keys.MAP_INDEX, "")
    map_index = int(digits) if digits.isdecimal() and len(digits) < 10 else -1
    public = public_for(job, cluster)
    row: dict[str, Any] = {
        "submission_id": job.submission_id,
        "status": str(job.status),
        "dag_id": dag_id,
        "run_id": run_id,
        "task_id": task_id,
        "map_index": map_index,
        "try_number": metadata.get(keys.TRY_NUMBER, ""),
        "started": job.start_time,
        "ended": job.end_time,
        "message": without_logins(public(job.message or ""))[:MAX_TEXT],
        "entrypoint": without_logins(public(job.entrypoint))[:MAX_TEXT],
        "job_url": cluster.job_page(str(job.submission_id)),
        "history_url": cluster.history_page(str(job.submission_id), session),
        "task_url": task_path(dag_id, run_id, task_id, map_index) if _is_here(job, deployment) else None,
    }
    safe: dict[str, Any] = safe_value(row)
    return safe


def _is_here(job: JobDetails, deployment: str) -> bool:
    """Whether the job's task instance belongs to this Airflow."""
    named = all(job.metadata.get(key) for key in (keys.DAG_ID, keys.RUN_ID, keys.TASK_ID))
    return named and job.metadata.get(keys.DEPLOYMENT) == deployment


def task_path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """Return the path of a task instance in Airflow's UI (3.x), relative to the page's own."""
    dag, run, task = (quote(name, "", errors="replace") for name in (dag_id, run_id, task_id))
    names = f"../dags/{dag}/runs/{run}/tasks/{task}"
    return names if map_index < 0 else f"{names}/mapped/{map_index}"

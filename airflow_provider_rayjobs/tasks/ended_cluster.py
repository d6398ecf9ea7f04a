"""Tells a cluster that KubeRay has ended from one that does not answer at the moment."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.exceptions import RayKubernetesError
from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.kubernetes.api import async_kube_api
from airflow_provider_rayjobs.kubernetes.lease import has_cluster, read

if TYPE_CHECKING:
    from airflow_provider_rayjobs.following.watcher import JobWatcher
    from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef

#: Seconds between two looks at the RayJob while the head does not answer.
LOOK_INTERVAL = 10.0


async def follow(watcher: JobWatcher, submission_id: str, ref: ClusterRef | None, log: Any) -> JobEvent:
    """
    Follow a job to its end. If KubeRay ends its cluster meanwhile, the wait for the head ends, too.

    :param watcher: follows the job.
    :param submission_id: the job.
    :param ref: its cluster, if KubeRay made it.
    :param log: logger for Kubernetes' errors.
    """
    if ref is None:
        return await watcher.run()
    both = [asyncio.ensure_future(watcher.run()), asyncio.ensure_future(_ended(watcher, submission_id, ref, log))]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        return (both[0] if both[0].done() else both[1]).result()
    finally:
        for one in both:
            one.cancel()
        await asyncio.gather(*both, return_exceptions=True)


async def _ended(watcher: JobWatcher, submission_id: str, ref: ClusterRef, log: Any) -> JobEvent:
    """Return the event of a job whose cluster has ended."""
    while True:
        await asyncio.sleep(LOOK_INTERVAL)
        if not watcher.is_cut_off:
            continue
        try:
            async with async_kube_api(ref.kubernetes_conn_id, log, patience=0.0) as api:
                lease = await api.run(read(ref.namespace, ref.name, ref.uid))
                # KubeRay keeps the cluster for some time after the job's end, so the head may answer again.
                if lease is not None and lease.is_spent and await api.run(has_cluster(lease)):
                    continue
        except RayKubernetesError as e:
            log.debug("Kubernetes could not tell whether the cluster has ended: %s", e)
            continue
        if lease is None or not lease.is_live or lease.has_lost_job:
            why = "it was deleted" if lease is None or lease.is_deleting else lease.end_reason
            detail = f"is lost: {ref} and its cluster have ended ({why})"
            # KubeRay's words are Ray's message, which quotes the job's log.
            return watcher.masked(JobEvent(submission_id, str(ref), Outcome.LOST, detail, may_run=False))

"""
Pollers and connections that the triggers of one process share.

Each event loop has one poller, and so one HTTP session, per cluster. A connection that was read is cached for some
seconds.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow_provider_rayjobs.client.counts import Counts
from airflow_provider_rayjobs.client.threads import in_own_thread
from airflow_provider_rayjobs.compat.connections import read_cluster
from airflow_provider_rayjobs.following.poller import Poller
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.kubernetes.connect import async_connect
from airflow_provider_rayjobs.observability import metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef

log = logging.getLogger(__name__)

#: Seconds for which a connection is cached, because many triggers start at the same time.
CONNECTION_CACHE_TIME = 5.0

#: Seconds for which a poller without users stays open.
LINGER = 5.0


#: Seconds between two reports of how many jobs are followed, and how many requests were sent.
REPORT_EVERY = 5.0


class _LoopState:
    """The connections and pollers of one event loop."""

    def __init__(self) -> None:
        self.counts: dict[str, Counts] = {}  # what was sent, by the connection's id
        self.reporter: asyncio.Task[None] | None = None
        self.connections: dict[str | ClusterRef, tuple[float, asyncio.Task[ClusterConnection]]] = {}
        self.pollers: list[_SharedPoller] = []

    def add(self, cluster: ClusterConnection) -> _SharedPoller:
        """Make a poller, which closes when it is idle, and report of it."""
        shared = _SharedPoller(cluster, self.counts.setdefault(cluster.conn_id, Counts()))
        self.pollers.append(shared)
        shared.closer = _start(shared.close_when_idle(self.pollers))
        if self.reporter is None or self.reporter.done():
            self.reporter = _start(self._report())
        return shared

    async def _report(self) -> None:
        """Send metrics until there are no pollers any more."""
        while self.counts:
            await asyncio.sleep(REPORT_EVERY)
            followed = dict.fromkeys(self.counts, 0)
            for shared in self.pollers:
                followed[shared.poller.cluster.conn_id] += shared.poller.followed
            values = [(name, number, self.counts[name].take().requests) for name, number in followed.items()]
            used = {shared.poller.cluster.conn_id for shared in self.pollers}
            for name in followed.keys() - used:
                del self.counts[name]
            await in_own_thread(metrics.tell_followed, values)


class _SharedPoller:
    """A poller, and the number of its users."""

    def __init__(self, cluster: ClusterConnection, counts: Counts) -> None:
        from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport

        self.poller = Poller(AiohttpTransport(cluster, counts=counts))
        self.users = 0
        self.idle_since = 0.0
        self.closer: asyncio.Task[None] | None = None

    async def close_when_idle(self, pollers: list[_SharedPoller]) -> None:
        """Close the poller some seconds after the last user has left, or when the event loop ends."""
        try:
            while self.users or time.monotonic() - self.idle_since < LINGER:  # noqa: ASYNC110 - closing is not urgent
                await asyncio.sleep(LINGER)
        finally:
            pollers.remove(self)
            await self.poller.close()


def _start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start a task that outlives the trigger. Airflow assigns log records to a trigger by its context: it gets none."""
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())


_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState] = WeakKeyDictionary()


def _loop_state() -> _LoopState:
    return _loops.setdefault(asyncio.get_running_loop(), _LoopState())


async def cluster_of(ray_conn_id: str, ref: ClusterRef | None = None) -> ClusterConnection:
    """
    Read a connection, or return the one that was read within the last :data:`CONNECTION_CACHE_TIME` seconds.

    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :param ref: instead of it: a cluster that KubeRay made.
    :raises RayConnectionConfigError: if the connection has another type or an invalid value.
    :raises RayKubernetesError: if the cluster that KubeRay made is gone, or Kubernetes can't be asked.
    """
    connections = _loop_state().connections
    name = ref or ray_conn_id
    began, reading = connections.get(name, (0.0, None))
    failed = reading is not None and reading.done() and (reading.cancelled() or reading.exception() is not None)
    if reading is None or failed or time.monotonic() - began > CONNECTION_CACHE_TIME:
        for known, (at, task) in list(connections.items()):  # clusters of single tasks come and go
            if task.done() and time.monotonic() - at > CONNECTION_CACHE_TIME:
                del connections[known]
        reader = read_cluster(RayJobHook(ray_conn_id), ray_conn_id) if ref is None else async_connect(ref, log)
        reading = asyncio.create_task(reader)
        connections[name] = (time.monotonic(), reading)
    # A trigger that is cancelled here must not cancel the read for the other triggers.
    return await asyncio.shield(reading)


@asynccontextmanager
async def poller_of(cluster: ClusterConnection) -> AsyncIterator[Poller]:
    """
    Provide the poller of a cluster. It is closed some seconds after its last user has left.

    :param cluster: the cluster. A connection that changes, for instance its token, gets another poller.
    """
    state = _loop_state()
    shared = next((one for one in state.pollers if one.poller.cluster == cluster), None) or state.add(cluster)
    shared.users += 1
    try:
        yield shared.poller
    finally:
        shared.users -= 1
        shared.idle_since = time.monotonic()

"""
What the triggers of one process share: one poller, hence one session, per event loop and cluster, and for some seconds
the connection that was read.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from airflow_provider_rayjobs.compat.connections import read_cluster
from airflow_provider_rayjobs.following.poller import Poller
from airflow_provider_rayjobs.hooks import RayJobHook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_rayjobs.cluster.connection import ClusterConnection

#: Seconds for which a connection that was read serves other triggers: many start together.
CONNECTION_HOLDS = 5.0

#: Seconds for which a poller without followers is kept open.
LINGER = 5.0


class _Loop:
    """What one event loop has."""

    def __init__(self) -> None:
        self.connections: dict[str, tuple[float, asyncio.Task[ClusterConnection]]] = {}
        self.pollers: list[_Shared] = []


class _Shared:
    """A poller, and who uses it."""

    def __init__(self, cluster: ClusterConnection) -> None:
        from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport

        self.poller = Poller(AiohttpTransport(cluster))
        self.users = 0
        self.left_at = 0.0
        self.keeper: asyncio.Task[None] | None = None

    async def keep(self, pollers: list[_Shared]) -> None:
        """Close the poller some seconds after the last user has left, or with the event loop."""
        try:
            while self.users or time.monotonic() - self.left_at < LINGER:  # noqa: ASYNC110 - there is no hurry
                await asyncio.sleep(LINGER)
        finally:
            pollers.remove(self)
            await self.poller.close()


_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = WeakKeyDictionary()


def _mine() -> _Loop:
    return _loops.setdefault(asyncio.get_running_loop(), _Loop())


async def cluster_of(ray_conn_id: str) -> ClusterConnection:
    """
    Read a connection, or take the one that was read within the last :data:`CONNECTION_HOLDS` seconds.

    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :raises RayConnectionConfigError: the connection is of another type, or holds a wrong value.
    """
    connections = _mine().connections
    began, reading = connections.get(ray_conn_id, (0.0, None))
    failed = reading is not None and reading.done() and (reading.cancelled() or reading.exception() is not None)
    if reading is None or failed or time.monotonic() - began > CONNECTION_HOLDS:
        reading = asyncio.create_task(read_cluster(RayJobHook(ray_conn_id), ray_conn_id))
        connections[ray_conn_id] = (time.monotonic(), reading)
    # Who is cancelled here must not take the connection from the others.
    return await asyncio.shield(reading)


@asynccontextmanager
async def poller_of(cluster: ClusterConnection) -> AsyncIterator[Poller]:
    """
    Use the poller of a cluster; the last one out closes it, some seconds later.

    :param cluster: a connection of another value, with a new token say, has a poller of its own.
    """
    pollers = _mine().pollers
    shared = next((one for one in pollers if one.poller.cluster == cluster), None)
    if shared is None:
        shared = _Shared(cluster)
        pollers.append(shared)
        # Airflow tells by the context whose log a record belongs to; what outlives a trigger is nobody's.
        keeping = shared.keep(pollers)
        shared.keeper = asyncio.get_running_loop().create_task(keeping, context=contextvars.Context())
    shared.users += 1
    try:
        yield shared.poller
    finally:
        shared.users -= 1
        shared.left_at = time.monotonic()

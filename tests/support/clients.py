"""Both transports with the same interface, so that one test covers both, and a clock that only sleeping advances."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from airflow_provider_rayjobs import exceptions as errors
from airflow_provider_rayjobs.client import exchange, verbs
from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
from airflow_provider_rayjobs.client.requests_transport import RequestsTransport
from airflow_provider_rayjobs.cluster.connection import ClusterConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from airflow_provider_rayjobs.client.exchange import Flow
    from tests.support.faulty_proxy import FaultyProxy
    from tests.support.scripted_server import ScriptedRay

T = TypeVar("T")


def cluster_at(where: ScriptedRay | FaultyProxy | str, **fields: Any) -> ClusterConnection:
    """Return the connection to a server, with short timeouts."""
    address = where if isinstance(where, str) else where.url
    given = {"conn_id": "ray_test", "connect_timeout": 2.0, "read_timeout": 5.0, **fields}
    return ClusterConnection(address=address, **given)


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    while not condition():  # noqa: ASYNC110  the condition is not an event
        await asyncio.sleep(0.01)


class FakeTime:
    """A clock that advances only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        """Return the time, in seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        self.slept.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        """Advance the clock, in a coroutine."""
        self.sleep(seconds)


class RequestsClient:
    """Runs flows with ``requests``."""

    def __init__(self, cluster: ClusterConnection, time: FakeTime) -> None:
        self.time = time
        self.transport = RequestsTransport(cluster, sleep=time.sleep)

    def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end."""
        return self.transport.run(flow)

    def close(self) -> None:
        """Close the session."""
        self.transport.close()


class AiohttpClient:
    """Runs flows with ``aiohttp``, on its own event loop."""

    def __init__(self, cluster: ClusterConnection, time: FakeTime) -> None:
        self.time = time
        self.transport = AiohttpTransport(cluster, sleep=time.sleep_async)
        self._runner = asyncio.Runner()

    def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end."""
        return self._runner.run(self.transport.run(flow))

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop of the transport."""
        return self._runner.run(work)

    def close(self) -> None:
        """Close the session and the loop."""
        self._runner.run(self.transport.close())
        if self.transport.cluster.address.startswith("https"):
            self._runner.run(asyncio.sleep(0.1))  # aiohttp closes TLS connections in the background
        self._runner.close()


Client = RequestsClient | AiohttpClient
CLIENTS = {"requests": RequestsClient, "aiohttp": AiohttpClient}


def failure(client: Client, flow: exchange.Flow[Any] | None = None) -> errors.RayJobsError:
    """Run a flow that fails; its message is one line that begins with the address."""
    with pytest.raises(errors.RayJobsError) as caught:
        client.run(verbs.get_version() if flow is None else flow)
    message = str(caught.value)
    assert message.startswith(client.transport.cluster.address + ": ")
    assert "\n" not in message
    return caught.value


async def quick_sleep(seconds: float) -> None:
    """Sleep for a short part of the time."""
    await asyncio.sleep(min(seconds, 0.01))

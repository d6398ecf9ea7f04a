"""A proxy in front of a Ray head that applies the faults that a test sets.

It takes the place of the network between a worker and a cluster. The head behind it is real, so a test can ask the
head (:class:`tests.support.witness.Witness`) what happened to a request whose response was lost.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

from airflow_provider_rayjobs.testing.loop_thread import LoopThread
from tests.support import wire
from tests.support.exchange import Exchange, LoggedRequest, Reset, end
from tests.support.faults import Fault, Rule
from tests.support.ports import free_port

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

_NONE = Fault("")


class FaultyProxy:
    """Listens on the loopback address and forwards each request to one upstream.

    Each request gets a new upstream connection; the client decides how long its connection stays open.

    :param target_host: host of the upstream.
    :param target_port: port of the upstream.
    :param tls: TLS context towards the client; connections to the upstream never use TLS.
    """

    host = "127.0.0.1"

    def __init__(self, target_host: str, target_port: int, tls: ssl.SSLContext | None = None) -> None:
        self.target = (target_host, target_port)
        self.port = free_port()
        self.url = f"{'https' if tls else 'http'}://{self.host}:{self.port}"
        self._tls = tls
        self._rules: tuple[Rule, ...] = ()
        self._log: list[LoggedRequest] = []
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], asyncio.BaseTransport] = {}
        self._thread: LoopThread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # For tests, from any thread

    def start(self) -> None:
        """Start to listen."""
        self._thread = LoopThread("faulty-proxy")
        self.up()

    def stop(self) -> None:
        """End all connections and the thread."""
        if self._thread is not None:
            self.down()
            self._thread.stop()
            self._thread = None

    def down(self) -> None:
        """Make the cluster unreachable: reset all connections, refuse new ones."""
        self._loop.call(self._close())

    def up(self) -> None:
        """Make the cluster reachable again on the same port."""
        self._loop.call(self._listen())

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The current rules; assign to it to replace them all."""
        return self._rules

    @rules.setter
    def rules(self, rules: tuple[Rule, ...] | list[Rule]) -> None:
        self._rules = tuple(rules)

    def on(self, fault: Fault, method: str = ".*", path: str = ".*", first: int = 1, times: int | None = None) -> Rule:
        """Append a rule and return it, see :class:`tests.support.faults.Rule`."""
        rule = Rule(fault, method, path, first, times)
        self._rules = (*self._rules, rule)
        return rule

    def clear(self) -> None:
        """Remove all rules."""
        self._rules = ()

    @property
    def requests(self) -> list[LoggedRequest]:
        """All requests so far, oldest first."""
        return list(self._log)

    def wait_for(self, condition: Callable[[list[LoggedRequest]], object], timeout: float = 10.0) -> None:
        """Wait until a condition on the log holds."""
        deadline = time.monotonic() + timeout
        while not condition(self.requests):
            if time.monotonic() > deadline:
                raise AssertionError(f"the condition does not hold after {timeout} s: {self.requests}")
            time.sleep(0.01)

    # On the loop

    @property
    def _loop(self) -> LoopThread:
        if self._thread is None:
            raise RuntimeError("the proxy is not started")
        return self._thread

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._serve, self.host, self.port, limit=wire.HEAD_LIMIT, ssl=self._tls
            )

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._clients)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients[task] = writer.transport
        try:
            if self._server is None:  # accepted just before the proxy went down
                raise Reset
            while await self._exchange(reader, writer):
                pass
        except (Reset, asyncio.CancelledError):
            wire.reset(writer.transport)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has disconnected
        finally:
            del self._clients[task]
            await end(writer)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Handle one request; return whether the connection stays open."""
        head = await wire.read_head(reader)
        if head is None:
            return False
        method, path, _ = head.first
        fault = next((rule.fault for rule in self._rules if rule.takes(method, path)), _NONE)
        entry = LoggedRequest(time.time(), method, path, head.headers, fault.kind)
        self._log.append(entry)
        try:
            return await Exchange(self.target, fault, entry, head, reader, writer).run()
        finally:
            entry.done = True

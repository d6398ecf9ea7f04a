"""The network of the bench's pods: which port of the loopback address stands for the address of a pod.

A real API server reaches the dashboard of a Ray head through its service proxy, at the pod's own address. Here heads
run on the loopback address, which the server refuses. So pods get addresses that exist nowhere, and the server connects
to them through this HTTP CONNECT proxy, which knows where each head really is.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import shutil
import tempfile
import time
from pathlib import Path

from airflow_provider_rayjobs.testing.loop_thread import LoopThread
from tests.support import environment, faults, guard, wire
from tests.support.carrier import Carrier, carry_on
from tests.support.exchange import Exchange, LoggedRequest
from tests.support.faults import Fault
from tests.support.faulty_proxy import FaultyProxy

_BELOW_A_SERVICE = re.compile(r"/(?P<namespace>[^/]+)/(?P<service>[^/]+)(?P<rest>/.*)")


class PodNetwork(Carrier):
    """A proxy on a UNIX socket, as kube-apiserver's option for egress wants it; a context manager."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = Path(tempfile.mkdtemp(prefix="rjpods", dir=environment.SHORT_TMP))
        guard.remove(self._folder)
        self.socket = self._folder / "proxy"
        #: The real ports, by a pod's address and port.
        self.routes: dict[tuple[str, int], int] = {}
        #: The real ports of dashboards, by the namespace and the name of the services in front of them.
        self.dashboards: dict[tuple[str, str], int] = {}
        #: Where the API server has connected to.
        self.carried: list[tuple[str, int]] = []
        self._numbers = itertools.count(256)

    def __enter__(self) -> PodNetwork:
        self._thread = LoopThread("pod-network")
        self._thread.call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.call(self._close())
        self._thread.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_address(self) -> str:
        """Return an address that no other pod has."""
        high, low = divmod(next(self._numbers) % 65536, 256)
        return f"10.244.{high}.{low}"

    async def _listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.socket, limit=wire.HEAD_LIMIT)

    async def _carry(self, head: wire.Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address, _, port = head.first[1].rpartition(":")
        self.carried.append((address, int(port)))
        real = self.routes.get((address, int(port)))
        try:
            if real is None:
                raise ConnectionRefusedError
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", real)
        except OSError:
            writer.write(b"HTTP/1.1 503 No such pod\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await carry_on(reader, writer, up_reader, up_writer)


class Ingress(FaultyProxy):
    """A way to the heads without the API server, such as a company's ingress: a path for each service.

    :param network: the network of the pods.
    """

    def __init__(self, network: PodNetwork) -> None:
        super().__init__("127.0.0.1", 0)
        self._network = network

    @property
    def template(self) -> str:
        """The URL of a head, with ``{namespace}`` and ``{service}``."""
        return f"{self.url}/{{namespace}}/{{service}}"

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await wire.read_head(reader)
        if head is None:
            return False
        method, path, _ = head.first
        entry = LoggedRequest(time.time(), method, path, head.headers)
        self._log.append(entry)
        found = _BELOW_A_SERVICE.fullmatch(path)
        port = self._network.dashboards.get((found["namespace"], found["service"])) if found else None
        fault = Fault("")
        if found is None or port is None:
            fault = faults.answer(503, "<h1>503 Service Temporarily Unavailable</h1>")
        else:
            raw = head.raw.replace(path.encode(), found["rest"].encode(), 1)
            head = wire.Head(raw, head.first, head.headers)
        try:
            return await Exchange(("127.0.0.1", port or 0), fault, entry, head, reader, writer).run()
        finally:
            entry.done = True

"""An HTTP proxy like that of a company: forwards requests, opens tunnels for TLS, and records the requests."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_provider_rayjobs.testing.loop_thread import LoopThread
from tests.support import wire
from tests.support.carrier import Carrier, carry_on
from tests.support.ports import free_port

if TYPE_CHECKING:
    import ssl


class ForwardProxy(Carrier):
    """Listens on the loopback address.

    :param login: ``user:password`` that clients must send, or an empty string.
    :param tls: TLS context towards clients, see :meth:`tests.support.private_ca.PrivateCA.server_context`.
    """

    host = "127.0.0.1"

    def __init__(self, login: str = "", tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.port = free_port()
        self.login = login
        shown = f"{login}@" if login else ""
        self.url = f"{'https' if tls else 'http'}://{shown}{self.host}:{self.port}"
        self._tls = tls
        #: The method and target of each forwarded request, such as ``CONNECT host:port``.
        self.carried: list[str] = []
        self._thread = LoopThread("forward-proxy")

    def __enter__(self) -> ForwardProxy:
        self._thread.call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.call(self._close())
        self._thread.stop()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, self.host, self.port, limit=wire.HEAD_LIMIT, ssl=self._tls
        )

    async def _carry(self, head: wire.Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = head.headers.get("proxy-authorization", "")
        if self.login and shown != "Basic " + base64.b64encode(self.login.encode()).decode():
            writer.write(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return
        method, target, _ = head.first
        self.carried.append(f"{method} {target}")
        url = urlsplit(target if method != "CONNECT" else f"//{target}")
        up_reader, up_writer = await asyncio.open_connection(url.hostname, url.port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        else:
            # One request per connection is enough for the tests.
            path = target.partition(url.netloc)[2].encode()
            up_writer.write(head.raw.replace(target.encode(), path, 1))
        await carry_on(reader, writer, up_reader, up_writer)

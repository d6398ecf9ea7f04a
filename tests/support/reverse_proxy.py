"""A reverse proxy like that of a company in front of its Ray heads: TLS, a path prefix, its own login."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.support import faults, wire
from tests.support.exchange import Exchange, LoggedRequest
from tests.support.faults import Fault
from tests.support.faulty_proxy import FaultyProxy

if TYPE_CHECKING:
    import asyncio
    import ssl

#: Headers that such a proxy does not forward.
_OWN_HEADERS = frozenset({"authorization", "cookie"})


class ReverseProxy(FaultyProxy):
    """Forwards requests below a prefix, WebSockets included; the response to all others is 404.

    :param target_host: host of the head.
    :param target_port: port of the head.
    :param prefix: path prefix such as ``/team/ray``, which the head does not see.
    :param tls: TLS context towards the client.
    :param headers: headers that every request must have, by lower-case name; without them the response is 401.
        ``Authorization`` and ``Cookie`` are not forwarded.
    """

    def __init__(
        self,
        target_host: str,
        target_port: int,
        prefix: str = "",
        tls: ssl.SSLContext | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(target_host, target_port, tls)
        self.prefix = prefix
        self.url += prefix
        self._demanded = headers or {}

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await wire.read_head(reader)
        if head is None:
            return False
        method, path, _ = head.first
        entry = LoggedRequest(time.time(), method, path, head.headers)
        self._log.append(entry)
        fault = Fault("")
        if not path.startswith(f"{self.prefix}/"):
            fault = faults.answer(404, "<h1>404 Not Found</h1>")
        elif any(head.headers.get(name) != value for name, value in self._demanded.items()):
            fault = faults.answer(401, "<h1>401 Authorization Required</h1>")
        try:
            return await Exchange(self.target, fault, entry, self._inward(head), reader, writer).run()
        finally:
            entry.done = True

    def _inward(self, head: wire.Head) -> wire.Head:
        """Return the head of a request for the upstream."""
        first, *lines = head.raw.decode("latin-1").split("\r\n")
        kept = [line for line in lines if line.partition(":")[0].strip().lower() not in _OWN_HEADERS]
        raw = "\r\n".join([first.replace(f" {self.prefix}/", " /", 1), *kept]).encode("latin-1")
        return wire.Head(raw, head.first, head.headers)

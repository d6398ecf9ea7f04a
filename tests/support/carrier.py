"""What proxies have in common that carry a connection on to another place, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib

from tests.support import wire
from tests.support.exchange import end


class Carrier:
    """Serves connections on the loop of the subclass, which listens with :meth:`_serve`, until :meth:`_close`."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                head = await wire.read_head(reader)
                if head is not None:
                    await self._carry(head, reader, writer)
        finally:
            await end(writer)
            self._tasks.discard(task)

    async def _carry(self, head: wire.Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the first request of a connection."""
        raise NotImplementedError


async def carry_on(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    up_reader: asyncio.StreamReader,
    up_writer: asyncio.StreamWriter,
) -> None:
    """Copy bytes in both directions until one side ends."""
    pumps = [asyncio.ensure_future(_pump(*pair)) for pair in ((reader, up_writer), (up_reader, writer))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        # First, because the end of the proxy may interrupt any wait here.
        await end(up_writer)
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        async for piece in wire.until_eof(reader):
            writer.write(piece)
            await writer.drain()

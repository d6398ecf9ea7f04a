"""Forwards one request through :class:`tests.support.faulty_proxy.FaultyProxy`, and applies its fault."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support import wire
from tests.support.faults import Fault

if TYPE_CHECKING:
    from tests.support.faults import Moment


@dataclass
class LoggedRequest:
    """One request that reached the proxy.

    :param time: Unix seconds when its head was read.
    :param fault: the kind of the fault that was applied, or ``""``.
    :param forwarded: whether the whole request was sent to the upstream.
    :param upstream_status: the status of the upstream's response; None without a response.
    :param done: whether the proxy has finished the exchange.
    """

    time: float
    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    fault: str = ""
    forwarded: bool = False
    upstream_status: int | None = None
    done: bool = False


class Reset(Exception):  # noqa: N818  an instruction, not an error
    """Reset the client's connection now."""


class Exchange:
    """One request, its response and its fault."""

    def __init__(
        self,
        target: tuple[str, int],
        fault: Fault,
        entry: LoggedRequest,
        head: wire.Head,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.target = target
        self.fault = fault
        self.entry = entry
        self.head = head
        self.reader = reader
        self.writer = writer

    async def run(self) -> bool:
        """Handle the request; return whether the client's connection stays open."""
        call = self.fault.call
        if call is not None and call.at == "received":
            await asyncio.to_thread(call.function)
            self.fault = call.then or Fault("")
        kind = self.fault.kind
        if kind == "refuse":
            raise Reset
        # Read the whole body before forwarding anything, so that a cut happens at an exact byte.
        body = b"".join([piece async for piece in wire.body_of_request(self.reader, self.head)])
        if kind == "hang":
            await self.reader.read()
            return False
        if kind == "answer":
            return await self._answer()
        if kind == "cut_request_after":
            await self._send_part((self.head.raw + body)[: self.fault.count])
            raise Reset
        if kind == "delay_request":
            await asyncio.sleep(self.fault.seconds)
        return await self._forward(self.head.raw + body)

    async def _forward(self, request: bytes) -> bool:
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.target, limit=wire.HEAD_LIMIT)
        except OSError:
            raise Reset from None  # the upstream is not listening
        try:
            up_writer.write(request)
            await up_writer.drain()
            self.entry.forwarded = True
            await self._call_if("forwarded")
            return await self._respond(up_reader, up_writer)
        except (OSError, asyncio.IncompleteReadError):
            # One side broke. The client must not mistake a broken upstream for a proper end.
            raise Reset from None
        finally:
            await end(up_writer)

    async def _send_part(self, part: bytes) -> None:
        if not part:
            return
        _, up_writer = await asyncio.open_connection(*self.target)
        up_writer.write(part)
        await wire.flush(up_writer.transport)
        wire.reset(up_writer.transport)
        await end(up_writer)

    async def _respond(self, up_reader: asyncio.StreamReader, up_writer: asyncio.StreamWriter) -> bool:
        head = await wire.read_head(up_reader)
        if head is None:
            raise Reset
        self.entry.upstream_status = head.status
        if self.fault.kind in ("swallow_response", "forward_then_answer"):
            async for _ in wire.body_of_response(up_reader, head, self.entry.method):
                pass
            if self.fault.kind == "swallow_response":
                raise Reset
            return await self._answer()
        if self.fault.kind == "delay_response":
            await asyncio.sleep(self.fault.seconds)
        if head.status == 101:
            self.writer.write(head.raw)
            await self._pipe(up_reader, up_writer)
            return False
        body = wire.body_of_response(up_reader, head, self.entry.method)
        if self.fault.call is not None:
            await self._pass_on_calling(head, b"".join([piece async for piece in body]))
        else:
            left = self.fault.count if self.fault.kind == "cut_response_after" else None
            left = await self._pass_on(head.raw, left)
            async for piece in body:
                left = await self._pass_on(piece, left)
        framed = head.chunked or head.length is not None or head.bodiless
        return framed and head.keeps_alive and self.head.keeps_alive

    async def _pass_on_calling(self, head: wire.Head, body: bytes) -> None:
        await self._call_if("answered", body)
        self.writer.write(head.raw + body)
        await self.writer.drain()
        await wire.flush(self.writer.transport)
        await self._call_if("delivered", body)

    async def _call_if(self, now: Moment, body: bytes = b"") -> None:
        """Call the fault's function if it is due at this moment."""
        call = self.fault.call
        if call is not None and call.at == now and re.search(call.pattern.encode(), body):
            await asyncio.to_thread(call.function)

    async def _pass_on(self, piece: bytes, left: int | None) -> int | None:
        """Send bytes to the client. With a limit, reset when it is reached, or else return the rest of the limit."""
        if left is None:
            self.writer.write(piece)
            await self.writer.drain()
            return None
        self.writer.write(piece[:left])
        if len(piece) >= left:
            await wire.flush(self.writer.transport)
            raise Reset
        return left - len(piece)

    async def _pipe(self, up_reader: asyncio.StreamReader, up_writer: asyncio.StreamWriter) -> None:
        """Forward a WebSocket in both directions until one side ends it."""

        async def upwards() -> None:
            async for piece in wire.until_eof(self.reader):
                up_writer.write(piece)
                await up_writer.drain()

        async def downwards() -> None:
            left = self.fault.count if "stream" in self.fault.kind else None
            async for piece in wire.until_eof(up_reader):
                try:
                    left = await self._pass_on(piece, left)
                except Reset:
                    if self.fault.kind == "cut_stream_after":
                        wire.reset(up_writer.transport)
                        raise
                    await asyncio.Event().wait()  # stall until the client disconnects

        tasks = [asyncio.ensure_future(upwards()), asyncio.ensure_future(downwards())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self) -> bool:
        fault = self.fault
        body = fault.body.encode()
        lines = [f"HTTP/1.1 {fault.status} Proxy", f"Content-Type: {fault.content_type}"]
        lines += [f"{name}: {value}" for name, value in fault.headers]
        lines += [f"Content-Length: {len(body)}", "", ""]
        self.writer.write("\r\n".join(lines).encode() + body)
        await self.writer.drain()
        return self.head.keeps_alive


async def end(writer: asyncio.StreamWriter) -> None:
    """Close a connection and wait for it; abort it if the peer does not read."""
    writer.close()
    try:
        async with asyncio.timeout(2):
            await writer.wait_closed()
    except TimeoutError:
        writer.transport.abort()
    except OSError:
        pass  # the peer has already closed it

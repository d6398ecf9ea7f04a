"""Reads HTTP/1.1 messages to their end, and resets TCP connections."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_rayjobs.testing.resets import flush, reset

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = [
    "HEAD_LIMIT",
    "Head",
    "body_of_request",
    "body_of_response",
    "flush",
    "read_head",
    "reset",
    "until_eof",
]

HEAD_LIMIT = 1 << 20
_PIECE = 1 << 16


@dataclass(frozen=True)
class Head:
    """The first line and the headers of a request or a response.

    :param raw: the received bytes, with the blank line.
    :param first: the words of the first line.
    :param headers: by lower-case name; the last one of several with the same name.
    """

    raw: bytes
    first: tuple[str, str, str]
    headers: dict[str, str]

    @property
    def status(self) -> int:
        """The status of a response."""
        return int(self.first[1])

    @property
    def bodiless(self) -> bool:
        """Whether a response of this status has no body, whatever its headers say."""
        return self.status < 200 or self.status in {204, 304}

    @property
    def keeps_alive(self) -> bool:
        """Whether the sender leaves the connection open after this message."""
        return self.headers.get("connection", "").lower() != "close" and "HTTP/1.0" not in self.first

    @property
    def length(self) -> int | None:
        """Bytes of the body; None if it is chunked or has no declared length."""
        if self.chunked or "content-length" not in self.headers:
            return None
        return int(self.headers["content-length"])

    @property
    def chunked(self) -> bool:
        """Whether the body is chunked."""
        return "chunked" in self.headers.get("transfer-encoding", "").lower()


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """Read one head; return None if the peer has closed the connection before it."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    lines = raw.decode("latin-1").split("\r\n")
    first = [*lines[0].split(" ", 2), "", ""]
    pairs = (line.partition(":") for line in lines[1:] if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Head(raw, (first[0], first[1], first[2]), headers)


async def body_of_request(reader: asyncio.StreamReader, head: Head) -> AsyncIterator[bytes]:
    """Yield the raw bytes of a request's body as they arrive."""
    pieces = _chunks(reader) if head.chunked else _exactly(reader, head.length or 0)
    async for piece in pieces:
        yield piece


async def body_of_response(reader: asyncio.StreamReader, head: Head, method: str) -> AsyncIterator[bytes]:
    """Yield the raw bytes of a response's body as they arrive.

    :param method: method of the request.
    """
    if method == "HEAD" or head.bodiless:
        return
    if head.chunked:
        pieces = _chunks(reader)
    elif head.length is None:
        pieces = until_eof(reader)
    else:
        pieces = _exactly(reader, head.length)
    async for piece in pieces:
        yield piece


async def until_eof(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield bytes as they arrive until the peer closes the connection."""
    while piece := await reader.read(_PIECE):
        yield piece


async def _exactly(reader: asyncio.StreamReader, length: int) -> AsyncIterator[bytes]:
    while length > 0:
        piece = await reader.read(min(length, _PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b"", length)
        length -= len(piece)
        yield piece


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        line = await reader.readuntil(b"\r\n")
        yield line
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        async for piece in _exactly(reader, size + 2):  # with the line end after the data
            yield piece
    trailer = b""
    while trailer != b"\r\n":
        trailer = await reader.readuntil(b"\r\n")
        yield trailer

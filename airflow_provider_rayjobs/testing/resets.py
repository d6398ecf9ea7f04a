"""Resets TCP connections."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios


async def flush(transport: asyncio.WriteTransport) -> None:
    """Wait until the peer's system has received all data, because a reset discards the rest."""
    sock = transport.get_extra_info("socket")
    for _ in range(1000):  # 2 seconds or more; the peer may not read
        try:
            waiting = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
        except OSError:
            return  # closed in the meantime
        if waiting == 0 and transport.get_write_buffer_size() == 0:
            return
        await asyncio.sleep(0.002)


def reset(transport: asyncio.BaseTransport) -> None:
    """Close a connection with RST instead of FIN, and discard unsent data."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()

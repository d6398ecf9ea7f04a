"""A reset arrives as such, and after a flush no data is lost."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_rayjobs.testing.resets import flush, reset


def test_data_arrives_before_the_reset() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"last words")
        await flush(writer.transport)
        reset(writer.transport)

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.readexactly(10) == b"last words"
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    asyncio.run(run())

"""Gathers the messages of a log stream that arrive while earlier ones are written."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_rayjobs.client.turns import Turns

#: Characters that are gathered at most, but for the last message; then no more is read from the connection.
MOST_GATHERED = 64 * 1024


class Backlog:
    """
    The messages of a stream that were not taken yet.

    Ray sends ten lines in a message. To write many lines at once, one needs those of many messages.

    :param messages: the stream.
    :param turns: those of the stream's cluster; a waiting message is received when it is its turn.
    """

    def __init__(self, messages: AsyncIterator[str], turns: Turns) -> None:
        self._messages = messages
        self._turns = turns
        self._texts: list[str] = []
        self._size = 0
        self._room = asyncio.Event()
        self._news = asyncio.Event()
        self._filling = asyncio.ensure_future(self._fill())
        self._filling.add_done_callback(lambda _: self._news.set())

    async def _fill(self) -> None:
        async for text in self._messages:
            self._texts.append(text)
            self._size += len(text)
            self._news.set()
            if self._size >= MOST_GATHERED:
                self._room.clear()
                await self._room.wait()
            await self._turns.take()

    async def take(self) -> str:
        """
        Wait for text, and return all that has arrived.

        :return: an empty string after the stream's end, or after :meth:`leave` if nothing has arrived.
        :raises RayJobsError: the stream broke; what arrived before is returned first.
        """
        await self._news.wait()
        text, self._texts, self._size = "".join(self._texts), [], 0
        self._room.set()
        if not self._filling.done():
            self._news.clear()
        elif not text:
            self._filling.result()
        return text

    def leave(self) -> None:
        """End the wait of :meth:`take`, if it waits."""
        self._news.set()

    async def close(self) -> None:
        """Stop reading."""
        self._filling.cancel()
        await asyncio.gather(self._filling, return_exceptions=True)

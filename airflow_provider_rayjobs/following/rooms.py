"""Limits how many log streams of one cluster are open at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


#: Streams of one cluster that are open at once, of jobs that run, and as many of jobs that are over.
STREAMS_AT_ONCE = 50


FIRST = asyncio.FIRST_COMPLETED


class Rooms:
    """
    How many log streams of one cluster are open at once: so many of jobs that run, and as many of jobs that are over.

    The latter end within seconds, so that a job's end never waits for the end of others.
    """

    def __init__(self) -> None:
        self._running = asyncio.Semaphore(STREAMS_AT_ONCE)
        self._over = asyncio.Semaphore(STREAMS_AT_ONCE)

    @property
    def full(self) -> bool:
        """Whether a stream of a job that runs would have to wait."""
        return self._running.locked()

    async def enter(self, over: asyncio.Event) -> Callable[[], None]:
        """
        Wait for room.

        :param over: set when the job is over.
        :return: gives the room back.
        """
        if not over.is_set():
            place, end = asyncio.ensure_future(self._running.acquire()), asyncio.ensure_future(over.wait())
            try:
                await asyncio.wait({place, end}, return_when=FIRST)
                if place.done():
                    return self._running.release
            except asyncio.CancelledError:
                if place.done():
                    self._running.release()
                raise
            finally:
                place.cancel()
                end.cancel()
        await self._over.acquire()
        return self._over.release

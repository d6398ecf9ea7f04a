"""Limits how many log streams of one cluster are open at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


#: Most streams of one cluster that are open at once: for running jobs, and as many for ended ones.
STREAMS_AT_ONCE = 50


class StreamSlots:
    """
    Slots for the open log streams of one cluster: :data:`STREAMS_AT_ONCE` for running jobs, and as many for ended ones.

    The logs of ended jobs are read to their end within seconds, so the end of a job never waits for the log of one that
    runs.
    """

    def __init__(self) -> None:
        self._running = asyncio.Semaphore(STREAMS_AT_ONCE)
        self._over = asyncio.Semaphore(STREAMS_AT_ONCE)

    @property
    def full(self) -> bool:
        """Whether the stream of a running job would have to wait."""
        return self._running.locked()

    async def acquire(self, over: asyncio.Event) -> Callable[[], None]:
        """
        Wait for a slot.

        :param over: set when the job is over.
        :return: a function that releases the slot.
        """
        if not over.is_set():
            slot, end = asyncio.ensure_future(self._running.acquire()), asyncio.ensure_future(over.wait())
            try:
                await asyncio.wait({slot, end}, return_when=asyncio.FIRST_COMPLETED)
                if slot.done():
                    return self._running.release
            except asyncio.CancelledError:
                if slot.done():
                    self._running.release()
                raise
            finally:
                slot.cancel()
                end.cancel()
        await self._over.acquire()
        return self._over.release

"""
Splits long work on an event loop into short runs, so that it does not block the loop's other tasks.

Clusters take turns, and so do the jobs of a cluster. So a hundred logs block the loop no longer than one does, and a
cluster with many busy jobs gets no more time than a cluster with a single job.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Seconds of work in one turn of the loop.
LONGEST_RUN = 0.001


class _LoopTurn:
    """The time that is left for work in the current turn of an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.lock = asyncio.Lock()
        self._began: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the time of this turn is used up; the first call of a turn starts its clock."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
            self.loop.call_soon(self._renew)  # runs in the next turn
        return now - self._began > LONGEST_RUN

    def _renew(self) -> None:
        self._began = None


class _Threads(threading.local):
    turn: _LoopTurn | None = None


_threads = _Threads()


def _turn_of(loop: asyncio.AbstractEventLoop) -> _LoopTurn:
    if _threads.turn is None or _threads.turn.loop is not loop:
        _threads.turn = _LoopTurn(loop)
    return _threads.turn


class Turns:
    """The turns of one cluster; bound to the event loop on which it first works."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self, steps: Iterable[None] = ()) -> None:
        """
        Run steps, as many in each turn of the loop as :data:`LONGEST_RUN` allows.

        :param steps: an iterable that does a step of the work for each item; empty to only wait for a turn.
        """
        turn = _turn_of(asyncio.get_running_loop())
        work, ended = iter(steps), object()
        while True:
            async with self._lock, turn.lock:
                if turn.is_over:
                    await asyncio.sleep(0)
                while not turn.is_over:
                    if next(work, ended) is ended:
                        return

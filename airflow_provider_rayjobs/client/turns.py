"""
Long work on an event loop, done in short runs, one at a time: whoever else is on the loop does not feel it.

All that works on one loop takes turns, first the clusters, then the jobs of each. So a hundred logs hold the loop up no
longer than one does, and a cluster whose jobs talk much gets no more of it than one with a single job.
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
    """What is worked on an event loop within one of its turns."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.lock = asyncio.Lock()
        self._began: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the work of this turn has taken its time."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
            self.loop.call_soon(self._renew)  # which happens in the next turn
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
    """The turns of one cluster; bound to the event loop on which it works first."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def take(self, steps: Iterable[None] = ()) -> None:
        """
        Do the steps, as many in each turn of the loop as :data:`LONGEST_RUN` allows.

        :param steps: an iterator that works when it is asked for its next item; none, to wait for a turn alone.
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

"""Answers of clusters that all viewers share, so that any number of open pages costs a head no more than one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

T = TypeVar("T")

#: Shortest and longest time in seconds for which an answer is shown again.
SHORTEST_HOLD = 4.0
LONGEST_HOLD = 60.0

#: An answer is shown again for this many times as long as it took, so that it takes at most a tenth of a head's time.
HOLD_FACTOR = 9.0


@dataclass
class _Slot(Generic[T]):
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    answer: T | None = None
    until: float = float("-inf")
    waiting: int = 0


class SharedReads(Generic[T]):
    """
    Reads each thing once for all who ask for it at the same time, and keeps the answer for a short time.

    :param clock: monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._slots: dict[Hashable, _Slot[T]] = {}

    def __len__(self) -> int:
        """Return the number of answers that are kept or awaited."""
        return len(self._slots)

    async def get(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """
        Return the answer for a key.

        :param key: what is read, and by whose connection.
        :param read: reads it; called only if there is no recent answer, and never twice at the same time for one key.
        """
        self._drop_old()
        slot = self._slots.setdefault(key, _Slot())
        slot.waiting += 1
        try:
            async with slot.lock:
                if slot.answer is not None and self._clock() < slot.until:
                    return slot.answer
                began = self._clock()
                slot.answer = answer = await read()
                now = self._clock()
                slot.until = now + min(max(SHORTEST_HOLD, HOLD_FACTOR * (now - began)), LONGEST_HOLD)
                return answer
        finally:
            slot.waiting -= 1

    def _drop_old(self) -> None:
        now = self._clock()
        for key, slot in list(self._slots.items()):
            if not slot.waiting and slot.until <= now:
                del self._slots[key]

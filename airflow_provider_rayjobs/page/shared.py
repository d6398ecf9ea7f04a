"""Answers of clusters that all viewers share, so that any number of open pages costs a head no more than one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

T = TypeVar("T")

#: Shortest and longest time in seconds for which an answer is shown again. The longest is enough for the slowest
#: answer, which takes 25 s.
SHORTEST_HOLD = 4.0
LONGEST_HOLD = 240.0

#: An answer is shown again for this many times as long as it took, so that it takes at most a tenth of a head's time.
HOLD_FACTOR = 9.0

#: Seconds after which an answer that is no longer shown is dropped.
DROP_DELAY = 1.0


class Cost:
    """
    For how long a read keeps the other side busy: from its beginning on, if it does not say otherwise.

    :param clock: monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = clock()
        self._until: float | None = None

    def begin(self) -> None:
        """Say that the other side is asked only now."""
        self._since = self._clock()

    def end(self) -> None:
        """Say that the other side has answered: what follows costs it nothing."""
        self._until = self._clock()

    def drop(self) -> None:
        """Say that the other side was not asked."""
        self._since = None

    def seconds(self) -> float:
        """Return the seconds until the end, or until now."""
        if self._since is None:
            return 0.0
        return (self._clock() if self._until is None else self._until) - self._since


@dataclass
class _Slot(Generic[T]):
    group: Hashable
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    answer: T | None = None
    until: float = float("-inf")
    cost: float = 0.0
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

    async def get(self, key: Hashable, read: Callable[[Cost], Awaitable[T]], group: Hashable = None) -> T:
        """
        Return the answer for a key.

        :param key: what is read, and by whose connection.
        :param read: reads it; called only if there is no recent answer, and never twice at the same time for one key.
        :param group: of whom it is asked, if several keys ask the same one: the more of its answers are kept, the
            longer each is, so that all of them together take at most a tenth of its time.
        """
        slot = self._slots.setdefault(key, _Slot(key if group is None else group))
        slot.waiting += 1
        try:
            async with slot.lock:
                if slot.answer is not None and self._clock() < slot.until:
                    return slot.answer
                cost = Cost(self._clock)
                slot.answer = answer = await read(cost)
                slot.cost = cost.seconds()
                hold = min(max(SHORTEST_HOLD, HOLD_FACTOR * self._cost_of(slot)), LONGEST_HOLD)
                slot.until = self._clock() + hold
                asyncio.get_running_loop().call_later(hold + DROP_DELAY, self._drop_if_old, key, slot)
                return answer
        finally:
            slot.waiting -= 1
            self._drop_if_old(key, slot)

    def _cost_of(self, slot: _Slot[T]) -> float:
        """Return the cost of an answer, and of the others of its group that are kept; none if it had none."""
        now = self._clock()
        others = (
            one.cost for one in self._slots.values() if one is not slot and one.group == slot.group and one.until > now
        )
        return slot.cost and slot.cost + sum(others)

    def _drop_if_old(self, key: Hashable, slot: _Slot[T]) -> None:
        if not slot.waiting and slot.until <= self._clock() and self._slots.get(key) is slot:
            del self._slots[key]

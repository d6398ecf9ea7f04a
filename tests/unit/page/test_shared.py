"""Answers that all viewers share: one read at a time, and none again for a while."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_rayjobs.page.shared import HOLD_FACTOR, LONGEST_HOLD, SHORTEST_HOLD, SharedReads
from tests.support.clients import FakeTime


class Head:
    """Counts its answers, and takes some time for each."""

    def __init__(self, time: FakeTime, takes: float = 0.0) -> None:
        self.time = time
        self.takes = takes
        self.asked = 0
        self.most_at_once = self._now = 0

    async def read(self) -> int:
        self.asked += 1
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await asyncio.sleep(0)
        self.time.sleep(self.takes)
        self._now -= 1
        return self.asked


def test_all_who_ask_at_once_share_one_read() -> None:
    time = FakeTime()
    head, reads = Head(time), SharedReads[int](time.clock)

    async def ask() -> list[int]:
        return await asyncio.gather(*(reads.get("a", head.read) for _ in range(50)))

    assert asyncio.run(ask()) == [1] * 50
    assert (head.asked, head.most_at_once) == (1, 1)


def test_each_key_has_its_own_answer() -> None:
    time = FakeTime()
    head, reads = Head(time), SharedReads[int](time.clock)

    async def ask() -> list[int]:
        return [await reads.get(key, head.read) for key in ("a", "b", "a")]

    assert asyncio.run(ask()) == [1, 2, 1]


@pytest.mark.parametrize(("takes", "hold"), [(0.0, SHORTEST_HOLD), (2.0, HOLD_FACTOR * 2.0), (100.0, LONGEST_HOLD)])
def test_a_costly_answer_is_kept_longer(takes: float, hold: float) -> None:
    time = FakeTime()
    head, reads = Head(time, takes), SharedReads[int](time.clock)

    async def ask() -> int:
        return await reads.get("a", head.read)

    asyncio.run(ask())
    time.sleep(hold - 0.1)
    assert asyncio.run(ask()) == 1
    time.sleep(0.2)
    assert asyncio.run(ask()) == 2


def test_a_read_that_breaks_off_leaves_room_for_the_next() -> None:
    time = FakeTime()
    head, reads = Head(time), SharedReads[int](time.clock)

    async def broken() -> int:
        raise asyncio.CancelledError

    async def ask() -> int:
        with pytest.raises(asyncio.CancelledError):
            await reads.get("a", broken)
        return await reads.get("a", head.read)

    assert asyncio.run(ask()) == 1


def test_old_answers_are_forgotten() -> None:
    time = FakeTime()
    head, reads = Head(time), SharedReads[int](time.clock)

    async def ask(key: str) -> int:
        return await reads.get(key, head.read)

    for number in range(10):
        asyncio.run(ask(f"job-{number}"))
    assert len(reads) == 10
    time.sleep(LONGEST_HOLD)
    asyncio.run(ask("other"))
    assert len(reads) == 1

"""Answers that all viewers share: one read at a time, and none again for a while."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from airflow_provider_rayjobs.page import shared
from airflow_provider_rayjobs.page.rows import FACTS_GRACE, LIST_TIMEOUT
from airflow_provider_rayjobs.page.shared import HOLD_FACTOR, LONGEST_HOLD, SHORTEST_HOLD, Cost, SharedReads
from tests.support.clients import FakeTime


class Head:
    """Counts its answers, and takes some time for each."""

    def __init__(self, time: FakeTime, takes: float = 0.0) -> None:
        self.time = time
        self.takes = takes
        self.asked = 0
        self.most_at_once = self._now = 0

    async def read(self, _: Cost | None = None) -> int:
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

    async def broken(_: Cost) -> int:
        raise asyncio.CancelledError

    async def ask() -> int:
        with pytest.raises(asyncio.CancelledError):
            await reads.get("a", broken)
        return await reads.get("a", head.read)

    assert asyncio.run(ask()) == 1


def test_the_slowest_list_takes_at_most_a_tenth_of_a_heads_time() -> None:
    assert HOLD_FACTOR * (LIST_TIMEOUT + FACTS_GRACE) <= LONGEST_HOLD


def test_all_answers_of_a_group_together_take_at_most_a_tenth_of_its_time() -> None:
    time = FakeTime()
    head, reads = Head(time, takes=0.5), SharedReads[int](time.clock)
    keys = [f"job-{number}" for number in range(20)]

    async def ask() -> None:
        for key in keys:
            await reads.get(key, head.read, "head")

    async def watch(seconds: float) -> int:
        before, end = head.asked, time.clock() + seconds
        while time.clock() < end:
            await ask()
            time.sleep(1)
        return head.asked - before

    asyncio.run(ask())
    assert head.asked == 20, "the first answer to each does not wait"
    assert asyncio.run(watch(1000)) * 0.5 <= 1000 / (HOLD_FACTOR - 1)

    async def alone() -> float:
        await reads.get("other", head.read)
        time.sleep(HOLD_FACTOR * 0.5 + 0.1)
        return await reads.get("other", head.read)

    before = head.asked
    asyncio.run(alone())
    assert head.asked == before + 2, "another head's answers are not kept longer"


def test_only_the_time_since_the_other_side_is_asked_counts() -> None:
    time = FakeTime()
    reads = SharedReads[str](time.clock)
    asked = []

    async def read(cost: Cost, *, began: bool) -> str:
        asked.append(began)
        time.sleep(25)  # the wait for a turn
        if began:
            cost.begin()
            time.sleep(1)
            cost.end()
            time.sleep(3)  # work of this side
        else:
            cost.drop()
        return "x"

    async def ask(hold: float, *, began: bool) -> int:
        asked.clear()
        for pause in (0, hold - 0.1, 0.2):
            time.sleep(pause)
            await reads.get(began, partial(read, began=began))
        return len(asked)

    assert asyncio.run(ask(HOLD_FACTOR * 1, began=True)) == 2
    assert asyncio.run(ask(SHORTEST_HOLD, began=False)) == 2


def test_old_answers_are_forgotten_though_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "SHORTEST_HOLD", 0.05)
    monkeypatch.setattr(shared, "DROP_DELAY", 0.05)
    reads = SharedReads[int]()
    head = Head(FakeTime())

    async def ask() -> None:
        for number in range(10):
            await reads.get(f"job-{number}", head.read)
        assert len(reads) == 10
        await asyncio.sleep(0.5)
        assert len(reads) == 0

    asyncio.run(ask())


def test_a_read_without_an_answer_leaves_nothing() -> None:
    reads = SharedReads[int]()

    async def broken(_: Cost) -> int:
        raise asyncio.CancelledError

    async def ask() -> None:
        with pytest.raises(asyncio.CancelledError):
            await reads.get("a", broken)

    asyncio.run(ask())
    assert len(reads) == 0

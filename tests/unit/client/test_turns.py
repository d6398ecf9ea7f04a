"""Long work on an event loop: short runs, shared out fairly, whatever a taker comes to."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.client import turns
from airflow_provider_rayjobs.client.turns import LONGEST_RUN, Turns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

#: Steps that one turn of the loop has time for, by the clock below.
STEPS = 4


class Work:
    """Iterators of steps that take time by a clock of their own; each is noted with its turn of the loop."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.turn = 0
        self.done: Counter[str] = Counter()
        self.in_turn: Counter[int] = Counter()

    def clock(self) -> float:
        return self.now

    async def count_turns(self) -> None:
        while True:
            self.turn += 1
            await asyncio.sleep(0)

    def steps(self, name: str, number: int = 2**31) -> Iterator[None]:
        for _ in range(number):
            self.now += LONGEST_RUN / (STEPS - 0.5)
            self.done[name] += 1
            self.in_turn[self.turn] += 1
            yield


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    made = Work()
    monkeypatch.setattr(turns, "time", SimpleNamespace(monotonic=made.clock))
    return made


@contextlib.asynccontextmanager
async def running(*tasks: asyncio.Task[None]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def pass_turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("clusters", [1, 2, 5])
@pytest.mark.parametrize("jobs", [1, 3])
def test_one_turn_of_the_loop_has_one_run_of_work_whoever_does_it(clusters: int, jobs: int, work: Work) -> None:
    async def main() -> None:
        of_clusters = [Turns() for _ in range(clusters)]
        takers = [one.take(work.steps("", 60)) for one in of_clusters for _ in range(jobs)]
        async with running(asyncio.create_task(work.count_turns())):
            await asyncio.wait_for(asyncio.gather(*takers), 30)

    asyncio.run(main())
    assert work.done[""] == 60 * clusters * jobs
    assert max(work.in_turn.values()) == STEPS


def test_a_cluster_of_many_jobs_gets_no_more_of_the_loop_than_one_of_a_single_job(work: Work) -> None:
    async def main() -> None:
        many, single = Turns(), Turns()
        tasks = [asyncio.create_task(many.take(work.steps("many"))) for _ in range(20)]
        tasks.append(asyncio.create_task(single.take(work.steps("single"))))
        async with running(*tasks):
            await pass_turns(1000)

    asyncio.run(main())
    assert work.done["many"] > 100
    assert work.done["many"] <= work.done["single"] + STEPS


def test_the_jobs_of_a_cluster_take_turns(work: Work) -> None:
    async def main() -> None:
        one = Turns()
        async with running(*[asyncio.create_task(one.take(work.steps(f"{n}"))) for n in range(20)]):
            await pass_turns(2000)

    asyncio.run(main())
    assert len(work.done) == 20
    assert max(work.done.values()) - min(work.done.values()) <= 2 * STEPS


@pytest.mark.parametrize("after", range(8))
@pytest.mark.parametrize("others", ["none", "its cluster's", "another cluster's"])
def test_a_cancelled_taker_leaves_the_loop_to_the_others(after: int, others: str, work: Work) -> None:
    """Whether it works, waits for the next turn of the loop, or for the others."""

    async def main() -> None:
        mine, foreign = Turns(), Turns()
        rest: list[asyncio.Task[None]] = []
        if others != "none":
            turns_of = mine if others == "its cluster's" else foreign
            rest = [asyncio.create_task(turns_of.take(work.steps("rest"))) for _ in range(2)]
        taker = asyncio.create_task(mine.take(work.steps("taker")))
        async with running(taker, *rest):
            await pass_turns(after)
            taker.cancel()
            await asyncio.wait({taker}, timeout=30)
            assert taker.cancelled()
            before = work.done["taker"]
            for one in (mine, foreign):
                await asyncio.wait_for(one.take(work.steps("next", 3 * STEPS)), 30)
            assert work.done["taker"] == before

    asyncio.run(main())
    assert work.done["next"] == 6 * STEPS


@pytest.mark.parametrize("at", [0, 1, STEPS, 5 * STEPS])
def test_what_a_step_raises_reaches_the_taker_and_leaves_the_loop_to_the_others(at: int, work: Work) -> None:
    def steps() -> Iterator[None]:
        yield from work.steps("broken", at)
        raise LookupError("odd")

    async def main() -> None:
        mine, foreign = Turns(), Turns()
        for one in (mine, foreign):
            with pytest.raises(LookupError, match="odd"):
                await mine.take(steps())
            await asyncio.wait_for(one.take(work.steps("next", 3 * STEPS)), 30)

    asyncio.run(main())
    assert work.done == Counter({"broken": 2 * at, "next": 6 * STEPS})


def test_a_wait_for_a_turn_alone_lets_the_loop_turn_once_its_time_is_over(work: Work) -> None:
    async def main() -> None:
        one = Turns()
        async with running(asyncio.create_task(work.count_turns())):
            await pass_turns(2)
            before = work.turn
            await one.take()
            assert work.turn == before  # there is time left
            await one.take(work.steps("", STEPS))
            await one.take()
            assert work.turn > before

    asyncio.run(main())

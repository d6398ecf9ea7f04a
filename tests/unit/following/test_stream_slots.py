"""Open log streams of one cluster: a limit for running jobs, and the same limit for ended ones."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.following import stream_slots
from airflow_provider_rayjobs.following.stream_slots import StreamSlots

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MOST = 2


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_slots, "STREAMS_AT_ONCE", MOST)


def running(work: Callable[[StreamSlots], Awaitable[None]]) -> None:
    """Run a coroutine on a cluster without open streams; nothing is left of it afterwards."""

    async def main() -> None:
        await work(StreamSlots())
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def event(is_set: bool = False) -> asyncio.Event:
    made = asyncio.Event()
    if is_set:
        made.set()
    return made


async def is_waiting(task: asyncio.Task[Any]) -> bool:
    await asyncio.sleep(0.01)
    return not task.done()


def test_one_more_stream_waits_until_another_is_closed() -> None:
    async def work(slots: StreamSlots) -> None:
        leave = [await slots.acquire(event()) for _ in range(MOST - 1)]
        assert not slots.full
        leave.append(await slots.acquire(event()))
        assert slots.full
        waiting = asyncio.ensure_future(slots.acquire(event()))
        assert await is_waiting(waiting)
        leave.pop()()
        leave.append(await asyncio.wait_for(waiting, 5))
        assert slots.full
        for give_back in leave:
            give_back()
        assert not slots.full

    running(work)


def test_the_stream_of_a_job_that_is_over_waits_for_no_job_that_runs() -> None:
    async def work(slots: StreamSlots) -> None:
        over = [await slots.acquire(event(is_set=True)) for _ in range(MOST)]
        for _ in range(MOST):
            await asyncio.wait_for(slots.acquire(event()), 5)  # nor does it take their room
        waiting = asyncio.ensure_future(slots.acquire(event(is_set=True)))
        assert await is_waiting(waiting)  # these have a bound, too
        over[0]()
        await asyncio.wait_for(waiting, 5)

    running(work)


def test_a_job_that_ends_while_it_waits_takes_the_other_kind_of_room() -> None:
    async def work(slots: StreamSlots) -> None:
        leave = [await slots.acquire(event()) for _ in range(MOST)]
        waiting = asyncio.ensure_future(slots.acquire(over := event()))
        assert await is_waiting(waiting)
        over.set()
        give_back = await asyncio.wait_for(waiting, 5)
        leave[0]()
        assert not slots.full  # the room of a job that runs was not taken
        give_back()
        for _ in range(MOST):
            await asyncio.wait_for(slots.acquire(event(is_set=True)), 5)

    running(work)


@pytest.mark.parametrize("turns", range(6))
def test_a_wait_that_is_cancelled_at_any_moment_takes_no_room(turns: int) -> None:
    async def work(slots: StreamSlots) -> None:
        leave = [await slots.acquire(event()) for _ in range(MOST)]
        waiting = asyncio.ensure_future(slots.acquire(event()))
        await asyncio.sleep(0)
        leave.pop()()
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        (result,) = await asyncio.gather(waiting, return_exceptions=True)
        if not isinstance(result, BaseException):
            result()
        await asyncio.wait_for(slots.acquire(event()), 5)

    running(work)

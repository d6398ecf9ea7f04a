"""Open log streams of one cluster: so many of jobs that run, and as many of jobs that are over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.following import rooms as rooms_module
from airflow_provider_rayjobs.following.rooms import Rooms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MOST = 2


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms_module, "STREAMS_AT_ONCE", MOST)


def running(work: Callable[[Rooms], Awaitable[None]]) -> None:
    """Run a coroutine on a cluster without open streams; nothing is left of it afterwards."""

    async def main() -> None:
        await work(Rooms())
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
    async def work(rooms: Rooms) -> None:
        leave = [await rooms.enter(event()) for _ in range(MOST - 1)]
        assert not rooms.full
        leave.append(await rooms.enter(event()))
        assert rooms.full
        waiting = asyncio.ensure_future(rooms.enter(event()))
        assert await is_waiting(waiting)
        leave.pop()()
        leave.append(await asyncio.wait_for(waiting, 5))
        assert rooms.full
        for give_back in leave:
            give_back()
        assert not rooms.full

    running(work)


def test_the_stream_of_a_job_that_is_over_waits_for_no_job_that_runs() -> None:
    async def work(rooms: Rooms) -> None:
        over = [await rooms.enter(event(is_set=True)) for _ in range(MOST)]
        for _ in range(MOST):
            await asyncio.wait_for(rooms.enter(event()), 5)  # nor does it take their room
        waiting = asyncio.ensure_future(rooms.enter(event(is_set=True)))
        assert await is_waiting(waiting)  # these have a bound, too
        over[0]()
        await asyncio.wait_for(waiting, 5)

    running(work)


def test_a_job_that_ends_while_it_waits_takes_the_other_kind_of_room() -> None:
    async def work(rooms: Rooms) -> None:
        leave = [await rooms.enter(event()) for _ in range(MOST)]
        waiting = asyncio.ensure_future(rooms.enter(over := event()))
        assert await is_waiting(waiting)
        over.set()
        give_back = await asyncio.wait_for(waiting, 5)
        leave[0]()
        assert not rooms.full  # the room of a job that runs was not taken
        give_back()
        for _ in range(MOST):
            await asyncio.wait_for(rooms.enter(event(is_set=True)), 5)

    running(work)


@pytest.mark.parametrize("turns", range(6))
def test_a_wait_that_is_cancelled_at_any_moment_takes_no_room(turns: int) -> None:
    async def work(rooms: Rooms) -> None:
        leave = [await rooms.enter(event()) for _ in range(MOST)]
        waiting = asyncio.ensure_future(rooms.enter(event()))
        await asyncio.sleep(0)
        leave.pop()()
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        (result,) = await asyncio.gather(waiting, return_exceptions=True)
        if not isinstance(result, BaseException):
            result()
        await asyncio.wait_for(rooms.enter(event()), 5)

    running(work)

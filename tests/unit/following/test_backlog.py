"""Messages that arrive while earlier ones are written are taken together, within bounds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.client.turns import Turns
from airflow_provider_rayjobs.exceptions import RayJobsError
from airflow_provider_rayjobs.following import backlog as backlog_module
from airflow_provider_rayjobs.following.backlog import Backlog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


class Stream:
    """A stream that sends what a test puts into it; None ends it, and an error breaks it."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str | RayJobsError | None] = asyncio.Queue()
        self.received = 0

    async def messages(self) -> AsyncIterator[str]:
        while (item := await self.queue.get()) is not None:
            if isinstance(item, RayJobsError):
                raise item
            self.received += 1
            yield item

    def send(self, *items: str | RayJobsError | None) -> None:
        for item in items:
            self.queue.put_nowait(item)


def running(work: Callable[[Stream, Backlog], Awaitable[None]]) -> None:
    """Run a coroutine with a backlog; nothing is left of it afterwards."""

    async def main() -> None:
        stream = Stream()
        backlog = Backlog(stream.messages(), Turns())
        await work(stream, backlog)
        await backlog.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


async def arrived() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_what_arrives_alone_is_taken_at_once_and_the_rest_together() -> None:
    async def work(stream: Stream, backlog: Backlog) -> None:
        stream.send("one")
        assert await backlog.take() == "one"
        stream.send("two", "three")
        await arrived()
        assert await backlog.take() == "twothree"
        stream.send("four", None)
        await arrived()
        assert [await backlog.take() for _ in range(3)] == ["four", "", ""]

    running(work)


def test_no_more_is_received_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog_module, "MOST_GATHERED", 10)

    async def work(stream: Stream, backlog: Backlog) -> None:
        stream.send(*["x" * 4] * 9)
        await arrived()
        assert stream.received == 3
        taken = [await backlog.take()]
        await arrived()
        assert stream.received == 6
        taken += [await backlog.take()]
        await arrived()
        taken += [await backlog.take()]
        assert "".join(taken) == "x" * 36

    running(work)


def test_what_arrived_before_the_stream_broke_is_taken_first() -> None:
    async def work(stream: Stream, backlog: Backlog) -> None:
        stream.send("one", RayJobsError("broken"))
        await arrived()
        assert await backlog.take() == "one"
        with pytest.raises(RayJobsError, match="broken"):
            await backlog.take()

    running(work)


def test_a_wait_can_be_ended_and_the_stream_goes_on() -> None:
    async def work(stream: Stream, backlog: Backlog) -> None:
        waiting = asyncio.ensure_future(backlog.take())
        await arrived()
        backlog.leave()
        assert await waiting == ""
        stream.send("one")
        assert await backlog.take() == "one"

    running(work)

"""
A job's log, followed over the WebSocket ``GET /api/jobs/{id}/logs/tail``: whole lines, each once.

What Ray 2.60 does there, and what follows from it:

- Each connection starts at the log's beginning, so after a lost one the characters already taken are skipped.
- It closes 2-4 s after the job's end, but also in between (with code 1000), so a close says nothing of the outcome.
- A natural close comes at least a second after the last message: the agent has to meet the end of the file twice.
  A close that follows a message at once means that the stream broke inside the head, as it does at a line of more
  than 4 MiB or at a byte that is not UTF-8. The rest is then read from the log's file when the job is over.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_rayjobs.client.log_files import read_log
from airflow_provider_rayjobs.client.verbs import job_path
from airflow_provider_rayjobs.exceptions import RayJobsError
from airflow_provider_rayjobs.following.lines import LineWriter
from airflow_provider_rayjobs.following.rooms import FIRST, STREAMS_AT_ONCE, Rooms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport

#: Seconds between the last message and the close, below which the close was not the log's end.
NATURAL_GAP = 0.8

#: Seconds after a natural close within which the owner is to find that the job is over; else the log goes on.
OVER_PATIENCE = 3.0

#: Seconds without a message after the job's end until the stream is opened anew, then until the log is given up;
#: seconds after the job's end in all.
DRAIN_REOPEN = 5.0
DRAIN_IDLE = 10.0
DRAIN_TOTAL = 600.0

#: Characters up to which a log is compared with the whole log at its end. A stream that broke inside the head at a
#: line of more than 4 MiB, after a pause of the job, looks like one that came to its end.
LARGEST_CHECK = 5_000_000

#: Characters of a log beyond which it is not asked for as one JSON string: the head builds that in its memory.
LARGEST_REREAD = 200_000_000

#: Seconds between attempts to open the stream: the first, and the longest.
REOPEN_FIRST = 0.5
REOPEN_LONGEST = 10.0


class LogFollower:
    """
    Follows one job's log until the job is over and the log is complete.

    :param transport: the cluster.
    :param submission_id: the job.
    :param write: takes each line.
    :param note: takes what a reader must know of the log itself.
    :param take: of :class:`LineWriter`.
    :param public: of :class:`LineWriter`.
    :param rooms: bounds the streams; beyond it a job's log comes when there is room, or when the job is over.
    """

    def __init__(
        self,
        transport: AiohttpTransport,
        submission_id: str,
        write: Callable[[str], None],
        note: Callable[[str], None],
        *,
        take: Callable[[str], str | None] | None = None,
        public: Callable[[str], str] = str,
        rooms: Rooms | None = None,
    ) -> None:
        self._transport = transport
        self._id = submission_id
        self._note = note
        self.lines = LineWriter(write, take, public)
        self.over = asyncio.Event()  # set by the owner when the job is over
        self.node_id: str | None = None  # set by the owner when it is known: the node that has the log's file
        self.complete = False  # whether all lines were written
        self.on_close: Callable[[], None] = lambda: None  # called when the stream came to an end that may be the log's
        self._rooms = rooms or Rooms()
        self._queued = False
        self._told = False  # that it is
        self._moved = time.monotonic()
        self._stuck = 0
        self._whole = False  # whether the whole log was asked for, an answer that the head needs time to build
        self._give_up: float | None = None

    async def run(self) -> None:
        """Write the log's lines; return when the log is complete or can't be had."""
        reading = asyncio.ensure_future(self._read())
        over = asyncio.ensure_future(self.over.wait())
        try:
            await asyncio.wait({reading, over}, return_when=FIRST)
            if not await self._drained(reading, DRAIN_REOPEN):
                # A connection that died without a word: what it did not deliver, a new one does.
                await _cancelled(reading)
                reading = asyncio.ensure_future(self._read())
                if not await self._drained(reading, DRAIN_IDLE):
                    self._note("The end of the job's log did not arrive; the Ray dashboard has the whole log")
            self.complete = reading.done() and reading.exception() is None
        finally:
            over.cancel()
            await _cancelled(reading)
            self.lines.flush()

    async def _drained(self, reading: asyncio.Future[None], idle: float) -> bool:
        """Wait, once the job is over, for the log's end; False when nothing came for ``idle`` seconds."""
        self._moved = time.monotonic()
        if self._give_up is None:
            self._give_up = self._moved + DRAIN_TOTAL
        while not reading.done():
            await asyncio.wait({reading}, timeout=0.5)
            now = time.monotonic()
            if self._queued:
                self._moved, self._give_up = now, now + DRAIN_TOTAL
            if (now - self._moved > idle and not self._whole) or now > self._give_up:
                return reading.done()
        if error := reading.exception():
            if not isinstance(error, Exception):
                raise error  # a signal or an alarm, which hit this task by chance
            self._note(f"The job's log could not be read to its end: {error}")
        return True

    async def _read(self) -> None:
        pause = REOPEN_FIRST
        while True:
            before = self.lines.position
            complete, problem = await self._read_stream()
            if complete and await self._is_over(within=OVER_PATIENCE):
                if self.lines.position <= LARGEST_CHECK:
                    await self._read_rest()
                return
            moved = self.lines.position > before
            self._stuck = 0 if moved or complete else self._stuck + 1
            if self._stuck >= 2:
                if self._stuck == 2 and not self.over.is_set():
                    self._note(
                        f"Ray does not stream the job's log ({problem or 'the stream ends early'}); trying on, and "
                        "what is missing will be read when the job is over"
                    )
                if self.over.is_set():
                    await self._read_rest()
                    return
            pause = REOPEN_FIRST if moved else min(pause * 2, REOPEN_LONGEST)
            await self._is_over(within=pause)

    async def _is_over(self, within: float) -> bool:
        """Wait until the job is over, at most ``within`` seconds; the owner is asked to look."""
        self.on_close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), within)
        return self.over.is_set()

    async def _read_stream(self) -> tuple[bool, str]:
        """Read one connection to its close; tell whether that close was natural, and what broke it."""
        leave = await self._enter()
        last = time.monotonic()
        received, take = 0, self.lines.from_the_start()
        try:
            async with self._transport.stream(f"{job_path(self._id)}/logs/tail") as messages:
                async for text in messages:
                    self._moved = last = time.monotonic()
                    received += len(text)
                    await self._transport.turns.take(self._moving(take(text)))
        except RayJobsError as e:
            return False, str(e)
        finally:
            leave()
        return received >= self.lines.position and time.monotonic() - last >= NATURAL_GAP, ""

    def _moving(self, steps: Iterable[None]) -> Iterator[None]:
        """Note that the log goes on, with each step."""
        for _ in steps:
            self._moved = time.monotonic()
            yield

    async def _enter(self) -> Callable[[], None]:
        """Wait for room for one stream, and say once that it has to wait."""
        if self._rooms.full and not (self._told or self.over.is_set()):
            self._told = True
            self._note(
                f"{STREAMS_AT_ONCE} logs of this cluster are streamed already; this one follows when there is room, or "
                "when its job is over"
            )
        self._queued = True
        try:
            return await self._rooms.enter(self.over)
        finally:
            self._queued = False

    async def _read_rest(self) -> None:
        """Read what the stream could not give."""
        self._whole = True
        try_json = self.lines.position <= LARGEST_REREAD
        await self._transport.run(read_log(self._id, self.node_id, self.lines.from_the_start, try_json=try_json))


async def _cancelled(task: asyncio.Future[None]) -> None:
    """Cancel a task and see it end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

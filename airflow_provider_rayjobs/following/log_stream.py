"""
Follows a job's log over the WebSocket ``GET /api/jobs/{id}/logs/tail``: whole lines, each once.

What Ray 2.60 does there, and what follows from it:

- Each connection starts at the log's beginning, so after a reconnect the characters already read are skipped.
- The stream is late: a line arrives 1-3 s after it was printed, and the close 3-4 s after the job's end. But when the
  status says that the job has ended, its log's file is complete: the job's process writes it, without Ray between them.
  So the rest is then read from the file, which has to be read from its beginning. Only if it is very large, or can't be
  read, the stream is waited for.
- Ray sometimes closes the stream earlier (with code 1000). So a close says nothing about the outcome.
- A natural close comes at least a second after the last message: the agent has to meet the end of the file twice.
  A close right after a message means that the stream broke inside the head, as it does at a line of more than 4 MiB or
  at a byte that is not UTF-8. The rest is then read from the log's file when the job is over.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_provider_rayjobs.client.log_files import read_log
from airflow_provider_rayjobs.client.verbs import job_path
from airflow_provider_rayjobs.exceptions import RayJobsError
from airflow_provider_rayjobs.following.backlog import Backlog
from airflow_provider_rayjobs.following.lines import Again, LineWriter
from airflow_provider_rayjobs.following.stream_slots import STREAMS_AT_ONCE, StreamSlots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport

#: Seconds between the last message and a natural close, at least; an earlier close is not the log's end.
NATURAL_GAP = 0.8

#: Seconds after a natural close within which the owner has to find that the job is over; else the log goes on.
OVER_PATIENCE = 3.0

#: Seconds from the news of the job's end to the reading of its log's file: what the job has printed through a pipe may
#: arrive a moment after its end.
SETTLE = 0.1

#: After the job's end: seconds without a message until the stream is reopened, then until the log is given up, and
#: seconds in total.
DRAIN_REOPEN = 5.0
DRAIN_IDLE = 10.0
DRAIN_TOTAL = 6 * 3600.0

#: Most characters of a log that the stream has brought when its rest is read from its file: to skip them takes the head
#: about 5 ms for each million.
LARGEST_SKIP = 256_000_000

#: Longest log, in characters, that is compared with the whole log if the stream came to its end and the file could not
#: be read: a stream that broke at a line of more than 4 MiB, after a pause of the job, looks the same.
LARGEST_CHECK = 5_000_000

#: Longest log, in characters, that is requested as one JSON string: the head builds that in its memory.
LARGEST_REREAD = 200_000_000

#: Seconds by which the writing is behind when many lines are written at once: Airflow takes about 0.2 ms for a record.
#: What exceeds the second number is not counted; so as many seconds have to pass without writing until each line is
#: written by itself again, at most.
BEHIND = 2.0
MOST_BEHIND = 4.0

#: Shortest and longest pause in seconds before the stream is reopened.
REOPEN_FIRST = 0.5
REOPEN_LONGEST = 10.0


class LogFollower:
    """
    Follows one job's log until the job is over and the log is complete.

    :param transport: the cluster.
    :param submission_id: the job.
    :param write: called with each line.
    :param note: called with warnings about the log itself.
    :param take: as for :class:`LineWriter`.
    :param public: as for :class:`LineWriter`.
    :param slots: limits the open streams; a job without a slot waits until one is free, or until it is over.
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
        slots: StreamSlots | None = None,
    ) -> None:
        self._transport = transport
        self._id = submission_id
        self._note = note
        self.lines = LineWriter(write, take, public)
        self.over = asyncio.Event()  # set by the owner when the job is over
        self.node_id: str | None = None  # set by the owner once it is known: the node that has the log's file
        self.complete = False  # whether all lines were written
        self.on_close: Callable[[], None] = lambda: None  # called when a stream ends, which may be the log's end
        self._slots = slots or StreamSlots()
        self._queued = False  # waits for a slot
        self._queue_noted = False
        self._moved = time.monotonic()
        self._writing = False
        self._wrote = self._moved  # when the last text was written
        self._behind = 0.0  # seconds
        self._stuck = 0
        self._backlog: Backlog | None = None  # of the open stream
        self._leaves = False  # whether the rest is to be read from the log's file, and not waited for
        self._end_tried = False  # whether the rest was requested from the log's file at the job's end
        self._has_end = False  # whether it was read
        self._whole = False  # whether the whole log was requested: the head needs time to build that answer
        self._give_up: float | None = None

    async def run(self) -> None:
        """Write the log's lines; return when the log is complete or can't be read."""
        reading = asyncio.ensure_future(self._read())
        over = asyncio.ensure_future(self.over.wait())
        try:
            await asyncio.wait({reading, over}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({reading}, timeout=SETTLE)
            self._leave()
            if not await self._drained(reading, DRAIN_REOPEN):
                # The connection may have died unnoticed; a new one delivers the rest.
                await _cancelled(reading)
                reading = asyncio.ensure_future(self._read())
                if not await self._drained(reading, DRAIN_IDLE):
                    self._note("The end of the job's log did not arrive; the Ray dashboard has the whole log")
            self.complete = reading.done() and reading.exception() is None
        finally:
            over.cancel()
            await _cancelled(reading)
            self.lines.flush()

    def _leave(self) -> None:
        """Have the rest read from the log's file, between two messages of the stream."""
        self._leaves = True
        if self._backlog is not None:
            self._backlog.leave()

    async def _drained(self, reading: asyncio.Future[None], idle: float) -> bool:
        """Wait for the log's end once the job is over; return False if nothing came for ``idle`` seconds."""
        self._moved = time.monotonic()
        if self._give_up is None:
            self._give_up = self._moved + DRAIN_TOTAL
        while not reading.done():
            await asyncio.wait({reading}, timeout=0.5)
            now = time.monotonic()
            if self._writing:
                self._moved = now
            if self._queued:
                self._moved, self._give_up = now, now + DRAIN_TOTAL
            if (now - self._moved > idle and not self._whole) or now > self._give_up:
                return reading.done()
        if error := reading.exception():
            if not isinstance(error, Exception):
                raise error  # a signal or an alarm that happened to be raised in this task
            self._note(f"The job's log could not be read to its end: {error}")
        return True

    async def _read(self) -> None:
        pause = REOPEN_FIRST
        while True:
            before = self.lines.position
            complete, problem = await self._read_stream()
            if self._leaves or (complete and await self._is_over(within=OVER_PATIENCE)):
                await self._read_end()
            if self._has_end:
                return
            if complete and self.over.is_set():
                if self.lines.position <= LARGEST_CHECK:
                    await self._read_rest()
                return
            moved = self.lines.position > before
            self._stuck = 0 if moved or complete else self._stuck + 1
            if self._stuck >= 2:
                if self._stuck == 2 and not self.over.is_set():
                    self._note(
                        f"Ray does not stream the job's log ({problem or 'the stream ends early'}); retrying. What is "
                        "missing will be read when the job is over"
                    )
                if self.over.is_set():
                    await self._read_rest()
                    return
            pause = REOPEN_FIRST if moved else min(pause * 2, REOPEN_LONGEST)
            await self._is_over(within=pause)

    async def _is_over(self, within: float) -> bool:
        """Wait at most ``within`` seconds until the job is over; ask the owner to check."""
        self.on_close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), within)
        return self.over.is_set()

    async def _read_end(self, *, has_slot: bool = False) -> None:
        """
        Read the rest from the log's file, once; if that fails, it is left to the stream.

        :param has_slot: whether the caller holds a slot. It must not wait for a second one: so do all others.
        """
        self._leaves = False
        if self._end_tried or self.lines.position > LARGEST_SKIP:
            return
        self._end_tried = True
        release = _keep if has_slot else await self._acquire_slot()
        try:
            # Not as one JSON string: the head would build that in its memory, for the logs of many jobs at once.
            take = await self._read_again(try_json=False)
            self._has_end = take.is_new  # else this was not the log, or not all of it
        except RayJobsError:
            pass
        finally:
            release()

    async def _read_stream(self) -> tuple[bool, str]:
        """Read one connection to its close; return whether the close was natural, and what broke it."""
        release = await self._acquire_slot()
        last = time.monotonic()
        take = self.lines.from_the_start()
        try:
            async with self._transport.stream(f"{job_path(self._id)}/logs/tail") as messages:
                backlog = self._backlog = Backlog(messages, self._transport.turns)
                try:
                    while True:
                        text = "" if self._leaves else await backlog.take()
                        if self._leaves:
                            before = self.lines.position
                            await self._read_end(has_slot=True)
                            if self._has_end or self.lines.position > before:
                                return False, ""
                        elif not text:
                            break
                        last = time.monotonic()
                        await self._transport.turns.take(self._moving(take(text)))
                finally:
                    self._backlog = None
                    await backlog.close()
        except RayJobsError as e:
            return False, str(e)
        finally:
            release()
        return take.is_new and time.monotonic() - last >= NATURAL_GAP, ""

    def _moving(self, steps: Iterable[None]) -> Iterator[None]:
        """
        Record that the log makes progress, also while it waits for its turn: its lines must not be cut off.

        Count how far the writing is behind, too: by the time that it took, less the time that was spent waiting for
        more of the log.
        """
        began = time.monotonic()
        behind = max(self._behind - (began - self._wrote), 0.0)
        self._writing, self.lines.together = True, behind > BEHIND
        try:
            for _ in steps:
                self.lines.together = behind + time.monotonic() - began > BEHIND
                yield
        finally:
            self._writing = False
            self._moved = self._wrote = time.monotonic()
            self._behind = min(behind + self._wrote - began, MOST_BEHIND)

    async def _acquire_slot(self) -> Callable[[], None]:
        """Wait for a slot for one stream; warn once if there is none."""
        if self._slots.full and not (self._queue_noted or self.over.is_set()):
            self._queue_noted = True
            self._note(
                f"{STREAMS_AT_ONCE} logs of this cluster are streamed already, which is the limit; this one is shown "
                "when another one ends, or when its job is over"
            )
        self._queued = True
        try:
            return await self._slots.acquire(self.over)
        finally:
            self._queued = False

    async def _read_rest(self) -> None:
        """Read what the stream did not deliver."""
        self._whole = True
        await self._read_again(try_json=self.lines.position <= LARGEST_REREAD)

    async def _read_again(self, *, try_json: bool) -> Again:
        """Read the whole log, and skip what was processed before; return what has skipped it."""
        take = self.lines.from_the_start()

        def begin() -> Callable[[str], Iterator[None]]:
            nonlocal take
            take = again = self.lines.from_the_start()
            return lambda text: self._moving(again(text))

        reading = read_log(self._id, self.node_id, begin, try_json=try_json, within=DRAIN_TOTAL)
        await self._transport.run(reading)
        return take


def _keep() -> None:
    """Release nothing."""


async def _cancelled(task: asyncio.Future[None]) -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

"""
A job's log, followed over the WebSocket ``GET /api/jobs/{id}/logs/tail``: whole lines, each once.

What Ray 2.60 does there, and what follows from it:

- Each connection starts at the log's beginning, so after a lost one the characters already taken are skipped.
- It closes 2-4 s after the job's end, but also in between (with code 1000), so a close says nothing of the outcome.
- A natural close comes at least a second after the last message: the agent has to meet the end of the file twice.
  A close that follows a message at once means that the stream broke inside the head, as it does at a line of more
  than 4 MiB or at a byte that is no UTF-8. The rest is then read with ``GET /api/jobs/{id}/logs`` when the job is over.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from airflow_provider_rayjobs.exceptions import RayJobsError
from airflow_provider_rayjobs.json_text import json_text
from airflow_provider_rayjobs.progress import FRAME_EDGE
from airflow_provider_rayjobs.protocol import job_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_rayjobs.transport import AiohttpTransport

#: Longest piece of a line that is written at once, in characters; a longer line is written in several.
LONGEST_LINE = 16_000

#: Lines and characters kept for the error of a failed job.
TAIL_LINES = 50
TAIL_CHARACTERS = 20_000

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

#: Characters of a log beyond which it is not asked for as a whole: the head builds that answer in its memory.
LARGEST_REREAD = 200_000_000

#: Streams of one cluster that are open at once, of jobs that run, and as many of jobs that are over.
STREAMS_AT_ONCE = 50

#: Seconds of a long backlog that are written before the event loop has its turn.
LONGEST_RUN = 0.001

#: Seconds between attempts to open the stream: the first, and the longest.
REOPEN_FIRST = 0.5
REOPEN_LONGEST = 10.0


FIRST = asyncio.FIRST_COMPLETED


class LineWriter:
    """
    Cuts text into lines, writes each once, and keeps the last ones.

    :param write: takes a line without its end.
    :param take: sees each line with a frame first; what it returns is written instead, and nothing for None.
    :param public: takes the secrets out of text, of many lines at once where it can.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        take: Callable[[str], str | None] | None = None,
        public: Callable[[str], str] = str,
    ) -> None:
        self._write = write
        self._take = take
        self._public = public
        self._partial = ""
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)

    def feed(self, text: str) -> None:
        """Take the next piece of the log."""
        text = self._partial + text
        cut = text.rfind("\n")
        self._partial = text[cut + 1 :]
        if cut >= 0:
            self._write_lines(text[:cut])
        if len(self._partial) > LONGEST_LINE:
            kept = (len(self._partial) - 1) // LONGEST_LINE * LONGEST_LINE
            self._emit_long(self._partial[:kept])
            self._partial = self._partial[kept:]

    def _write_lines(self, text: str) -> None:
        """Write whole lines; nearly every log is without a call for each line but the one that writes it."""
        if "\r" not in text and (self._take is None or FRAME_EDGE not in text):
            shown = self._public(text)  # a secret of several lines takes their breaks with it
            if not _has_long_line(shown):
                write, lines = self._write, shown.split("\n")
                for line in lines:
                    write(line)
                self._tail.extend(lines[-TAIL_LINES:])
                return
        for line in text.split("\n"):
            self._emit(line)

    def flush(self) -> None:
        """Write what the log ends with when it does not end with a line break."""
        if self._partial:
            self._emit(self._partial)
            self._partial = ""

    def _emit(self, line: str) -> None:
        rest: str | None = line.rstrip("\r")
        if self._take is not None and rest:
            rest = self._take(rest)
        if rest is not None:
            self._emit_long(rest)

    def _emit_long(self, line: str) -> None:
        line = self._public(line)
        for start in range(0, max(len(line), 1), LONGEST_LINE):
            piece = line[start : start + LONGEST_LINE]
            self._tail.append(piece)
            self._write(piece)

    def tail(self) -> tuple[str, ...]:
        """Return the last lines, within :data:`TAIL_LINES` and :data:`TAIL_CHARACTERS`."""
        kept: deque[str] = deque()
        room = TAIL_CHARACTERS
        for line in reversed(self._tail):
            room -= len(line) + 1
            if room < 0:
                break
            kept.appendleft(line)
        return tuple(kept)


def _has_long_line(text: str) -> bool:
    """Whether a line is longer than :data:`LONGEST_LINE`, found without a look at each."""
    start = 0
    while len(text) - start > LONGEST_LINE:
        start = text.rfind("\n", start, start + LONGEST_LINE + 1) + 1
        if start == 0:
            return True
    return False


class Rooms:
    """
    How many log streams of one cluster are open at once: so many of jobs that run, and as many of jobs that are over.

    The latter end within seconds, so that a job's end never waits for the end of others.
    """

    def __init__(self) -> None:
        self._running = asyncio.Semaphore(STREAMS_AT_ONCE)
        self._over = asyncio.Semaphore(STREAMS_AT_ONCE)

    @property
    def full(self) -> bool:
        """Whether a stream of a job that runs would have to wait."""
        return self._running.locked()

    async def enter(self, over: asyncio.Event) -> Callable[[], None]:
        """
        Wait for room.

        :param over: set when the job is over.
        :return: gives the room back.
        """
        if not over.is_set():
            place, end = asyncio.ensure_future(self._running.acquire()), asyncio.ensure_future(over.wait())
            try:
                await asyncio.wait({place, end}, return_when=FIRST)
                if place.done():
                    return self._running.release
            except asyncio.CancelledError:
                if place.done():
                    self._running.release()
                raise
            finally:
                place.cancel()
                end.cancel()
        await self._over.acquire()
        return self._over.release


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
        self._path = f"{job_path(submission_id)}/logs"
        self._note = note
        self.lines = LineWriter(write, take, public)
        self.over = asyncio.Event()  # set by the owner when the job is over
        self.on_close: Callable[[], None] = lambda: None  # called when the stream came to an end that may be the log's
        self._rooms = rooms or Rooms()
        self._queued = False
        self._told = False  # that it is
        self._position = 0
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
            before = self._position
            complete, problem = await self._read_stream()
            if complete and await self._is_over(within=OVER_PATIENCE):
                if self._position <= LARGEST_CHECK:
                    await self._read_rest()
                return
            moved = self._position > before
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
        last = rested = time.monotonic()
        skip = self._position
        try:
            async with self._transport.stream(f"{self._path}/tail") as messages:
                async for text in messages:
                    last = time.monotonic()
                    skip = self._take(text, skip)
                    if self._moved - rested > LONGEST_RUN:
                        await asyncio.sleep(0)
                        rested = time.monotonic()
        except RayJobsError as e:
            return False, str(e)
        finally:
            leave()
        return skip == 0 and time.monotonic() - last >= NATURAL_GAP, ""

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

    def _take(self, text: str, skip: int) -> int:
        """Write what is new in a piece of the log; return how much is still to be skipped."""
        if skip >= len(text):
            self._moved = time.monotonic()
            return skip - len(text)
        fresh = text[skip:]
        self._position += len(fresh)
        self.lines.feed(fresh)
        self._moved = time.monotonic()
        return 0

    async def _read_rest(self) -> None:
        """Read what the stream could not give from the whole log, in pieces."""
        if self._position > LARGEST_REREAD:
            self._note("The job's log is too large to be read again for its rest; the Ray dashboard has the whole log")
            return
        skip, self._whole = self._position, True
        async with self._transport.body(self._path) as chunks, aclosing(json_text(chunks, "logs")) as texts:
            async for text in texts:
                skip = self._take(text, skip)
                await asyncio.sleep(0)


async def _cancelled(task: asyncio.Future[None]) -> None:
    """Cancel a task and see it end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

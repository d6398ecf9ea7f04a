"""
Tells watchers which jobs of a cluster have ended, whoever submitted them.

Only the list of all jobs has jobs whose ids are not known. While a head makes it, it answers nothing else. So there is
one poll for each connection and triggerer: all watchers share its lists, which take at most :data:`SHARE` of the head's
time. Two triggerers, or two connections to one cluster, each have their own lists.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow_provider_rayjobs.client.listing import read_list
from airflow_provider_rayjobs.exceptions import RayJobsError
from airflow_provider_rayjobs.following.head_load import LIST_COST, MOST_LISTED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_rayjobs.client.ended import EndedJob
    from airflow_provider_rayjobs.following.poller import Poller

    #: Returns a job that a watcher wants, and what makes the facts that it wants to know; None for other entries.
    Take = Callable[[dict[str, Any]], "tuple[EndedJob, Callable[[], dict[str, Any]]] | None"]

log = logging.getLogger(__name__)

#: Largest share of the head's time that lists take. With 2,000 jobs on record, there is one every 13 s.
SHARE = 0.05

#: Most ended jobs that a watcher gets from one list, the oldest; the next list has the others.
MOST_AT_ONCE = 1000

#: Seconds until the next list after one that failed, at first and at most. They double with each failure.
FIRST_BACKOFF = 1.0
LONGEST_BACKOFF = 120.0

#: Seconds between two warnings of the same kind about a cluster's lists.
WARN_EVERY = 3600.0

#: Most clusters whose pace is remembered.
MOST_PACES = 1000


class _Pace:
    """When the next list of one cluster may be requested. It outlives pollers, which end with each error."""

    def __init__(self) -> None:
        self.free_at = -math.inf
        self._failures = 0
        self._warned: dict[str, float] = {}

    def listed(self, began: float, number: int, *, failed: bool) -> None:
        """
        Note a list.

        :param began: when it was requested, in seconds of the monotonic clock.
        :param number: of the jobs in it.
        :param failed: whether it is useless; the head may have worked for it nevertheless.
        """
        now = time.monotonic()
        # A list that takes long may have waited for others, but the head may also be slow. It is asked less often.
        self.free_at = began + max(LIST_COST * number, now - began) / SHARE
        self._failures = self._failures + 1 if failed else 0
        if failed:
            backoff = min(FIRST_BACKOFF * 2 ** min(self._failures - 1, 20), LONGEST_BACKOFF)
            self.free_at = max(self.free_at, now + backoff)

    def warn(self, kind: str, text: str, *args: object) -> None:
        """Log a warning, once an hour for each kind."""
        now = time.monotonic()
        if now - self._warned.get(kind, -math.inf) >= WARN_EVERY:
            self._warned[kind] = now
            log.warning(text, *args)


_paces: dict[str, _Pace] = {}  # by address


def _pace_of(address: str) -> _Pace:
    pace = _paces.pop(address, None) or _Pace()
    _paces[address] = pace  # the last one used comes last
    if len(_paces) > MOST_PACES:
        del _paces[next(iter(_paces))]
    return pace


class EndsWatch:
    """
    What one watcher waits for.

    :param take: picks the entries of the list.
    :param interval: seconds between two lists; they may be later, but not earlier.
    :param asked: set when the watcher begins to wait.
    """

    def __init__(self, take: Take, interval: float, asked: asyncio.Event) -> None:
        self.interval = interval
        self.due = -math.inf
        self._take = take
        self._found: list[tuple[EndedJob, dict[str, Any]]] = []
        self._news: asyncio.Future[list[tuple[EndedJob, dict[str, Any]]]] | None = None
        self._asked = asked
        self._latest = math.inf  # ends from here on are too many for this list

    @property
    def waits(self) -> bool:
        """Whether the watcher waits for a list."""
        return self._news is not None and not self._news.done()

    async def jobs(self) -> list[tuple[EndedJob, dict[str, Any]]]:
        """
        Wait for the next list; return the jobs that were picked, the oldest first.

        :raises RayJobsError: the list could not be read.
        """
        self._news = asyncio.get_running_loop().create_future()
        self._asked.set()
        return await self._news

    def begin(self) -> None:
        """Forget what an attempt at a list has found."""
        self._found.clear()
        self._latest = math.inf

    def look(self, data: dict[str, Any]) -> None:
        """Pick an entry of the list, or ignore it. One that is malformed must not spoil the list."""
        try:
            # The facts take much longer than the choice, so only those that may be handed over are made.
            if (found := self._take(data)) is None or found[0].end_time >= self._latest:
                return
            self._found.append((found[0], found[1]()))
        except ValueError:
            return
        if len(self._found) >= 2 * MOST_AT_ONCE:
            self._found.sort(key=lambda one: one[0])
            del self._found[MOST_AT_ONCE + 1 :]
            self._latest = self._found[-1][0].end_time

    def done(self, began: float, error: RayJobsError | None) -> None:
        """
        Hand over what the list had, or the error.

        :param began: when it was requested, in seconds of the monotonic clock.
        """
        found, self._found = self._found, []
        found.sort(key=lambda one: one[0])
        self.due = began + (self.interval if len(found) <= MOST_AT_ONCE else 0.0)
        if self._news is None or self._news.done():
            return  # the watcher has left
        if error is None:
            self._news.set_result(found[:MOST_AT_ONCE])
        else:
            # All watchers get the same error; each must not add to the same traceback.
            self._news.set_exception(error.with_traceback(None))


class EndsPoll:
    """Requests the list for all watchers of one cluster."""

    def __init__(self, poller: Poller) -> None:
        self._transport = poller.transport
        self._load = poller.load
        self._watches: list[EndsWatch] = []
        self._asked = asyncio.Event()
        self._pace = _pace_of(poller.transport.cluster.address)
        self._running: asyncio.Task[None] | None = None

    @contextmanager
    def watch(self, take: Take, interval: float) -> Iterator[EndsWatch]:
        """
        Watch the ends of jobs.

        :param take: picks the entries of the list: returns a job that has ended, and what makes the facts to tell of
            it. Both may raise ValueError for an entry that is malformed.
        :param interval: seconds between two lists.
        """
        watch = EndsWatch(take, interval, self._asked)
        self._watches.append(watch)
        if self._running is None or self._running.done():
            # By the context, Airflow finds the trigger that a log record belongs to; this task belongs to none.
            loop = asyncio.get_running_loop()
            self._running = loop.create_task(self._run(), name="ray-jobs-ends", context=contextvars.Context())
        try:
            yield watch
        finally:
            self._watches.remove(watch)
            if not self._watches and self._running is not None:
                self._running.cancel()
                self._running = None

    async def _run(self) -> None:
        while True:
            self._asked.clear()
            waiting = [watch for watch in self._watches if watch.waits]
            due = max(min((watch.due for watch in waiting), default=math.inf), self._pace.free_at)
            if (rest := due - time.monotonic()) > 0:
                await self._rest(rest)
            else:
                await self._list([watch for watch in waiting if watch.due <= time.monotonic() + watch.interval / 2])

    async def _rest(self, seconds: float) -> None:
        """Wait until a list may be due; another watcher may ask meanwhile."""
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await self._asked.wait()
        except TimeoutError:
            pass

    async def _list(self, watches: list[EndsWatch]) -> None:
        def begin() -> Callable[[dict[str, Any]], object]:
            for watch in watches:
                watch.begin()

            def take(data: dict[str, Any]) -> None:
                for watch in watches:
                    watch.look(data)

            return take

        began, number, failed = time.monotonic(), 0, True
        error: RayJobsError | None = None
        try:
            number = await self._transport.run(read_list(begin, repeatable=False, skipped=self._skipped))
        except RayJobsError as e:
            error = e
        except Exception as e:  # noqa: BLE001 - a defect: the watchers must not wait for ever
            error = RayJobsError(f"{self._transport.cluster.address}: the list of jobs could not be handled: {e!r}")
        else:
            failed = False
        finally:  # also if it is cancelled, because its watchers have left
            self._pace.listed(began, number, failed=failed)
            self._load.pause(LIST_COST * number, time.monotonic())
        if number > MOST_LISTED:
            self._pace.warn(
                "long",
                "%s has %s jobs on record. Each list of them blocks its head for about %.0f s; delete old records",
                self._transport.cluster.address,
                f"{number:,}",
                LIST_COST * number,
            )
        for watch in watches:
            watch.done(began, error)

    def _skipped(self, problem: str) -> None:
        self._pace.warn(
            "skipped",
            "%s: the end of a job is not told, because its record can't be read: %s",
            self._transport.cluster.address,
            problem,
        )


_polls: WeakKeyDictionary[Poller, EndsPoll] = WeakKeyDictionary()


def ends_of(poller: Poller) -> EndsPoll:
    """Return what watches the ends of jobs on a poller's cluster, with the poller's session."""
    if (poll := _polls.get(poller)) is None:
        poll = _polls[poller] = EndsPoll(poller)
    return poll

"""A job that a poller polls, and the followers that wait for its news."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_rayjobs.jobs import JobDetails, JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_rayjobs.exceptions import RayJobsError


#: Seconds for which it is enough to know that a job's actor is alive, at most; half of them at the least.
ACTOR_TELLS = 60.0

#: A job is requested by itself after this share of its delay at the earliest; the random rest spreads the requests.
JITTER = 0.9


@dataclass(frozen=True)
class Trouble:
    """
    A request that failed, or that found no job.

    :param error: the reason.
    :param since: when the trouble began, in seconds of the monotonic clock.
    """

    error: RayJobsError
    since: float


class Subscription:
    """One follower's interest in one job; made by :meth:`Poller.subscribe`."""

    def __init__(self, delay: Callable[[], float], hurry: Callable[[], None]) -> None:
        self.delay = delay
        #: Has the job requested now.
        self.hurry = hurry
        self._news: JobDetails | Trouble | BaseException | None = None
        self._seen: str | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def news(self, within: float | None = None) -> JobDetails | Trouble | None:
        """
        Wait until the job's status differs from the last news, or a request meets with trouble.

        After trouble, the next request that succeeds is always news.

        :param within: longest time to wait, in seconds; None: no limit.
        :return: None when the time is over.
        """
        if self._news is None and (within is None or within > 0):
            loop = asyncio.get_running_loop()
            waiter = self._waiter = loop.create_future()
            timer = None if within is None else loop.call_later(within, _wake, waiter)
            try:
                await waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        news, self._news = self._news, None
        if isinstance(news, BaseException):
            raise news
        return news

    def knows(self, status: object) -> bool:
        """Return whether the follower knows this status already."""
        return self._seen == status

    def forget(self) -> None:
        """Treat the next status as news, even if it is the same as before."""
        self._seen = None

    def post(self, news: JobDetails | Trouble | BaseException) -> None:
        """Give news to the follower."""
        if isinstance(self._news, BaseException):
            return  # a signal or a defect, which must not be lost
        self._news, self._seen = news, news.status if isinstance(news, JobDetails) else None
        if self._waiter is not None:
            _wake(self._waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class FollowedJob:
    """
    What the poller knows about one job.

    :param submission_id: the job.
    """

    def __init__(self, submission_id: str) -> None:
        self.id = submission_id
        self.followers: list[Subscription] = []
        self.due = -math.inf
        self.delay = math.inf
        self.alone = False  # requested by itself next: after a hint, or an error
        self.hinted = -math.inf
        self.looking = False
        self.failing: float | None = None
        self.unlisted = False  # the last list did not hold it
        self.answered = -math.inf  # when the last request that found it began
        self.runs = False  # it was RUNNING then
        self.actorless = False  # the last list of live actors did not have its actor
        self._actor_tells = ACTOR_TELLS * (1 - random.random() / 2)  # noqa: S311 - spreads the requests

    def tell(self, news: JobDetails | Trouble | BaseException) -> None:
        """Give news to all followers."""
        for follower in self.followers:
            follower.post(news)

    def hint(self, now: float) -> None:
        """Have the job requested now, and by itself; a request that is under way does not count."""
        self.due, self.alone, self.hinted = -math.inf, True, now

    def looked(self, began: float) -> None:
        """Record a request; the next one is due after the shortest delay that a follower asks for."""
        self.unlisted = False
        self.delay = min((follower.delay() for follower in self.followers), default=math.inf)
        if self.hinted <= began:
            spread = JITTER + (1 - JITTER) * random.random()  # noqa: S311 - no secret
            self.due, self.alone = began + self.delay * spread, False

    def is_told_by_actor(self, now: float) -> bool:
        """Return whether it is enough to know that the job's actor is alive."""
        return self.runs and not self.actorless and now - self.answered < self._actor_tells

    def found(self, status: object, details: Callable[[], JobDetails], began: float, *, paces: bool = True) -> None:
        """
        Take the status that a request found, unless a later request has already found one.

        :param began: when the request was sent, in seconds of the monotonic clock.
        :param paces: whether the next request is due one delay after this one; if not, it stays due when it was.
        """
        if began < self.answered:
            return
        self.answered = began
        self.failing = None
        self.runs = status == JobStatus.RUNNING
        for follower in self.followers:
            if not follower.knows(status):
                follower.post(details())
        if paces:
            self.looked(began)
        else:
            self.unlisted = False

"""News of one job: what is news, who hears it, and when the next look is due."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError
from airflow_provider_rayjobs.following.subscription import FollowedJob, Subscription, Trouble
from airflow_provider_rayjobs.jobs import JobDetails, JobStatus

NAMES = [f"j{number}" for number in range(40)]


def test_single_looks_spread_within_the_delay() -> None:
    jobs = [FollowedJob(name) for name in NAMES]
    for job in jobs:
        job.followers.append(Subscription(lambda: 10.0, lambda: None))
        job.looked(100.0)
    assert all(109.0 <= job.due <= 110.0 for job in jobs)
    assert len({job.due for job in jobs}) > 1


RUNNING, STOPPED = (JobDetails("SUBMISSION", JobStatus(status)) for status in ("RUNNING", "STOPPED"))
TROUBLE = Trouble(RayClusterUnreachableError("gone"), 1.0)


class Kill(BaseException):
    """What a signal handler raises."""


def subscription(delay: float = 10.0) -> Subscription:
    return Subscription(lambda: delay, lambda: None)


def news(one: Subscription, within: float | None = 0.0) -> Any:
    return asyncio.run(one.news(within))


def found(job: FollowedJob, details: JobDetails, began: float = 100.0, **fields: Any) -> None:
    job.found(details.status, lambda: details, began, **fields)


def test_without_news_a_wait_ends_in_time() -> None:
    for within in (0.0, -1.0, 0.05):
        assert news(subscription(), within) is None


def test_news_that_came_before_is_there_at_once_and_once() -> None:
    one = subscription()
    one.post(RUNNING)
    assert news(one) is RUNNING
    assert news(one) is None
    assert one.knows("RUNNING")


def test_news_wakes_who_waits() -> None:
    async def main() -> Any:
        one = subscription()
        waiting = asyncio.ensure_future(one.news())
        await asyncio.sleep(0)
        one.post(RUNNING)
        return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(main()) is RUNNING


def test_the_latest_news_replaces_the_one_before() -> None:
    one = subscription()
    for item in (TROUBLE, RUNNING, STOPPED):
        one.post(item)
    assert news(one) is STOPPED


def test_a_signal_is_raised_and_not_replaced() -> None:
    one = subscription()
    one.post(kill := Kill())
    one.post(RUNNING)
    with pytest.raises(Kill) as caught:
        news(one)
    assert caught.value is kill
    assert news(one) is None


def test_a_wait_that_is_cancelled_leaves_the_next_news_to_the_next_wait() -> None:
    async def main() -> Any:
        one = subscription()
        waiting = asyncio.ensure_future(one.news(60))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        one.post(RUNNING)
        return await one.news()

    assert asyncio.run(main()) is RUNNING


def test_a_status_is_news_when_it_changes_or_after_trouble() -> None:
    job = FollowedJob("a")
    job.followers.append(one := subscription())
    heard = []
    for step in (RUNNING, RUNNING, STOPPED, TROUBLE, STOPPED, STOPPED):
        job.tell(step) if isinstance(step, Trouble) else found(job, step)
        heard.append(news(one))
    assert heard == [RUNNING, None, STOPPED, TROUBLE, STOPPED, None]
    one.forget()
    found(job, STOPPED)
    assert news(one) is STOPPED


def test_each_follower_hears_what_it_does_not_know() -> None:
    job = FollowedJob("a")
    job.followers.append(first := subscription())
    found(job, RUNNING)
    job.followers.append(second := subscription())
    made: list[str] = []

    def details() -> JobDetails:
        made.append("")
        return RUNNING

    assert news(first) is RUNNING
    job.found("RUNNING", details, 101.0)
    assert (news(first), news(second)) == (None, RUNNING)
    job.found("RUNNING", details, 102.0)
    assert len(made) == 1  # of a known status no details are made


def test_an_answer_that_was_overtaken_is_not_heard() -> None:
    job = FollowedJob("a")
    job.followers.append(one := subscription())
    found(job, STOPPED, began=100.0)
    found(job, RUNNING, began=99.0)
    assert (news(one), job.answered) == (STOPPED, 100.0)


def test_the_next_look_is_due_after_the_shortest_delay() -> None:
    job = FollowedJob("a")
    job.followers += [subscription(10.0), subscription(4.0)]
    job.looked(100.0)
    assert job.delay == 4.0
    assert 103.6 <= job.due <= 104.0
    job.followers.clear()
    job.looked(200.0)
    assert (job.delay, job.due) == (math.inf, math.inf)


def test_a_list_that_does_not_pace_a_job_leaves_its_next_look_where_it_was() -> None:
    job = FollowedJob("a")
    job.followers.append(subscription())
    found(job, RUNNING)
    due, job.unlisted = job.due, True
    found(job, RUNNING, began=105.0, paces=False)
    assert (job.due, job.unlisted) == (due, False)


def test_a_hint_makes_a_look_due_unless_one_began_after_it() -> None:
    job = FollowedJob("a")
    job.followers.append(subscription())
    job.looked(100.0)
    job.hint(105.0)
    assert (job.due, job.alone) == (-math.inf, True)
    job.looked(104.0)  # this one began before the hint
    assert (job.due, job.alone) == (-math.inf, True)
    job.looked(105.0)
    assert job.due > 105.0
    assert not job.alone

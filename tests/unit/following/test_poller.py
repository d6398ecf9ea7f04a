"""One poller for many followers: what they are told, what the head is asked, and what goes wrong for one or for all."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.client import verbs
from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
from airflow_provider_rayjobs.exceptions import RayJobNotFoundError
from airflow_provider_rayjobs.following import head_load, log_stream, poller, stream_slots
from airflow_provider_rayjobs.following.events import Outcome
from airflow_provider_rayjobs.following.poller import Poller
from airflow_provider_rayjobs.following.subscription import Subscription, Trouble
from airflow_provider_rayjobs.following.watcher import JobWatcher, Watch
from airflow_provider_rayjobs.jobs import JobDetails
from tests.support import answers
from tests.support.clients import cluster_at, quick_sleep, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.support.answers import Answer
    from tests.support.scripted_server import ScriptedRay

LOG = logging.getLogger("tests.poller")
NAMES = [f"j{number}" for number in range(40)]
ACTORS = r"/api/v0/actors.*"


def polled(server: ScriptedRay, work: Callable[[Poller], Awaitable[None]], **cluster: Any) -> None:
    """Give a poller to a coroutine; nothing is left of it afterwards."""

    async def main() -> None:
        transport = AiohttpTransport(cluster_at(server, **cluster), sleep=quick_sleep)
        async with asyncio.timeout(30), Poller(transport) as one:
            await work(one)
        await asyncio.sleep(0.02)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def subscribe(stack: AsyncExitStack, one: Poller, *names: str, delay: float = 0.1) -> list[Subscription]:
    return [stack.enter_context(one.subscribe(name, lambda: delay)) for name in names]


async def status_of(job: Subscription) -> str:
    """Wait for news that are a status."""
    while True:
        news = await job.news()
        if isinstance(news, JobDetails):
            return str(news.status)


def lists(server: ScriptedRay) -> int:
    return len(server.received_on("GET", "/api/jobs/"))


def looks(server: ScriptedRay, name: str = r"\w+") -> int:
    return len(server.received_on("GET", f"/api/jobs/{name}"))


def record(server: ScriptedRay, number: int) -> None:
    """Have the head tell how many actors it remembers."""
    server.script("GET", ACTORS, answers.as_json({"data": {"result": {"total": number}}}), forever=True)


def all_run(server: ScriptedRay, actors: int | None = len(NAMES)) -> None:
    """Have all of ``NAMES`` run, on a head that reports this number of actors; None: it reports none."""
    for name in NAMES:
        server.add_job(name)
    if actors is not None:
        record(server, actors)


async def trouble_of(job: Subscription, patience: float = 5) -> Trouble:
    """Wait for news, which are trouble."""
    news = await job.news(patience)
    assert isinstance(news, Trouble)
    return news


async def is_missing(job: Subscription, patience: float = 5) -> bool:
    """Wait for the news that the head does not know a job."""
    return isinstance((await trouble_of(job, patience)).error, RayJobNotFoundError)


@asynccontextmanager
async def running(one: Poller, *names: str, delay: float = 0.1) -> AsyncIterator[list[Subscription]]:
    """Follow jobs, all of which are found running."""
    async with AsyncExitStack() as stack:
        jobs = subscribe(stack, one, *names, delay=delay)
        assert {await status_of(job) for job in jobs} == {"RUNNING"}
        yield jobs


# What followers are told


def test_followers_hear_of_changes_only(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "PENDING")

    async def work(one: Poller) -> None:
        async with AsyncExitStack() as stack:
            first, second = subscribe(stack, one, "a", "a")
            assert [await status_of(first), await status_of(second)] == ["PENDING", "PENDING"]
            assert await first.news(0.5) is None
            assert looks(scripted_ray) > 2
            scripted_ray.set_status("a", "RUNNING")
            assert [await status_of(first), await status_of(second)] == ["RUNNING", "RUNNING"]
        seen = looks(scripted_ray)
        await asyncio.sleep(0.4)
        assert looks(scripted_ray) <= seen + 1, "nobody follows it any more"

    polled(scripted_ray, work)


def test_a_hint_has_the_job_looked_at_now(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a")

    async def work(one: Poller) -> None:
        async with running(one, "a", delay=60.0) as (job,):
            scripted_ray.set_status("a", "FAILED")
            job.hurry()
            news = await job.news(5)
            assert isinstance(news, JobDetails)
            assert (news.status, news.driver_exit_code) == ("FAILED", 1)

    polled(scripted_ray, work)


def test_a_hint_during_a_look_has_the_job_looked_at_again(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a")
    scripted_ray.script("GET", "/api/jobs/a", answers.default(delay=0.5))

    async def work(one: Poller) -> None:
        async with AsyncExitStack() as stack:
            (job,) = subscribe(stack, one, "a", delay=60.0)
            await until(lambda: looks(scripted_ray))
            await asyncio.sleep(0.1)
            job.hurry()
            assert await status_of(job) == "RUNNING"
            await until(lambda: looks(scripted_ray) == 2)

    polled(scripted_ray, work)


def test_an_unknown_job_is_told_at_each_look(scripted_ray: ScriptedRay) -> None:
    async def work(one: Poller) -> None:
        async with AsyncExitStack() as stack:
            (job,) = subscribe(stack, one, "a")
            for _ in range(2):
                assert await is_missing(job)
            scripted_ray.add_job("a")
            assert await status_of(job) == "RUNNING"

    polled(scripted_ray, work)


# How the head is asked


def test_many_of_the_jobs_on_record_are_asked_for_with_the_list(scripted_ray: ScriptedRay) -> None:
    all_run(scripted_ray)

    async def work(one: Poller) -> None:
        async with running(one, *NAMES, delay=0.3) as jobs:
            began, singles, before = time.monotonic(), looks(scripted_ray), lists(scripted_ray)
            await until(lambda: lists(scripted_ray) >= before + 4)
            assert looks(scripted_ray) == singles
            assert time.monotonic() - began > 0.8, "they keep their delay"
            scripted_ray.set_status("j7", "SUCCEEDED")
            assert await status_of(jobs[7]) == "SUCCEEDED"
            assert looks(scripted_ray) == singles

    polled(scripted_ray, work)
    assert len(scripted_ray.received_on("GET", ACTORS)) == 1


def test_a_list_that_takes_long_comes_before_the_jobs_are_due(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_load, "READ_COST", 2.0 / len(NAMES))  # 2 s in all
    all_run(scripted_ray)

    async def work(one: Poller) -> None:
        async with running(one, *NAMES, delay=4.0):
            began = time.monotonic()
            await until(lambda: lists(scripted_ray) >= 2)
            assert time.monotonic() - began < 0.9 * 4.0
            assert looks(scripted_ray) == 0

    polled(scripted_ray, work)


def test_a_job_that_is_asked_for_more_often_keeps_its_pace_beside_the_list(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_load, "READ_COST", 0.5 / len(NAMES))
    all_run(scripted_ray)

    async def work(one: Poller) -> None:
        # The list comes each half a second, and what it tells may be as old as that when it is read.
        async with running(one, *NAMES[1:], delay=1.0), running(one, "j0", delay=0.7):
            before, listed = looks(scripted_ray, "j0"), lists(scripted_ray)
            await until(lambda: looks(scripted_ray, "j0") >= before + 2)
            assert lists(scripted_ray) > listed
            assert looks(scripted_ray) == looks(scripted_ray, "j0")

    polled(scripted_ray, work)


def test_the_last_of_many_are_looked_at_when_a_list_told_of_the_others(scripted_ray: ScriptedRay) -> None:
    all_run(scripted_ray)

    async def work(one: Poller) -> None:
        async def follow(name: str) -> None:
            with one.subscribe(name, lambda: 0.3) as job:
                while await status_of(job) != "SUCCEEDED":
                    pass

        following = [asyncio.create_task(follow(name)) for name in NAMES]
        await until(lambda: lists(scripted_ray))
        for few, some in ((5, following[5:]), (0, following[:5])):
            for name in NAMES[few:]:
                scripted_ray.set_status(name, "SUCCEEDED")
            await asyncio.gather(*some)

    polled(scripted_ray, work)


@pytest.mark.parametrize("actors", [100_000, None])
def test_beside_many_old_jobs_each_is_asked_for_alone(scripted_ray: ScriptedRay, actors: int | None) -> None:
    all_run(scripted_ray, actors)

    async def work(one: Poller) -> None:
        async with running(one, *NAMES):
            await until(lambda: looks(scripted_ray) > 3 * len(NAMES))

    polled(scripted_ray, work)
    assert lists(scripted_ray) == 0


def live(server: ScriptedRay, *names: str) -> None:
    """Have the head tell that the actors of these jobs are alive, and that it remembers those of many others."""
    found = [{"actor_id": name, "name": f"_ray_internal_job_actor_{name}"} for name in names]
    server.clear()
    server.script(
        "GET", ACTORS, answers.as_json({"data": {"result": {"total": 100_000, "result": found}}}), forever=True
    )


def test_beside_many_old_jobs_the_live_actors_tell_who_runs(scripted_ray: ScriptedRay) -> None:
    all_run(scripted_ray, None)
    scripted_ray.add_job("waits", "PENDING")
    live(scripted_ray, *NAMES)

    async def work(one: Poller) -> None:
        async with running(one, *NAMES) as jobs, AsyncExitStack() as stack:
            (waits,) = subscribe(stack, one, "waits")
            assert await status_of(waits) == "PENDING"
            await until(lambda: one.load.alive == len(NAMES))
            seen, listed = looks(scripted_ray, "j.+"), len(scripted_ray.received_on("GET", ACTORS))
            await until(lambda: len(scripted_ray.received_on("GET", ACTORS)) > listed + 5)
            assert looks(scripted_ray, "j.+") < seen + len(NAMES)
            scripted_ray.set_status("waits", "RUNNING")
            assert await status_of(waits) == "RUNNING"
            scripted_ray.set_status("j3", "SUCCEEDED")
            live(scripted_ray, *NAMES[:3], *NAMES[4:])
            assert await status_of(jobs[3]) == "SUCCEEDED"

    polled(scripted_ray, work)
    assert lists(scripted_ray) == 0


def test_a_running_job_without_an_actor_is_asked_for_alone(scripted_ray: ScriptedRay) -> None:
    all_run(scripted_ray, None)
    live(scripted_ray, *NAMES[1:])

    async def work(one: Poller) -> None:
        async with running(one, *NAMES) as jobs:
            await until(lambda: one.load.alive == len(NAMES) - 1)
            seen = looks(scripted_ray, "j0")
            await until(lambda: looks(scripted_ray, "j0") > seen + 3)
            scripted_ray.set_status("j0", "SUCCEEDED")
            assert await status_of(jobs[0]) == "SUCCEEDED"

    polled(scripted_ray, work)


def test_a_list_of_actors_that_does_not_come_holds_up_nothing_and_is_tried_again_later(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "ACTORS_PATIENCE", 0.2)
    monkeypatch.setattr(poller, "LIST_PAUSE", 1.0)
    all_run(scripted_ray, None)
    total = answers.as_json({"data": {"result": {"total": 100_000, "result": []}}})
    scripted_ray.script("GET", ACTORS, total, *[answers.default(delay=60.0)] * 2)

    async def work(one: Poller) -> None:
        async with running(one, *NAMES) as jobs:
            await until(lambda: len(scripted_ray.received_on("GET", ACTORS)) == 2)
            scripted_ray.set_status("j0", "SUCCEEDED")
            async with asyncio.timeout(5):
                assert await status_of(jobs[0]) == "SUCCEEDED"
            await until(lambda: len(scripted_ray.received_on("GET", ACTORS)) > 2)

    polled(scripted_ray, work)


@pytest.mark.parametrize("answer", [answers.text(404, "no such route"), answers.as_json({"data": None})])
def test_a_head_that_lists_no_actors_is_asked_for_each_job(scripted_ray: ScriptedRay, answer: Answer) -> None:
    all_run(scripted_ray, None)
    scripted_ray.script("GET", ACTORS, answer, forever=True)

    async def work(one: Poller) -> None:
        async with running(one, *NAMES) as jobs:
            seen = looks(scripted_ray)
            await until(lambda: looks(scripted_ray) > seen + 2 * len(NAMES))
            scripted_ray.set_status("j0", "SUCCEEDED")
            assert await status_of(jobs[0]) == "SUCCEEDED"

    polled(scripted_ray, work)


def test_no_more_requests_are_under_way_than_allowed(scripted_ray: ScriptedRay) -> None:
    all_run(scripted_ray, 100_000)
    scripted_ray.script("GET", r"/api/jobs/j\d+", answers.default(delay=0.2), forever=True)

    async def work(one: Poller) -> None:
        async with running(one, *NAMES):
            pass

    polled(scripted_ray, work)
    assert len({one.peer for one in scripted_ray.received}) <= poller.LOOKS_AT_ONCE


def test_a_job_that_the_list_does_not_hold_is_asked_for_alone(scripted_ray: ScriptedRay) -> None:
    all_run(scripted_ray)

    async def work(one: Poller) -> None:
        async with running(one, *NAMES, delay=0.2) as jobs:
            await until(lambda: lists(scripted_ray))
            del scripted_ray.jobs["j3"]
            assert await is_missing(jobs[3])

    polled(scripted_ray, work)


def test_a_head_that_forgot_all_jobs_is_told_to_all_who_follow_one(scripted_ray: ScriptedRay) -> None:
    all_run(scripted_ray)

    async def work(one: Poller) -> None:
        async with running(one, *NAMES, delay=0.2) as jobs:
            await until(lambda: lists(scripted_ray))
            scripted_ray.jobs.clear()
            for job in jobs:
                assert await is_missing(job, 10)

    polled(scripted_ray, work)


@pytest.mark.parametrize(
    "answer",
    [answers.html(), answers.internal_error(), answers.as_json({}), answers.as_json([{"submission_id": "j1"}])],
    ids=["page", "500", "object", "no status"],
)
def test_where_there_is_no_list_each_is_asked_for_alone(answer: answers.Answer, scripted_ray: ScriptedRay) -> None:
    all_run(scripted_ray)
    scripted_ray.script("GET", "/api/jobs/", answer, forever=True)

    async def work(one: Poller) -> None:
        async with running(one, *NAMES) as jobs:
            scripted_ray.set_status("j7", "SUCCEEDED")
            assert await status_of(jobs[7]) == "SUCCEEDED"

    polled(scripted_ray, work)
    assert lists(scripted_ray) == 1


# What goes wrong for one or for all


def test_one_job_that_cannot_be_read_is_its_own_trouble(scripted_ray: ScriptedRay) -> None:
    for name in NAMES[:5]:
        scripted_ray.add_job(name)
    scripted_ray.script("GET", "/api/jobs/j3", answers.internal_error(), forever=True)

    async def work(one: Poller) -> None:
        async with AsyncExitStack() as stack:
            jobs = subscribe(stack, one, *NAMES[:5])
            for job in jobs[:3] + jobs[4:]:
                assert await status_of(job) == "RUNNING"
            assert (await trouble_of(jobs[3])).since == (await trouble_of(jobs[3])).since
            assert [await job.news(0) for job in jobs[:3] + jobs[4:]] == [None] * 4
            scripted_ray.clear()
            assert await status_of(jobs[3]) == "RUNNING"

    polled(scripted_ray, work)


def test_lost_contact_is_one_outage_for_all_and_asks_little(scripted_ray: ScriptedRay) -> None:
    all_run(scripted_ray, 100_000)

    async def work(one: Poller) -> None:
        async with running(one, *NAMES) as jobs:
            scripted_ray.script("GET", ".*", answers.internal_error(), forever=True)
            told = {(await trouble_of(job, 10)).since for job in jobs}
            assert len(told) == 1
            before = looks(scripted_ray)
            await asyncio.sleep(1.0)
            assert 3 < looks(scripted_ray) - before < 20, "one job speaks for all"
            with one.subscribe("j1", lambda: 0.1) as late:
                assert {(await trouble_of(late, 0)).since} == told
                scripted_ray.clear()
                assert {await status_of(job) for job in [*jobs, late]} == {"RUNNING"}

    polled(scripted_ray, work)


def test_an_answer_that_comes_when_all_have_left_is_no_outage_for_who_comes_next(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("j0")
    scripted_ray.script("GET", ".*", answers.internal_error().but(delay=0.4), forever=True)

    async def work(one: Poller) -> None:
        with one.subscribe("j0", lambda: 0.1) as job:
            await trouble_of(job)
            asked = looks(scripted_ray)
            await until(lambda: looks(scripted_ray) > asked)  # and its answer is on the way
        await asyncio.sleep(0.8)
        scripted_ray.clear()
        with one.subscribe("j0", lambda: 0.1) as job:
            assert not isinstance(await job.news(5), Trouble)

    polled(scripted_ray, work)


def test_each_task_log_tells_of_an_outage_and_each_gives_up(
    scripted_ray: ScriptedRay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOG.name)
    scripted_ray.add_job("j0")
    scripted_ray.add_job("j1")

    async def work(one: Poller) -> None:
        now = time.time()
        watchers = [JobWatcher(one, Watch(name, now, stream_logs=False), LOG) for name in ("j0", "j1")]
        running = [asyncio.create_task(watcher.run()) for watcher in watchers]
        await until(lambda: looks(scripted_ray, "j0") and looks(scripted_ray, "j1"))
        scripted_ray.stop()
        events = await asyncio.gather(*running)
        assert [event.outcome for event in events] == [Outcome.UNREACHABLE] * 2

    polled(scripted_ray, work, unreachable_timeout=1.0)
    said = [record.getMessage() for record in caplog.records if record.name == LOG.name]
    assert len([line for line in said if line.startswith("No contact with the cluster; retrying for up to 1 s")]) == 2


def test_a_crash_reaches_everybody_and_is_ridden_out(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(poller, "CRASH_PAUSE", 0.1)
    scripted_ray.add_job("j0")
    scripted_ray.add_job("j1")

    async def work(one: Poller) -> None:
        async with running(one, "j0", "j1") as jobs:
            with monkeypatch.context() as broken:
                broken.setattr(one.load, "plan", lambda *_: 1 / 0)
                for job in jobs:
                    assert "crashed: ZeroDivisionError" in str((await trouble_of(job)).error)
            assert {await status_of(job) for job in jobs} == {"RUNNING"}

    polled(scripted_ray, work)
    assert "crashed; it continues" in caplog.text


def test_a_poller_that_was_cancelled_goes_on(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("j0")

    async def work(one: Poller) -> None:
        async with running(one, "j0") as (job,):
            (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "ray-jobs-poller"]
            task.cancel()
            await trouble_of(job)
            assert await status_of(job) == "RUNNING"

    polled(scripted_ray, work)


class Alarm(BaseException):
    """What a signal handler raises, wherever the signal hits."""


@pytest.mark.parametrize("where", ["round", "look"])
def test_a_signal_that_hits_the_poller_reaches_its_followers(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    scripted_ray.add_job("j0")

    def alarm(*_: object) -> Any:
        raise Alarm

    async def work(one: Poller) -> None:
        async with running(one, "j0") as (job,):
            if where == "round":
                monkeypatch.setattr(one.load, "plan", alarm)
            else:
                monkeypatch.setattr(verbs, "get_job_info", alarm)
            with pytest.raises(Alarm):
                await job.news(5)
            monkeypatch.undo()

    polled(scripted_ray, work)


# Logs


def test_a_log_beyond_the_bound_comes_when_there_is_room_or_the_job_is_over(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOG.name)
    monkeypatch.setattr(stream_slots, "STREAMS_AT_ONCE", 1)
    monkeypatch.setattr(log_stream, "NATURAL_GAP", 0.0)
    for name in ("j0", "j1", "j2"):
        scripted_ray.add_job(name)
        scripted_ray.append_log(name, [f"line of {name}\n"])

    def tails() -> list[str]:
        return [one.path.split("/")[3] for one in scripted_ray.received_on("GET", ".*/tail")]

    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == LOG.name]

    async def work(one: Poller) -> None:
        now = time.time()
        tasks = [asyncio.create_task(JobWatcher(one, Watch("j0", now), LOG).run())]
        await until(tails)
        tasks += [asyncio.create_task(JobWatcher(one, Watch(name, now), LOG).run()) for name in ("j1", "j2")]
        await until(lambda: len([line for line in said() if "of this cluster are streamed already" in line]) == 2)
        await asyncio.sleep(0.3)
        assert tails() == ["j0"]
        scripted_ray.set_status("j2", "SUCCEEDED")
        assert (await tasks[2]).outcome is Outcome.SUCCEEDED
        assert (set(tails()), said().count("line of j2"), said().count("line of j1")) == ({"j0", "j2"}, 1, 0)
        scripted_ray.set_status("j0", "SUCCEEDED")
        await tasks[0]
        await until(lambda: "line of j1" in said())
        scripted_ray.set_status("j1", "SUCCEEDED")
        await tasks[1]
        assert sorted(line for line in said() if line.startswith("line of")) == [f"line of j{n}" for n in range(3)]

    polled(scripted_ray, work)

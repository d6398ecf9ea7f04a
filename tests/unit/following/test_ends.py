"""One list for all watchers of a cluster, at a pace that the head does not feel."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
from airflow_provider_rayjobs.client.ended import EndedJob, ended_job
from airflow_provider_rayjobs.exceptions import RayAPIError, RayJobsError
from airflow_provider_rayjobs.following import ends
from airflow_provider_rayjobs.following.ends import ends_of
from airflow_provider_rayjobs.following.poller import Poller
from tests.support import answers
from tests.support.clients import cluster_at, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.scripted_server import ScriptedRay


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "SHARE", 1.0)
    monkeypatch.setattr(ends, "FIRST_BACKOFF", 0.01)


Found = tuple[EndedJob, "Callable[[], dict[str, Any]]"]


def all_ended(data: dict[str, Any]) -> Found | None:
    job = ended_job(data)
    return None if job is None else (job, lambda: data)


def only(name: str) -> Callable[[dict[str, Any]], Found | None]:
    return lambda data: all_ended(data) if data["submission_id"] == name else None


def names(found: list[tuple[EndedJob, dict[str, Any]]]) -> list[str]:
    return [job.submission_id for job, _ in found]


def lists(server: ScriptedRay) -> int:
    return len(server.received_on("GET", "/api/jobs/"))


def test_all_watchers_share_a_list(scripted_ray: ScriptedRay) -> None:
    for name in "abc":
        scripted_ray.add_job(name, "SUCCEEDED", end_time=1000 + ord(name))
    scripted_ray.add_job("d", "RUNNING")

    async def main() -> None:
        async with Poller(AiohttpTransport(cluster_at(scripted_ray))) as poller:
            poll = ends_of(poller)
            assert ends_of(poller) is poll
            with poll.watch(all_ended, 0.1) as first, poll.watch(only("b"), 0.1) as second:
                found = await asyncio.gather(first.jobs(), second.jobs())
                assert list(map(names, found)) == [["a", "b", "c"], ["b"]]
                assert lists(scripted_ray) == 1
                scripted_ray.set_status("d", "FAILED", end_time=1)
                assert names(await first.jobs()) == ["d", "a", "b", "c"]
            await until(lambda: not [task for task in asyncio.all_tasks() if task.get_name() == "ray-jobs-ends"])

    asyncio.run(main())


def test_nothing_is_listed_while_nobody_waits(scripted_ray: ScriptedRay) -> None:
    async def main() -> None:
        async with Poller(AiohttpTransport(cluster_at(scripted_ray))) as poller:
            with ends_of(poller).watch(all_ended, 0.01) as watch:
                await watch.jobs()
                await asyncio.sleep(0.2)
                assert lists(scripted_ray) == 1
                await watch.jobs()
                assert lists(scripted_ray) == 2

    asyncio.run(main())


def test_a_watcher_that_comes_later_does_not_wait_for_the_others(scripted_ray: ScriptedRay) -> None:
    async def main() -> None:
        async with Poller(AiohttpTransport(cluster_at(scripted_ray))) as poller:
            with ends_of(poller).watch(all_ended, 60.0) as first, ends_of(poller).watch(all_ended, 60.0) as second:
                await first.jobs()
                slow = asyncio.create_task(first.jobs())
                async with asyncio.timeout(5):
                    await second.jobs()
                assert not slow.done()
                slow.cancel()

    asyncio.run(main())


def test_lists_take_a_small_share_of_the_heads_time(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "SHARE", 0.05)
    monkeypatch.setattr(ends, "LIST_COST", 0.02)
    scripted_ray.add_job("a", "SUCCEEDED")

    async def main() -> float:
        async with Poller(AiohttpTransport(cluster_at(scripted_ray))) as poller:
            with ends_of(poller).watch(all_ended, 0.01) as watch:
                await watch.jobs()
                began = time.monotonic()
                await watch.jobs()
                return time.monotonic() - began

    assert asyncio.run(main()) > 0.3  # 0.4 from the beginning of one list to that of the next


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
def test_the_pause_outlives_the_poller(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """With an error, or when all watchers leave, the poller ends; the head has worked nevertheless."""
    monkeypatch.setattr(ends, "SHARE", 0.2)
    answer = answers.text(500, "broken") if how == "fails" else answers.default()
    scripted_ray.script("GET", "/api/jobs/", answer.but(delay=0.15))

    async def one_list(within: float) -> None:
        async with Poller(AiohttpTransport(cluster_at(scripted_ray))) as poller:
            with ends_of(poller).watch(all_ended, 0.01) as watch, suppress(RayAPIError, TimeoutError):
                async with asyncio.timeout(within):
                    await watch.jobs()

    async def main() -> float:
        began = time.monotonic()
        await one_list(10.0 if how == "fails" else 0.12)
        await one_list(10.0)
        return time.monotonic() - began

    assert asyncio.run(main()) > (0.7 if how == "fails" else 0.5)


def test_lists_that_keep_failing_come_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "FIRST_BACKOFF", 1.0)
    now = 100.0
    monkeypatch.setattr(ends.time, "monotonic", lambda: now)
    pace, waits = ends._Pace(), []
    for _ in range(10):
        pace.listed(now, 0, failed=True)
        waits.append(pace.free_at - now)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 120, 120, 120]
    pace.listed(now, 0, failed=False)
    assert pace.free_at == now


def test_a_long_record_is_told_once_an_hour(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ends, "MOST_LISTED", 1)
    for name in "ab":
        scripted_ray.add_job(name, "SUCCEEDED")

    async def main() -> None:
        async with Poller(AiohttpTransport(cluster_at(scripted_ray))) as poller:
            with ends_of(poller).watch(all_ended, 0.01) as watch:
                for _ in range(3):
                    await watch.jobs()

    asyncio.run(main())
    assert caplog.text.count("has 2 jobs on record") == 1


def test_the_oldest_come_first_if_there_are_many(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "MOST_AT_ONCE", 2)
    for end in (7, 3, 9, 1, 5, 8):
        scripted_ray.add_job(f"e{end}", "SUCCEEDED", end_time=end)
    known: set[str] = set()

    async def main() -> list[list[str]]:
        async with Poller(AiohttpTransport(cluster_at(scripted_ray))) as poller:
            new = lambda data: None if data["submission_id"] in known else all_ended(data)  # noqa: E731
            with ends_of(poller).watch(new, 60.0) as watch:
                rounds = []
                for _ in range(3):  # each at once, in spite of the interval
                    rounds.append(names(await watch.jobs()))
                    known.update(rounds[-1])
                return rounds

    assert asyncio.run(asyncio.wait_for(main(), 10)) == [["e1", "e3"], ["e5", "e7"], ["e8", "e9"]]


def test_few_facts_are_made_of_jobs_that_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "MOST_AT_ONCE", 2)
    made: list[int] = []
    watch = ends.EndsWatch(
        lambda data: (EndedJob(data["end"], "a", "FAILED"), lambda: made.append(data["end"]) or {}),
        1.0,
        asyncio.Event(),
    )
    for end in (1, 2, 3, 4, 9, 8, 7, 2):
        watch.look({"end": end})
    assert made == [1, 2, 3, 4, 2]


def test_an_error_reaches_all_watchers(scripted_ray: ScriptedRay) -> None:
    scripted_ray.script("GET", "/api/jobs/", answers.text(500, "broken"))

    async def main() -> None:
        async with Poller(AiohttpTransport(cluster_at(scripted_ray))) as poller:
            poll = ends_of(poller)
            with poll.watch(all_ended, 0.1) as first, poll.watch(all_ended, 0.1) as second:
                found = await asyncio.gather(first.jobs(), second.jobs(), return_exceptions=True)
                assert [type(one) for one in found] == [RayAPIError] * 2
                assert await first.jobs() == []

    asyncio.run(main())


def test_a_malformed_entry_does_not_spoil_the_list(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "SUCCEEDED")
    scripted_ray.add_job("b", "SUCCEEDED")

    def take(data: dict[str, Any]) -> Found | None:
        if data["submission_id"] == "a":
            raise ValueError("malformed")
        return all_ended(data)

    async def main() -> list[str]:
        async with Poller(AiohttpTransport(cluster_at(scripted_ray))) as poller:
            with ends_of(poller).watch(take, 0.1) as watch:
                return names(await watch.jobs())

    assert asyncio.run(main()) == ["b"]


def test_a_defect_is_an_error_for_the_watchers(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "SUCCEEDED")

    def take(_: dict[str, Any]) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        async with Poller(AiohttpTransport(cluster_at(scripted_ray))) as poller:
            with ends_of(poller).watch(take, 0.1) as watch:
                await watch.jobs()

    with pytest.raises(RayJobsError, match="could not be handled"):
        asyncio.run(main())

"""What triggers of one process share, and what they must not."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs import triggers
from airflow_provider_rayjobs.client import verbs
from airflow_provider_rayjobs.compat import connections
from airflow_provider_rayjobs.exceptions import RayConnectionConfigError
from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.tasks import shared_pollers
from airflow_provider_rayjobs.tasks.shared_pollers import cluster_of, poller_of
from airflow_provider_rayjobs.triggers import RayConditionTrigger, RayJobTrigger
from tests.support import answers
from tests.support.clients import cluster_at, until

if TYPE_CHECKING:
    from airflow_provider_rayjobs.following.poller import Poller
    from tests.support.scripted_server import ScriptedRay
    from tests.support.stats import KeptStats


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_pollers, "LINGER", 0.2)
    monkeypatch.setattr(shared_pollers, "REPORT_EVERY", 0.1)


def connection(monkeypatch: pytest.MonkeyPatch, host: str, **fields: Any) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SHARED", json.dumps({"conn_type": "ray_jobs", "host": host, **fields}))


def peers(server: ScriptedRay) -> set[tuple[str, int]]:
    return {one.peer for one in server.received}


def test_a_cluster_has_one_poller_until_some_time_after_the_last_user(scripted_ray: ScriptedRay) -> None:
    async def main() -> None:
        cluster = cluster_at(scripted_ray)
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(poller_of(cluster))
            second = await stack.enter_async_context(poller_of(cluster_at(scripted_ray)))
            assert first is second
            await first.transport.run(verbs.get_version())
        async with poller_of(cluster) as third:
            assert third is first
            await asyncio.sleep(0.5)
            await third.transport.run(verbs.get_version())
        await until(lambda: len(asyncio.all_tasks()) == 1)
        assert third.transport._session is None
        async with poller_of(cluster) as fourth:
            assert fourth is not first

    asyncio.run(main())
    assert len(peers(scripted_ray)) == 1


def test_a_changed_connection_has_a_poller_of_its_own(scripted_ray: ScriptedRay) -> None:
    async def main() -> None:
        async with (
            poller_of(cluster_at(scripted_ray, headers={"Authorization": "Bearer old"})) as old,
            poller_of(cluster_at(scripted_ray, headers={"Authorization": "Bearer new"})) as new,
        ):
            assert old is not new
            for one in (old, new, old):
                await one.transport.run(verbs.get_version())

    asyncio.run(main())
    assert [one.headers["authorization"] for one in scripted_ray.received] == ["Bearer old", "Bearer new", "Bearer old"]


def test_each_event_loop_has_its_own(scripted_ray: ScriptedRay) -> None:
    async def main() -> Poller:
        async with poller_of(cluster_at(scripted_ray)) as one:
            await one.transport.run(verbs.get_version())
            return one

    assert asyncio.run(main()) is not asyncio.run(main())
    assert len(peers(scripted_ray)) == 2


def test_a_connection_is_read_once_for_triggers_that_start_together(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    async def slow_read(hook: Any, conn_id: str) -> Any:
        read.append(conn_id)
        await asyncio.sleep(0.05)
        return await connections.read_cluster(hook, conn_id)

    monkeypatch.setattr(shared_pollers, "read_cluster", slow_read)
    monkeypatch.setattr(shared_pollers, "CONNECTION_CACHE_TIME", 0.5)
    connection(monkeypatch, "http://ray:1", password="old")

    async def main() -> None:
        cancelled = asyncio.create_task(cluster_of("shared"))
        await asyncio.sleep(0.01)
        cancelled.cancel()
        clusters = await asyncio.gather(*[cluster_of("shared") for _ in range(100)])
        assert len(read) == 1
        assert {one.address for one in clusters} == {"http://ray:1"}
        connection(monkeypatch, "http://ray:1", password="new")
        await asyncio.sleep(0.6)
        assert (await cluster_of("shared")).headers["Authorization"] == "Bearer new"

    asyncio.run(main())


def test_a_connection_that_could_not_be_read_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        connection(monkeypatch, "http://a b")
        with pytest.raises(RayConnectionConfigError):
            await cluster_of("shared")
        connection(monkeypatch, "http://ray:1")
        assert (await cluster_of("shared")).address == "http://ray:1"

    asyncio.run(main())


def trigger_of(name: str) -> RayJobTrigger:
    trigger = RayJobTrigger(
        ray_conn_id="shared", submission_id=name, submitted_at=time.time(), stream_logs=False, poll_interval=0.1
    )
    trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1)
    return trigger


async def outcome(trigger: RayJobTrigger | RayConditionTrigger) -> Outcome:
    async for event in trigger.run():
        return JobEvent.from_json(event.payload).outcome
    raise AssertionError("no event")


def test_a_kill_of_one_trigger_stops_its_job_and_disturbs_no_other(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def killed(*_: object) -> bool:
        return True

    monkeypatch.setattr(triggers, "was_killed", killed)
    connection(monkeypatch, scripted_ray.url)
    for name in ("j0", "j1", "j2"):
        scripted_ray.add_job(name)

    async def main() -> None:
        tasks = [asyncio.create_task(outcome(trigger_of(name))) for name in ("j0", "j1", "j2")]
        await until(lambda: len(scripted_ray.received_on("GET", r"/api/jobs/j\d")) > 5)
        tasks[1].cancel()
        await asyncio.wait({tasks[1]}, timeout=10)
        assert (tasks[1].cancelled(), scripted_ray.jobs["j1"].status) == (True, "STOPPED")
        for name in ("j0", "j2"):
            scripted_ray.set_status(name, "SUCCEEDED")
        assert await asyncio.gather(tasks[0], tasks[2]) == [Outcome.SUCCEEDED] * 2

    asyncio.run(main())
    assert len(scripted_ray.received_on("POST", ".*/stop")) == 1
    assert len(peers(scripted_ray)) < 4, "they share a session"


def test_a_sensor_and_an_operator_that_follow_one_job_share_its_looks(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection(monkeypatch, scripted_ray.url)
    scripted_ray.add_job("j0")
    sensor = RayConditionTrigger(
        ray_conn_id="shared",
        kind="job",
        condition={"submission_id": "j0", "targets": ["SUCCEEDED"]},
        poke_interval=60.0,
        deadline=time.time() + 60,
    )

    async def main() -> None:
        tasks = [asyncio.create_task(outcome(one)) for one in (sensor, trigger_of("j0"))]
        await until(lambda: scripted_ray.received)
        scripted_ray.set_status("j0", "SUCCEEDED")
        async with asyncio.timeout(10):
            assert await asyncio.gather(*tasks) == [Outcome.SUCCEEDED] * 2

    asyncio.run(main())


def test_a_sensors_lost_contact_ends_by_its_budget_or_by_its_deadline(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(seconds: float) -> Outcome:
        sensor = RayConditionTrigger(
            ray_conn_id="shared",
            kind="job",
            condition={"submission_id": "j0", "targets": ["SUCCEEDED"]},
            poke_interval=0.1,
            deadline=time.time() + seconds,
        )
        return await outcome(sensor)

    scripted_ray.script("GET", ".*", answers.internal_error(), forever=True)
    connection(monkeypatch, scripted_ray.url, extra={"unreachable_timeout": 0.5})
    assert asyncio.run(main(60)) is Outcome.UNREACHABLE
    connection(monkeypatch, scripted_ray.url, extra={"unreachable_timeout": 60})
    assert asyncio.run(main(0.5)) is Outcome.TIMEOUT


def test_what_the_triggers_of_a_connection_do_is_reported_until_they_are_gone(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch, stats: KeptStats
) -> None:
    connection(monkeypatch, scripted_ray.url)
    for name in ("j0", "j1", "j2"):
        scripted_ray.add_job(name, "RUNNING")

    def end() -> None:
        for name in ("j0", "j1", "j2"):
            scripted_ray.set_status(name, "SUCCEEDED")

    async def main() -> None:
        tasks = [asyncio.create_task(outcome(trigger_of(name))) for name in ("j0", "j1", "j2")]
        await until(lambda: 3 in stats.of("followed"))
        end()
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks)
        await until(lambda: len(asyncio.all_tasks()) == 1)

    asyncio.run(main())
    assert stats.of("followed")[-1] == 0
    assert {tags["conn_id"] for _, _, _, tags in stats.sent} == {"shared"}
    assert sum(stats.of("head_requests")) == len(scripted_ray.received)


def test_a_stats_that_blocks_does_not_block_the_event_loop(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = threading.Event()

    def tell_followed(_: object) -> None:
        blocked.set()
        time.sleep(1.0)

    monkeypatch.setattr(shared_pollers.metrics, "tell_followed", tell_followed)

    async def main() -> float:
        async with poller_of(cluster_at(scripted_ray)):
            await until(blocked.is_set)
            longest = 0.0
            for _ in range(20):
                before = time.monotonic()
                await asyncio.sleep(0.01)
                longest = max(longest, time.monotonic() - before)
        return longest

    assert asyncio.run(main()) < 0.5

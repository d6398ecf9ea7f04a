"""Each end of a chosen job is told once: across restarts, losses of contact, and other triggerers."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.client.ended import ENDED
from airflow_provider_rayjobs.compat.connections import derived_deployment
from airflow_provider_rayjobs.following import ends
from airflow_provider_rayjobs.following.told import Told
from airflow_provider_rayjobs.tasks import job_ends, shared_pollers
from airflow_provider_rayjobs.tasks.job_ends import Choice, JobEnds
from tests.support import answers
from tests.support.clients import cluster_at, until

if TYPE_CHECKING:
    from tests.support.scripted_server import ScriptedRay

KEY = "ray_jobs_ends_x"
ALL = Choice({}, "*", ENDED, ())


class Airflow:
    """Airflow, as far as the watcher sees it: the Variable, and the events that it records."""

    def __init__(self) -> None:
        self.variable: str | None = None
        self.recorded: list[str] = []

    def record(self, payload: dict[str, Any]) -> None:
        """Record an event, and note it in the Variable."""
        told = Told.from_text(self.variable or "")
        told.add(payload["mark"], payload["end_time"], time.time() * 1000)
        self.variable = told.to_text()
        self.recorded.append(payload["submission_id"])

    async def read(self, key: str) -> Told | None:
        assert key == KEY
        return None if self.variable is None else Told.from_text(self.variable)

    async def write(self, key: str, told: Told) -> None:
        assert key == KEY
        self.variable = told.to_text()


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Airflow:
    found = Airflow()
    monkeypatch.setattr(job_ends, "read", found.read)
    monkeypatch.setattr(job_ends, "write", found.write)
    monkeypatch.setattr(ends, "SHARE", 1.0)
    monkeypatch.setattr(ends, "FIRST_BACKOFF", 0.01)
    monkeypatch.setattr(shared_pollers, "LINGER", 0.05)
    monkeypatch.setattr(job_ends, "NEW_AFTER", 0.01)
    monkeypatch.setattr(job_ends, "DELETED_AFTER", 0.1)
    monkeypatch.setattr(job_ends, "RECORDED_POLL", 0.01)
    return found


def watcher(conn_id: str, choice: Choice = ALL) -> JobEnds:
    return JobEnds(conn_id, choice, 0.05, KEY, logging.getLogger("watcher"))


async def take(watching: JobEnds, number: int, airflow: Airflow | None) -> list[dict[str, Any]]:
    """Return the next payloads, recorded by Airflow if it is given; then end the watcher."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(10), aclosing(watching.until_lost()) as payloads:
        async for payload in payloads:
            found.append(payload)
            if airflow is not None:
                airflow.record(payload)
            if len(found) == number:
                break
    return found


async def nothing(watching: JobEnds, server: ScriptedRay) -> None:
    """Run a watcher for three lists, in which it tells nothing."""

    async def watch() -> None:
        async with aclosing(watching.until_lost()) as payloads:
            async for payload in payloads:
                pytest.fail(f"told {payload}")

    def lists() -> int:
        return len(server.received_on("GET", "/api/jobs/"))

    before, watched = lists(), asyncio.create_task(watch())
    await until(lambda: lists() > before + 2 or watched.done())
    watched.cancel()
    with suppress(asyncio.CancelledError):
        await watched


def names(found: list[dict[str, Any]]) -> list[str]:
    return [payload["submission_id"] for payload in found]


def test_it_begins_with_the_first_list(conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow) -> None:
    scripted_ray.add_job("before", "SUCCEEDED")
    scripted_ray.add_job("runs", "RUNNING")

    async def main() -> list[str]:
        watching = watcher(conn_id)
        await nothing(watching, scripted_ray)
        scripted_ray.set_status("runs", "FAILED")
        scripted_ray.add_job("short", "SUCCEEDED")
        return names(await take(watching, 2, airflow))

    assert asyncio.run(main()) == ["runs", "short"]


def test_each_end_is_told_once_over_restarts(conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow) -> None:
    async def main() -> None:
        await nothing(watcher(conn_id), scripted_ray)
        for number in range(6):
            scripted_ray.add_job(f"j{number}", "SUCCEEDED")
        await take(watcher(conn_id), 2, airflow)  # ended before the others were told
        await take(watcher(conn_id), 3, None)  # these were sent, but not recorded
        watching = watcher(conn_id)
        await take(watching, 4, airflow)
        await nothing(watching, scripted_ray)
        await nothing(watcher(conn_id), scripted_ray)

    asyncio.run(main())
    assert airflow.recorded == [f"j{number}" for number in range(6)]


def test_ends_during_a_restart_are_told(conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow) -> None:
    async def main() -> list[str]:
        await nothing(watcher(conn_id), scripted_ray)
        scripted_ray.add_job("meanwhile", "SUCCEEDED")
        return names(await take(watcher(conn_id), 1, airflow))

    assert asyncio.run(main()) == ["meanwhile"]


def test_what_another_triggerer_has_told_is_not_told(conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow) -> None:
    async def main() -> list[str]:
        await nothing(watcher(conn_id), scripted_ray)
        first, second = watcher(conn_id), watcher(conn_id)
        await nothing(second, scripted_ray)  # it has read the Variable
        scripted_ray.add_job("a", "SUCCEEDED")
        await take(first, 1, airflow)
        scripted_ray.add_job("b", "SUCCEEDED")
        return names(await take(second, 1, airflow))

    assert asyncio.run(main()) == ["b"]


def test_an_id_that_is_used_again_is_another_end(conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow) -> None:
    async def main() -> None:
        watching = watcher(conn_id)
        await nothing(watching, scripted_ray)
        for _ in range(2):
            scripted_ray.add_job("a", "SUCCEEDED")
            await take(watching, 1, airflow)
            await asyncio.sleep(0.01)

    asyncio.run(main())
    assert airflow.recorded == ["a", "a"]


async def in_vain(watching: JobEnds, number: int) -> None:
    """Run a watcher that can't read its Variable."""
    for _ in range(number):
        with pytest.raises(job_ends.VariableUnreadableError, match=f"the Variable {KEY} can't be read, or was deleted"):
            await take(watching, 1, None)
        await asyncio.sleep(0.06)


def test_an_end_that_ray_writes_again_is_told_once(conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow) -> None:
    async def main() -> None:
        watching = watcher(conn_id)
        await nothing(watching, scripted_ray)
        scripted_ray.add_job("a", "FAILED")
        end = (await take(watching, 1, airflow))[0]["end_time"]
        scripted_ray.jobs["a"].fields["end_time"] = end + 30_000
        await nothing(watching, scripted_ray)
        await nothing(watcher(conn_id), scripted_ray)

    asyncio.run(main())


def test_an_end_far_in_the_future_is_not_told_yet(conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow) -> None:
    async def main() -> list[str]:
        watching = watcher(conn_id)
        await nothing(watching, scripted_ray)
        scripted_ray.add_job("ahead", "FAILED", end_time=int(time.time() * 1000) + 86_400_000)
        scripted_ray.add_job("a", "FAILED")
        return names(await take(watching, 1, airflow))

    assert asyncio.run(main()) == ["a"]


def test_another_cluster_or_deployment_makes_it_begin_anew(
    conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    async def main() -> list[str]:
        await nothing(watcher(conn_id), scripted_ray)
        told = Told.from_text(airflow.variable or "")
        told.of = ("http://another:8265", derived_deployment())
        airflow.variable = told.to_text()
        for index in range(5):
            scripted_ray.add_job(f"old{index}", "SUCCEEDED", end_time=1_500_000_000_000 + index)
        watching = watcher(conn_id)
        await nothing(watching, scripted_ray)
        monkeypatch.setattr(job_ends, "derived_deployment", lambda: "renamed")
        await nothing(watching, scripted_ray)
        scripted_ray.add_job("a", "SUCCEEDED")
        return names(await take(watching, 1, airflow))

    assert asyncio.run(main()) == ["a"]
    assert Told.from_text(airflow.variable or "").of == (scripted_ray.url, "renamed")
    assert caplog.text.count("so the watcher begins anew") == 2


def test_the_first_list_as_a_whole_is_the_beginning(conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow) -> None:
    """Old records that appear later are not told, even if the first list has no chosen job."""
    scripted_ray.add_job("another", "FAILED")
    choice = Choice({}, "*", ("SUCCEEDED",), ())

    async def main() -> None:
        await nothing(watcher(conn_id, choice), scripted_ray)
        scripted_ray.add_job("old", "SUCCEEDED", end_time=1_500_000_000_000)
        await nothing(watcher(conn_id, choice), scripted_ray)

    asyncio.run(main())


def test_the_connection_is_read_again(
    conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_ends, "CONNECTION_READ_AGAIN", 0.0)
    monkeypatch.setattr(shared_pollers, "CONNECTION_CACHE_TIME", 0.0)
    extra = '{"read_timeout": 7}'

    async def main() -> list[dict[str, Any]]:
        watching = watcher(conn_id)
        await nothing(watching, scripted_ray)
        taking = asyncio.create_task(take(watching, 1, airflow))
        await asyncio.sleep(0.3)
        assert not taking.done()
        changed = f'{{"conn_type": "ray_jobs", "host": "{scripted_ray.url}", "extra": {extra}}}'
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", changed)
        return await taking

    assert asyncio.run(main()) == []


def test_without_the_variable_it_begins_anew(conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow) -> None:
    async def main() -> list[str]:
        watching = watcher(conn_id)
        await nothing(watching, scripted_ray)
        airflow.variable = None
        scripted_ray.add_job("a", "SUCCEEDED")
        await in_vain(watching, 2)
        await nothing(watching, scripted_ray)
        scripted_ray.add_job("b", "SUCCEEDED")
        return names(await take(watching, 1, airflow))

    assert asyncio.run(main()) == ["b"]


def test_a_variable_that_can_t_be_read_for_a_while_loses_nothing(
    conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow
) -> None:
    """Airflow answers None also if its database or its secrets backend fails."""

    async def main() -> list[list[str]]:
        watching = watcher(conn_id)
        await nothing(watching, scripted_ray)
        scripted_ray.add_job("a", "SUCCEEDED")
        kept, airflow.variable = airflow.variable, None
        await in_vain(watching, 1)
        airflow.variable = kept
        again = watcher(conn_id)
        return [names(await take(watching, 1, None)), names(await take(again, 1, airflow))]

    assert asyncio.run(main()) == [["a"], ["a"]]


@pytest.mark.parametrize("failures", [1, 2])
def test_a_watcher_that_starts_while_the_variable_can_t_be_read_uses_it_later(
    conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    left = [failures]

    async def read(key: str) -> Told | None:
        left[0] -= 1
        return None if left[0] >= 0 else await airflow.read(key)

    async def main() -> list[str]:
        await nothing(watcher(conn_id), scripted_ray)
        scripted_ray.add_job("a", "SUCCEEDED")
        monkeypatch.setattr(job_ends, "read", read)
        return names(await take(watcher(conn_id), 1, airflow))

    assert asyncio.run(main()) == ["a"]


def test_what_ends_before_the_variable_is_written_is_told(
    conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the first list is where it begins."""
    monkeypatch.setattr(job_ends, "NEW_AFTER", 0.2)

    async def main() -> list[str]:
        scripted_ray.add_job("before", "SUCCEEDED")
        taking = asyncio.create_task(take(watcher(conn_id), 1, airflow))
        await until(lambda: len(scripted_ray.received_on("GET", "/api/jobs/")) == 1)
        await asyncio.sleep(0.05)
        scripted_ray.add_job("after", "SUCCEEDED")
        return names(await taking)

    assert asyncio.run(main()) == ["after"]


def test_a_variable_that_airflow_does_not_keep_is_an_error(
    conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(key: str, told: Told) -> None: ...

    monkeypatch.setattr(job_ends, "write", write)
    with pytest.raises(job_ends.VariableUnreadableError, match="could not be written"):
        asyncio.run(take(watcher(conn_id), 1, airflow))


def test_few_events_are_sent_before_airflow_has_recorded_them(
    conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_ends, "MOST_UNDER_WAY", 3)
    under_way: list[dict[str, Any]] = []
    most = 0

    async def read(key: str) -> Told | None:
        for payload in under_way:
            airflow.record(payload)
        under_way.clear()
        return await airflow.read(key)

    async def main() -> None:
        nonlocal most
        await nothing(watcher(conn_id), scripted_ray)
        for number in range(10):
            scripted_ray.add_job(f"j{number}", "SUCCEEDED")
        monkeypatch.setattr(job_ends, "read", read)
        async with asyncio.timeout(10), aclosing(watcher(conn_id).until_lost()) as payloads:
            async for payload in payloads:
                under_way.append(payload)
                most = max(most, len(under_way))
                if len(airflow.recorded) + len(under_way) == 10:
                    break

    asyncio.run(main())
    assert most == 3


def test_a_loss_of_contact_ends_no_watch(
    conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> list[str]:
        watching = watcher(conn_id)
        await nothing(watching, scripted_ray)
        scripted_ray.script("GET", "/api/jobs/", *[answers.text(500, "broken")] * 2)
        for _ in range(2):
            async with asyncio.timeout(10):
                assert await take(watching, 1, airflow) == []
        scripted_ray.add_job("a", "SUCCEEDED")
        return names(await take(watching, 1, airflow))

    assert asyncio.run(main()) == ["a"]
    assert caplog.text.count("can't be listed; retrying: ") == 1
    assert caplog.text.count("are listed again") == 1


def test_it_says_if_airflow_does_not_note_what_was_sent(
    conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(job_ends, "RECORDED_WITHIN", 0.0)

    async def main() -> None:
        watching = watcher(conn_id)
        await nothing(watching, scripted_ray)
        for name in "abc":
            scripted_ray.add_job(name, "SUCCEEDED")
            await take(watching, 1, None if name == "a" else airflow)

    asyncio.run(main())
    assert caplog.text.count("a restart would send it again") == 1


# What is chosen, and what is told

ENTRY = {
    "type": "SUBMISSION",
    "submission_id": "etl-7",
    "status": "FAILED",
    "start_time": 1_700_000_000_000,
    "end_time": 1_700_000_001_000,
    "metadata": {"team": "search", "token": "s3cretvalue", "long": "x" * 1000},
    "message": "boom s3cretvalue http://user:pass@host/ " + "y" * 5000,
    "runtime_env": {"env_vars": {"API_TOKEN": "s3cretvalue"}},
    "driver_exit_code": 3,
    "entrypoint": "python secret.py",
}


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({}, True),
        ({"pattern": "etl-*"}, True),
        ({"pattern": "ETL-*"}, False),
        ({"pattern": "etl"}, False),
        ({"pattern": "etl-[67]"}, True),
        ({"statuses": ("FAILED",)}, True),
        ({"statuses": ("SUCCEEDED", "STOPPED")}, False),
        ({"metadata": {"team": "search"}}, True),
        ({"metadata": {"team": "search", "x": "y"}}, False),
        ({"metadata": {"team": "other"}}, False),
    ],
)
def test_jobs_are_chosen_by_id_status_and_metadata(choice: dict[str, Any], wanted: bool) -> None:
    given = {"metadata": {}, "pattern": "*", "statuses": ENDED, "with_metadata": (), **choice}
    assert (Choice(**given).wants(ENTRY, "ours") is not None) is wanted


@pytest.mark.parametrize("metadata", [None, [], "text", {"team": 1}])
def test_metadata_of_any_kind_are_looked_at(metadata: Any) -> None:
    entry = {**ENTRY, "metadata": metadata}
    assert Choice({"team": "search"}, "*", ENDED, ()).wants(entry, "ours") is None
    assert ALL.wants(entry, "ours") is not None


def test_jobs_of_this_deployment_are_not_told(conn_id: str, scripted_ray: ScriptedRay, airflow: Airflow) -> None:
    async def main() -> list[str]:
        watching = watcher(conn_id)
        await nothing(watching, scripted_ray)
        scripted_ray.add_job("ours", "SUCCEEDED", metadata={"airflow_deployment": derived_deployment()})
        scripted_ray.add_job("theirs", "SUCCEEDED", metadata={"airflow_deployment": "theirs"})
        return names(await take(watching, 1, airflow))

    assert asyncio.run(main()) == ["theirs"]


def test_an_event_has_facts_without_secrets_and_bounds() -> None:
    choice = Choice({"team": "search"}, "*", ENDED, ("token", "long", "absent"))
    job = choice.wants(ENTRY, "ours")
    assert job is not None
    told = choice.payload(job, ENTRY, cluster_at("http://ray:8265"))
    text = json.dumps(told)
    assert "s3cretvalue" not in text
    assert "user:pass" not in text
    assert "entrypoint" not in told
    assert len(text) < 4000
    assert {key: told[key] for key in ("submission_id", "status", "start_time", "end_time", "driver_exit_code")} == {
        "submission_id": "etl-7",
        "status": "FAILED",
        "start_time": 1_700_000_000_000,
        "end_time": 1_700_000_001_000,
        "driver_exit_code": 3,
    }
    assert told["message"].startswith("boom ")
    assert (told["metadata"]["team"], len(told["metadata"]["long"])) == ("search", job_ends.LONGEST_VALUE)

"""A cluster whose answers have no bounds harms no job of another cluster, nor the process that follows both."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs import compat, retries
from airflow_provider_rayjobs import follow as follow_module
from airflow_provider_rayjobs.aiohttp_transport import AiohttpTransport
from airflow_provider_rayjobs.exceptions import RayJobsError, RayProtocolError
from airflow_provider_rayjobs.follow import JobWatcher, Watch
from airflow_provider_rayjobs.job_list import list_jobs
from airflow_provider_rayjobs.poller import Poller
from airflow_provider_rayjobs.protocol import get_job_info, stop_job
from tests.support.clients import cluster_at
from tests.support.hostile_head import CASES, HostileHead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_rayjobs.events import JobEvent
    from tests.support.clients import Client
    from tests.support.scripted_server import ScriptedRay

LOG = logging.getLogger("tests.hostile")

#: Bytes that following all cases together may take; the head's own are among them, for it runs in this process.
MOST_MEMORY = 400 * 2**20

FAILED = {
    *("env_vars a list", "half a surrogate pair", "800 secret lines", "100,000 secret lines", "secret words"),
    *("tail without end", "log in one line", "log too large for a message"),
}


@pytest.fixture
def hostile() -> Iterator[HostileHead]:
    with HostileHead() as head:
        yield head


def resident() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


async def follow(server: Any, name: str, budget: float = 600.0, **watch: Any) -> JobEvent:
    cluster = cluster_at(server.url, read_timeout=1.0, unreachable_timeout=budget)
    async with Poller(AiohttpTransport(cluster)) as poller:
        return await JobWatcher(poller, Watch(name, time.time(), **watch), LOG, compat.public_for).run()


def test_a_good_job_is_followed_beside_hostile_ones(
    hostile: HostileHead, scripted_ray: ScriptedRay, caplog: pytest.LogCaptureFixture
) -> None:
    ends = time.time() + 4
    scripted_ray.add_job("good").timeline = [(ends, "SUCCEEDED")]
    scripted_ray.append_log("good", ["Traceback\n"])
    caplog.set_level(logging.INFO, LOG.name)

    async def main() -> tuple[JobEvent, dict[str, asyncio.Task[JobEvent]]]:
        others = {
            case: asyncio.create_task(follow(hostile, case, stream_logs=case != "tail without end")) for case in CASES
        }
        try:
            good = await asyncio.wait_for(follow(scripted_ray, "good"), 30)
            await asyncio.wait(others.values(), timeout=6)
            return good, {case: task for case, task in others.items() if task.done()}
        finally:
            for task in others.values():
                task.cancel()
            await asyncio.gather(*others.values(), return_exceptions=True)

    before = resident()
    good, done = asyncio.run(main())
    assert good.outcome == "succeeded"
    assert good.ended_at - ends < 15  # a busy machine; benchmarks/hostile.py measures
    assert resident() - before < MOST_MEMORY
    assert {case: str(task.result().outcome) for case, task in done.items()}.items() >= dict.fromkeys(
        FAILED, "failed"
    ).items()
    assert "Traceback" in [record.getMessage() for record in caplog.records]  # a secret of another job only
    assert "*** ***" in [record.getMessage() for record in caplog.records]


def test_a_limit_holds_before_the_first_answer(hostile: HostileHead, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FIRST_LOOK_PATIENCE": 0.2, "STOP_LIMIT": 0.5, "LONGEST_LOST_INTERVAL": 0.1}.items():
        monkeypatch.setattr(follow_module, name, value)
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    deadlines = {"job_timeout": time.time()}
    event = asyncio.run(asyncio.wait_for(follow(hostile, "dribbled body", 2.0, deadlines=deadlines), 20))
    assert event.outcome == "unreachable"
    assert "no answer to the stop within" in event.detail


def test_a_list_without_bounds_is_an_error(hostile: HostileHead, connect: Callable[..., Client]) -> None:
    with pytest.raises(RayProtocolError, match="it has a job of more than"):
        connect(hostile.url).run(list_jobs())


def test_no_odd_answer_is_another_error_than_ours(
    hostile: HostileHead, connect: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    client = connect(hostile.url, read_timeout=0.3, connect_timeout=0.1)
    for case in CASES:
        for verb in (get_job_info, stop_job):
            with contextlib.suppress(RayJobsError):
                client.run(verb(case))

"""A cluster whose answers have no bounds harms no job of another cluster, nor the process that follows both."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.client import retries
from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
from airflow_provider_rayjobs.client.listing import list_jobs
from airflow_provider_rayjobs.client.verbs import get_job_info, stop_job
from airflow_provider_rayjobs.compat import masking
from airflow_provider_rayjobs.exceptions import RayJobsError, RayProtocolError
from airflow_provider_rayjobs.following import watcher as follow_module
from airflow_provider_rayjobs.following.poller import Poller
from airflow_provider_rayjobs.following.watcher import JobWatcher, Watch
from tests.support.clients import cluster_at
from tests.support.hostile_head import CASES, DETAILS, FRAMES, MESSAGES, TALKATIVE, HostileHead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_rayjobs.following.events import JobEvent
    from tests.support.clients import Client
    from tests.support.scripted_server import ScriptedRay

#: Not one of the loggers that pytest knows, which would keep each of millions of records.
LOG = logging.Logger("tests.hostile", logging.INFO)  # noqa: LOG001 - so that it is not one of those

#: Bytes that following all cases together may take; the head's own are among them, for it runs in this process.
MOST_MEMORY = 400 * 2**20

#: Jobs of one cluster whose logs flow without end.
TALKERS = tuple(f"{TALKATIVE} {number}" for number in range(5))

#: Jobs that failed, whose logs have millions of lines: Airflow takes minutes to write them.
LONG_LOGS = {"log of line ends", "log of pairs", "log of CRLF"}

#: Jobs that have failed, as far as their details can be read, and that are told to have.
FAILED = {
    *("env_vars a list", "half a surrogate pair", "800 secret lines", "100,000 secret lines", "secret words"),
    *("nearly secret lines", "secret of line ends", "nearly URLs", "tail without end", "log in one line"),
    *("log too large for a message", "log of deep progress", "log of large progress", "log of an endless escape"),
}


class Lines(logging.Handler):
    """Keeps each line once: millions come."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.add(record.getMessage())


@pytest.fixture
def lines() -> Iterator[set[str]]:
    handler = Lines()
    LOG.addHandler(handler)
    yield handler.seen
    LOG.removeHandler(handler)


@pytest.fixture
def hostile() -> Iterator[HostileHead]:
    with HostileHead() as head:
        yield head


def resident() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


async def follow(
    server: Any, name: str, budget: float = 600.0, *, read_timeout: float = 20.0, **watch: Any
) -> JobEvent:
    cluster = cluster_at(server.url, read_timeout=read_timeout, unreachable_timeout=budget)
    async with Poller(AiohttpTransport(cluster)) as poller:
        return await JobWatcher(poller, Watch(name, time.time(), **watch), LOG, masking.public_for).run()


def test_every_case_that_tells_of_a_failed_job_is_expected_to_fail() -> None:
    details = {case: make() for case, make in DETAILS.items()}
    failed = {case for case, job in details.items() if isinstance(job, dict) and job.get("status") == "FAILED"}
    assert failed == FAILED | LONG_LOGS


def test_a_good_job_is_followed_beside_hostile_ones(
    hostile: HostileHead, scripted_ray: ScriptedRay, lines: set[str]
) -> None:
    ends = time.time() + 4
    scripted_ray.add_job("good").timeline = [(ends, "SUCCEEDED")]
    scripted_ray.append_log("good", ["Traceback\n"])

    async def main() -> tuple[JobEvent, dict[str, str]]:
        others = {
            case: asyncio.create_task(follow(hostile, case, stream_logs=case != "tail without end"))
            for case in (*CASES, *TALKERS)
        }
        try:
            good = await asyncio.wait_for(follow(scripted_ray, "good"), 60)
            await asyncio.wait([others[case] for case in FAILED], timeout=60)
            return good, {case: str(task.result().outcome) for case, task in others.items() if task.done()}
        finally:
            for task in others.values():
                task.cancel()
            await asyncio.gather(*others.values(), return_exceptions=True)

    before = resident()
    good, done = asyncio.run(main())
    assert good.outcome == "succeeded"
    assert good.ended_at - ends < 30  # a busy machine; benchmarks/hostile.py measures
    assert resident() - before < MOST_MEMORY
    assert {case: outcome for case, outcome in done.items() if case not in LONG_LOGS} == dict.fromkeys(FAILED, "failed")
    assert hostile.asked == {*CASES, *TALKERS}
    assert hostile.followed >= {*MESSAGES, *FRAMES, *TALKERS}
    assert {"Traceback", "*** ***"} <= lines  # it is a secret of another job only
    assert {"a line of a job", "Progress: 1e+40"} <= lines


def test_a_limit_holds_before_the_first_answer(hostile: HostileHead, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FIRST_LOOK_PATIENCE": 0.2, "LIMIT_STOP_TOTAL": 0.5, "LONGEST_LOST_INTERVAL": 0.1}.items():
        monkeypatch.setattr(follow_module, name, value)
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    deadlines = {"job_timeout": time.time()}
    event = asyncio.run(
        asyncio.wait_for(follow(hostile, "dribbled body", 2.0, read_timeout=1.0, deadlines=deadlines), 20)
    )
    assert event.outcome == "unreachable"
    assert "no answer to the request to stop within" in event.detail


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

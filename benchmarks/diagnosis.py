"""
Measures on a real Ray head what it costs to tell how far a job is, and to read the end of a failed job's long log.

    PYTHONPATH=. .envs/airflow-3.3/bin/python benchmarks/diagnosis.py [--quick]

A job starts 10,000 Ray tasks, which Ray keeps on record, and then sleeps; it is followed with and without
``log_progress``, in turn. Another job prints 300 MB and fails; its last lines are read with ``stream_logs=False``, and
by one plain request for the last 50 lines, which is the floor. Needs Ray in a separate environment (RAYJOBS_RAY_BIN,
or `make envs`).
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import sys
import time
import urllib.request
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import common

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_provider_rayjobs.following.events import JobEvent
    from tests.support.ray_head import RayHead

TASKS = 10_000
WINDOW = 180.0  # seconds
LOG = 300_000_000  # bytes

MANY = f"""
import ray, time
@ray.remote(num_cpus=0.2)
def one(number):
    return number
ray.get([one.remote(number) for number in range({TASKS})])
print("all done", flush=True)
time.sleep(86400)
"""
LONG = f"line = 'x' * 99\nfor _ in range({LOG // 100}): print(line)\nraise SystemExit('the last line')"


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.kept.append(record.getMessage())


async def follow(url: str, submission_id: str, seconds: float = 3600.0, **watch: Any) -> tuple[JobEvent | None, Lines]:
    """Follow a job for some seconds, or to its end."""
    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.following.poller import Poller
    from airflow_provider_rayjobs.following.watcher import JobWatcher, Watch

    log, lines = logging.getLogger(f"bench.{time.time()}"), Lines()
    log.setLevel(logging.INFO)
    log.addHandler(lines)
    async with Poller(AiohttpTransport(ClusterConnection("bench", url))) as poller:
        watcher = JobWatcher(poller, Watch(submission_id, time.time(), stream_logs=False, **watch), log)
        try:
            async with asyncio.timeout(seconds):
                return await watcher.run(), lines
        except TimeoutError:
            return None, lines


def progress(head: RayHead, rounds: int) -> tuple[str, Any]:
    """Follow the job of many tasks; return a table and its figures."""
    submission_id = head.submit(shlex.join(["python", "-c", MANY]))
    while "all done" not in head.logs(submission_id):
        time.sleep(2)
    time.sleep(20)
    runs: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for _ in range(rounds):
        for log_progress, results in runs.items():
            before = common.cpu_seconds(head._family())
            _, lines = asyncio.run(follow(head.url, submission_id, WINDOW, log_progress=log_progress))
            used = (common.cpu_seconds(head._family()) - before) / WINDOW
            results.append({"head": used, "lines": sum(line.startswith("Ray tasks: ") for line in lines.kept)})
    without = common.median(runs[False], "head")
    rows = [
        [
            "yes" if on else "no",
            common.median(found, "head"),
            common.median(found, "head") - without,
            found[-1]["lines"],
        ]
        for on, found in runs.items()
    ]
    headers = (f"progress of {TASKS:,} tasks logged", "head's CPUs", "over without", "lines")
    return common.table(headers, rows), {str(on): found for on, found in runs.items()}


@asynccontextmanager
async def counting(head: RayHead, number: list[int]) -> AsyncIterator[str]:
    """Forward connections to a head, and count the bytes of its answers; yield the URL."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, count: bool) -> None:
        while data := await reader.read(2**16):
            number[0] += len(data) if count else 0
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(head.host, head.port)
        both = (pipe(reader, to_writer, count=False), pipe(to_reader, writer, count=True))
        with suppress(asyncio.CancelledError):  # at the end
            await asyncio.gather(*both, return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def failing(head: RayHead, submission_id: str) -> dict[str, Any]:
    """Follow the failed job; return the seconds, the bytes and the last line."""
    number = [0]
    async with counting(head, number) as url:
        began = time.perf_counter()
        event, _ = await follow(url, submission_id)
        seconds = time.perf_counter() - began
    tail = event.log_tail if event else ("",)
    return {"seconds": seconds, "kb": number[0] / 1000, "last": tail[-1], "lines": len(tail)}


def floor(head: RayHead, submission_id: str) -> dict[str, Any]:
    """Request the last lines once, with nothing around it."""
    node = head.job(submission_id)["driver_node_id"]
    path = f"/api/v0/logs/file?node_id={node}&filename=job-driver-{submission_id}.log&lines=50"
    began = time.perf_counter()
    with urllib.request.urlopen(head.url + path) as answer:
        text = answer.read()
    lines = text.decode().splitlines()
    return {"seconds": time.perf_counter() - began, "kb": len(text) / 1000, "last": lines[-1], "lines": len(lines)}


def last_lines(head: RayHead, rounds: int) -> tuple[str, Any]:
    """Read the end of the long log; return a table and its figures."""
    submission_id = head.submit(shlex.join(["python", "-c", LONG]))
    head.wait_job(submission_id)
    runs: dict[str, list[dict[str, Any]]] = {"ours, whole end of the task": [], "one request": []}
    for _ in range(3 * rounds):
        runs["ours, whole end of the task"].append(asyncio.run(failing(head, submission_id)))
        runs["one request"].append(floor(head, submission_id))
    rows = [
        [who, common.median(found, "seconds"), common.median(found, "kb"), found[-1]["lines"], _is_last(found)]
        for who, found in runs.items()
    ]
    headers = (f"last lines of {LOG // 10**6} MB", "seconds", "kB read", "lines", "are the last ones")
    return common.table(headers, rows), runs


def _is_last(found: list[dict[str, Any]]) -> str:
    return "yes" if all(one["last"] == "the last line" for one in found) else "no"


def main() -> None:
    """Run all measurements, and print the tables."""
    from tests.support.ray_head import RayHead, require_ray

    rounds = 1 if "--quick" in sys.argv else 3
    with RayHead(num_cpus=2, ray_bin=require_ray(), token="") as head:
        last = last_lines(head, rounds)
        print(last[0])
        lines = progress(head, rounds)
    text = "\n\n".join([lines[0], last[0]])
    common.report("diagnosis", "What a task log tells, and its cost", text, {"progress": lines[1], "last": last[1]})


if __name__ == "__main__":
    main()

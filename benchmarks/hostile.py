"""
Follows a job of a hostile cluster and one of a good cluster in one event loop, as a triggerer does.

    python benchmarks/hostile.py [--quick]

For each case it measures how much the process grew at most, the longest pause of the event loop, and the delay until
the end of the good job was noticed. The first case has a second good cluster instead of the hostile one. Runs in the
environment of the tests.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common

from tests.support import hostile_head
from tests.support.scripted_server import ScriptedRay

#: Seconds for which a hostile job is followed, and after which the good one ends.
SECONDS = 6.0
GOOD_ENDS = 3.0

RUNS = 3

#: Limits for a case: bytes of memory, and seconds of a pause of the event loop.
MOST_MEMORY = 64 * 2**20
MOST_PAUSE = 0.050

GOOD_CASE = "a good cluster"


def memory(field: str) -> int:
    """Return a memory figure of this process, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def reset_peak() -> None:
    """Reset the peak of this process's memory."""
    Path("/proc/self/clear_refs").write_text("5")


async def pauses(found: list[float]) -> None:
    """Record each pause of the event loop."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        found.append(time.perf_counter() - began - 0.001)


async def follow(url: str, *names: str, stream_logs: bool) -> dict[str, Any]:
    """Follow jobs of one cluster as triggers do; return the event of the first that ends."""
    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.compat import masking
    from airflow_provider_rayjobs.following.poller import Poller
    from airflow_provider_rayjobs.following.watcher import JobWatcher, Watch

    cluster = ClusterConnection("c", url, connect_timeout=2.0, read_timeout=4.0, unreachable_timeout=600.0)
    limits = {"job_timeout": time.time() + 3600}
    log = logging.getLogger("airflow.task")
    async with Poller(AiohttpTransport(cluster)) as poller:
        watches = [Watch(name, time.time(), stream_logs=stream_logs, deadlines=limits) for name in names]
        jobs = [asyncio.create_task(JobWatcher(poller, watch, log, masking.public_for).run()) for watch in watches]
        try:
            return (await next(asyncio.as_completed(jobs))).to_json()
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)


async def measure(good: str, hostile: str, case: str) -> dict[str, Any]:
    """Follow both jobs."""
    await asyncio.wait_for(follow(good, "warm", stream_logs=True), 30)  # imports, connections, the first log
    found: list[float] = []
    # Python collects the objects of Airflow's modules at any time, whichever code makes garbage: exclude them.
    gc.collect()
    gc.freeze()
    ticking = asyncio.create_task(pauses(found))
    await asyncio.sleep(0.2)
    reset_peak()
    found.clear()
    start = memory("VmRSS")
    stream = case != "tail without end"
    names = ["other"] if case == GOOD_CASE else [case]
    if case == hostile_head.TALKATIVE:
        names = [f"{case} {n}" for n in range(50)]
    bad = asyncio.create_task(follow(good if case == GOOD_CASE else hostile, *names, stream_logs=stream))
    fine = asyncio.create_task(follow(good, "good", stream_logs=True))
    await asyncio.wait({bad, fine}, timeout=SECONDS)
    peak, longest = memory("VmHWM") - start, max(found)
    told = fine.result() if fine.done() else {"outcome": "not told"}
    outcome = "goes on" if not bad.done() else bad.exception() or bad.result()["outcome"]
    for task in (bad, fine, ticking):
        task.cancel()
    with contextlib.suppress(BaseException):
        await asyncio.gather(bad, fine, ticking, return_exceptions=True)
    return {
        "case": case,
        "memory": peak,
        "pause": longest,
        "outcome": str(outcome),
        "good": told["outcome"],
        "late": round(told.get("ended_at", 0) - float(os.environ["GOOD_ENDED_AT"]), 2) if fine.done() else None,
    }


def best_of(case: str, runs: int) -> dict[str, Any]:
    """Measure a case several times; the shortest pause counts, because other load on the machine causes longer ones."""
    rows = [run(case) for _ in range(runs)]
    memory_used = max(row["memory"] for row in rows)
    return {**min(rows, key=lambda row: float(row["pause"])), "memory": memory_used}


def run(case: str) -> dict[str, Any]:
    """Measure one case in a new process."""
    hostile = subprocess.Popen(
        [sys.executable, "-m", "tests.support.hostile_head"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with ScriptedRay() as good:
        try:
            assert hostile.stdout  # noqa: S101
            url = f"http://127.0.0.1:{int(hostile.stdout.readline())}"
            good.add_job("warm", "SUCCEEDED")
            good.append_log("warm", ["hello\n"] * 100)
            ends = time.time() + GOOD_ENDS + 4
            for name in ("good", "other"):
                good.add_job(name).timeline = [(ends, "SUCCEEDED")]
                good.append_log(name, ["a line\n"] * 1000)
            command = [sys.executable, __file__, "--follow", case, good.url, url]
            found: dict[str, Any] = common.run_json(command, GOOD_ENDED_AT=str(ends), PYTHONPATH=str(common.ROOT))
            return found
        finally:
            hostile.stdin.close() if hostile.stdin else None
            hostile.terminate()
            hostile.wait()


def main() -> None:
    """Measure all cases, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--follow", nargs=3, metavar=("CASE", "GOOD", "HOSTILE"))
    parser.add_argument("--only", nargs="*")
    options = parser.parse_args()
    if options.follow:
        case, good, hostile = options.follow
        logging.getLogger("airflow.task").addHandler(logging.NullHandler())
        print(json.dumps(asyncio.run(measure(good, hostile, case))))
        return
    hostile = (*hostile_head.CASES, hostile_head.TALKATIVE)
    cases = options.only or [GOOD_CASE, *(hostile[::5] if options.quick else hostile)]
    rows = [best_of(case, 1 if options.quick else RUNS) for case in cases]
    table = common.table(
        ("case", "peak MiB over start", "longest pause, ms", "hostile job", "good job", "delay, s"),
        [
            (row["case"], row["memory"] / 2**20, row["pause"] * 1000, row["outcome"], row["good"], row["late"])
            for row in rows
        ],
    )
    common.report("hostile", "A hostile cluster beside a good one", table, rows)
    over = [row["case"] for row in rows if row["memory"] > MOST_MEMORY or row["pause"] > MOST_PAUSE]
    print(f"Beyond {MOST_MEMORY >> 20} MiB or {MOST_PAUSE * 1000:.0f} ms: {', '.join(over) or 'none'}")


if __name__ == "__main__":
    main()

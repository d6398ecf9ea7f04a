"""
Measures on a real Ray head what it costs to learn which of 1,000 jobs have ended, beside 100,000 old jobs.

    PYTHONPATH=. .envs/airflow-3.3/bin/python benchmarks/old_jobs.py [--quick]

The old jobs are records in Ray's key-value store, as the head writes them. A running job has an actor that is alive; a
thousand would be a thousand processes. So the actors here wait for resources for ever, and are selected by that state.
Needs Ray in a separate environment (RAYJOBS_RAY_BIN, or `make envs`).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import common

from tests.support.ray_head import RayHead, require_ray

if TYPE_CHECKING:
    from tests.support.processes import Process


class Record(NamedTuple):
    """Numbers of old jobs on record, of jobs that run, and of actors that have ended."""

    old: int
    running: int
    ended: int


FULL, QUICK = Record(100_000, 1000, 5000), Record(2000, 100, 100)

#: Seconds for which each request is repeated, and for which the head settles before.
SECONDS = 6.0
SETTLE = 20.0

#: Runs in Ray's environment: copies the record of one job, and makes actors that have ended or wait for ever.
SEED = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
import ray
from ray._raylet import GcsClient

address, job, old, running, ended = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
gcs, key = GcsClient(address=address), "_ray_internal_job_info_"
record = gcs.internal_kv_get(f"{key}{job}".encode(), b"job", timeout=30)
put = lambda number: gcs.internal_kv_put(f"{key}old-{number}".encode(), record, True, b"job", timeout=60)
with ThreadPoolExecutor(16) as pool:
    list(pool.map(put, range(old)))
ray.init(address=address, log_to_driver=False, namespace="bench")

@ray.remote(num_cpus=100000, lifetime="detached")
class Waits:
    pass

for number in range(ended):
    ray.kill(Waits.options(name=f"_ray_internal_job_actor_old-{number}").remote())
for number in range(running):
    Waits.options(name=f"_ray_internal_job_actor_running-{number}").remote()
os._exit(0)
"""

ACTORS = "/api/v0/actors?filter_keys=state&filter_predicates=%3D&filter_values=PENDING_CREATION&limit=10000"
RUNNING = "/api/v0/jobs?filter_keys=status&filter_predicates=%3D&filter_values=RUNNING"


def answering(head: RayHead) -> list[Process]:
    """Return the head's processes that answer requests: the dashboard's and GCS. Others work for jobs and nodes."""
    names = (b"gcs_server", b"dashboard/dashboard.py", b"ray-dashboard-")
    found = {process: Path(f"/proc/{process.pid}/cmdline").read_bytes() for process in head._family()}
    return [process for process, command in found.items() if any(name in command for name in names)]


def cost(head: RayHead, path: str) -> dict[str, Any]:
    """Repeat a request; return what one costs."""
    processes, times, size = answering(head), [], 0
    before, began = common.cpu_seconds(processes), time.monotonic()
    while time.monotonic() - began < SECONDS:
        sent = time.monotonic()
        with urllib.request.urlopen(head.url + path, timeout=300) as answer:
            size = len(answer.read())
        times.append(time.monotonic() - sent)
    used = common.cpu_seconds(processes) - before
    return {"number": len(times), "seconds": statistics.median(times), "cpu": used / len(times), "bytes": size}


def measure(record: Record) -> dict[str, dict[str, Any]]:
    """Fill a head's record; return what each request costs."""
    with RayHead(num_cpus=2, ray_bin=require_ray(), token="") as head:
        job = head.submit("true")
        head.wait_job(job)
        command = [str(head.ray_bin.with_name("python")), "-c", SEED, f"{head.host}:{head.ports['--port']}", job]
        subprocess.run([*command, *map(str, record)], check=True, env=head._environment(), timeout=900)
        time.sleep(SETTLE)
        paths = {"one job": f"/api/jobs/{job}", "actors": ACTORS, "list": "/api/jobs/", "state": RUNNING}
        return {name: cost(head, path) for name, path in paths.items()}


def main() -> None:
    """Measure, and print the table."""
    record = QUICK if "--quick" in sys.argv else FULL
    found = measure(record)
    number = record.running
    labels = {
        "one job": (f"`/api/jobs/{{id}}`, for each of {number:,}", number),
        "list": ("`/api/jobs/`", 1),
        "state": ("`/api/v0/jobs`, only running ones", 1),
        "actors": (f"`/api/v0/actors`, {number:,} in one state", 1),
    }
    alone = found["one job"]["cpu"] * number
    rows = []
    for name, (label, times) in labels.items():
        one = found[name]
        cpu, seconds = one["cpu"] * times, one["seconds"] * times
        rows.append([label, f"{times:,}", cpu, cpu / alone, seconds, one["bytes"] * times / 1000])
    headers = (f"beside {record.old:,} old jobs", "requests", "head's CPU s", "÷ each alone", "seconds", "kB")
    common.report("old_jobs", "Beside many old jobs", common.table(headers, rows), found)


if __name__ == "__main__":
    main()

"""
Measures on a real Ray head what deleting 2,000 old records costs it, and whether other requests wait meanwhile.

    PYTHONPATH=. .envs/airflow-3.3/bin/python benchmarks/prune.py [--quick]

The records are copies of one job's record in Ray's key-value store, as the head writes them, with an end long ago.
Another process asks for one job ten times a second, before and while the records are deleted. Needs Ray in a separate
environment (RAYJOBS_RAY_BIN, or `make envs`).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import common
from old_jobs import answering

from airflow_provider_rayjobs.client.pruning import Choice, choose, delete
from airflow_provider_rayjobs.client.requests_transport import RequestsTransport
from airflow_provider_rayjobs.cluster.connection import ClusterConnection
from tests.support.ray_head import RayHead, require_ray

if TYPE_CHECKING:
    from collections.abc import Iterator

FULL, QUICK = 2000, 200

#: Seconds for which the head settles, and for which it is observed before.
SETTLE = 15.0
BEFORE = 10.0

#: Runs in Ray's environment: copies the record of one job, with an end of 30 days ago and this deployment's name.
SEED = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from ray._raylet import GcsClient

address, job, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
gcs, key = GcsClient(address=address), "_ray_internal_job_info_"
record = json.loads(gcs.internal_kv_get(f"{key}{job}".encode(), b"job", timeout=30))
record["metadata"] = {"airflow_deployment": "bench"}
month = 30 * 86_400_000

def put(index):
    old = {**record, "start_time": record["start_time"] - month + index, "end_time": record["end_time"] - month + index}
    gcs.internal_kv_put(f"{key}old-{index}".encode(), json.dumps(old).encode(), True, b"job", timeout=60)

with ThreadPoolExecutor(16) as pool:
    list(pool.map(put, range(number)))
"""


class Cost(NamedTuple):
    """What a time cost the head: seconds, its share of a core, and the seconds that another request took."""

    seconds: float
    share: float
    agent: float
    p50: float
    p99: float


@contextmanager
def another_client(head: RayHead, job: str) -> Iterator[list[float]]:
    """Ask for one job ten times a second; yield the seconds that each request took."""
    times: list[float] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.1):
            began = time.monotonic()
            with urllib.request.urlopen(f"{head.url}/api/jobs/{job}", timeout=60) as answer:
                answer.read()
            times.append(time.monotonic() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield times
    finally:
        over.set()
        thread.join()


@contextmanager
def observed(head: RayHead, job: str) -> Iterator[list[Cost]]:
    """Yield a list that gets the cost of what is done within."""
    found: list[Cost] = []
    main = answering(head)
    agents = [process for process in head._family() if process not in main]
    with another_client(head, job) as times:
        before, before_agents, began = common.cpu_seconds(main), common.cpu_seconds(agents), time.monotonic()
        yield found
        seconds = time.monotonic() - began
        share = (common.cpu_seconds(main) - before) / seconds
        agent = (common.cpu_seconds(agents) - before_agents) / seconds
    times.sort()
    found.append(Cost(seconds, share, agent, statistics.median(times), times[int(len(times) * 0.99)]))


def measure(number: int) -> dict[str, Any]:
    """Fill a head's record, and delete it."""
    with RayHead(num_cpus=2, ray_bin=require_ray(), token="") as head:
        job = head.submit("true")
        head.wait_job(job)
        seed = [str(head.ray_bin.with_name("python")), "-c", SEED, f"{head.host}:{head.ports['--port']}", job]
        subprocess.run([*seed, str(number)], check=True, env=head._environment(), timeout=300)
        time.sleep(SETTLE)
        with observed(head, job) as idle:
            time.sleep(BEFORE)
        transport = RequestsTransport(ClusterConnection(conn_id="bench", address=head.url))
        began = time.monotonic()
        pruned = transport.run(choose(Choice(deployment="bench")))
        listing = time.monotonic() - began
        with observed(head, job) as busy:
            transport.run(delete(pruned, lambda done: print(f"{done} of {number} done", flush=True)))
        transport.close()
        if pruned.deleted.total() != number:
            sys.exit(f"deleted {pruned.deleted} of {number}")
        return {"list": listing, "idle": idle[0]._asdict(), "prune": busy[0]._asdict()}


def main() -> None:
    """Measure, and print the table."""
    number = QUICK if "--quick" in sys.argv else FULL
    found = measure(number)
    rows = [
        [label, cost["seconds"], cost["share"], cost["agent"], cost["p50"] * 1000, cost["p99"] * 1000]
        for label, cost in (("nothing else", found["idle"]), (f"{number:,} records deleted", found["prune"]))
    ]
    headers = ("while", "seconds", "head's share", "others' share", "another request, ms", "p99")
    text = f"{common.table(headers, rows)}\n\nThe list before took {found['list']:.2f} s."
    common.report("prune", "Deleting old records", text, found)


if __name__ == "__main__":
    main()

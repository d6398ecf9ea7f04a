"""
Measures on a real Ray head what following 50 jobs costs it, how late an end is noticed, and how fast a log is read.

    PYTHONPATH=. .envs/airflow-3.3/bin/python benchmarks/real_head.py [--quick]

The jobs of the first table sleep, and each follower in turn follows them for half a minute; the head's CPU time without
followers is subtracted. The jobs of the second table end by themselves; the delay counts from the end that Ray reports.
Needs Ray in a separate environment (RAYJOBS_RAY_BIN, or `make envs`).
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import common

if TYPE_CHECKING:
    from airflow_provider_rayjobs.following.poller import Poller
    from tests.support.ray_head import RayHead

JOBS = 50
WINDOW = 30.0  # seconds
AGE = 60.0  # seconds: at this age, all followers poll every two or three seconds
ENVS = {"nobody": "", "ours": "bench-ours", "naive": "bench-ours", "astro": "bench-astro"}
LOG = 100_000_000  # characters
RUN_TIMES = (3, 10, 20, 40, 70)  # seconds


def share(head: RayHead) -> float:
    """Return the share of a CPU that the head uses during the next :data:`WINDOW` seconds."""
    before = common.cpu_seconds(head._family())  # the processes that run the jobs only sleep
    time.sleep(WINDOW)
    return (common.cpu_seconds(head._family()) - before) / WINDOW


def follow(head: RayHead, subject: str) -> dict[str, float]:
    """Let a follower follow all jobs; return the shares of a CPU that the head and the follower use."""
    if subject == "nobody":
        return {"head": share(head), "cpu": 0.0, "lag_p99_ms": 0.0}
    begin = time.time() + 12  # seconds for imports
    options = {"url": head.url, "jobs": JOBS, "begin": begin, "seconds": WINDOW + 2, "age": AGE, "ends": 1e9}
    command = [common.python(ENVS[subject]), str(common.HERE / "followers.py"), subject]
    env = {"AIRFLOW_HOME": str(common.scratch())} | ({"PYTHONPATH": str(common.ROOT)} if subject == "ours" else {})
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(
            common.run_json, [*command, *(f"--{key}={value}" for key, value in options.items())], **env
        )
        time.sleep(max(begin + 1 - time.time(), 0.0))
        used = share(head)
        return {"head": used, **{key: result.result()[key] for key in ("cpu", "lag_p99_ms")}}


def load(head: RayHead, rounds: int) -> tuple[str, Any]:
    """Compare the followers, in turn; return a table and its figures."""
    for number in range(JOBS):
        head.submit("sleep 86400", submission_id=f"j{number}")
    wait_running(head)
    runs: dict[str, list[dict[str, float]]] = {subject: [] for subject in ENVS}
    for _ in range(rounds):
        for subject, results in runs.items():
            results.append(follow(head, subject))
    idle = common.median(runs["nobody"], "head")
    rows = []
    for subject, results in runs.items():
        own = common.median(results, "head") - idle
        naive = common.median(runs["naive"], "head") - idle
        figures = [common.median(results, key) for key in ("head", "cpu", "lag_p99_ms")]
        rows.append(
            [subject, figures[0], own, own / naive, *figures[1:], f"±{common.spread(results, 'head'):.0%}"]
        )  # fmt: skip
    headers = ("who follows 50 jobs", "head's CPUs", "over nobody", "÷ naive", "own cores", "lag p99 ms", "noise")
    return common.table(headers, rows), runs


def wait_running(head: RayHead) -> None:
    """Wait until all jobs run, and the head is idle."""
    deadline = time.monotonic() + 600
    while any(job["status"] == "PENDING" for job in head.jobs()):
        if time.monotonic() > deadline:
            sys.exit("The jobs did not start within 600 s.")
        time.sleep(2)
    time.sleep(20)


async def notice_end(head: RayHead, poller: Poller, seconds: int, stream: bool) -> dict[str, Any]:
    """Run one job to its end; return the delay until that was noticed."""
    from airflow_provider_rayjobs.following.watcher import JobWatcher, Watch

    submission_id = await asyncio.to_thread(head.submit, f"sleep {seconds}; echo last line")
    watch = Watch(submission_id, time.time(), stream_logs=stream)
    await JobWatcher(poller, watch, logging.getLogger("bench")).run()
    delay = time.time()
    job = await asyncio.to_thread(head.job, submission_id)
    run_time = (job["end_time"] - job["start_time"]) / 1000
    delay -= job["end_time"] / 1000
    allowed = min(max(1.5, 0.05 * run_time), watch.poll_interval + 1) + (5 if stream else 0)
    return {"sleep": seconds, "stream": stream, "run_time": run_time, "delay": delay, "late": delay > allowed}


async def ends(head: RayHead, rounds: int) -> tuple[str, Any]:
    """Run jobs to their ends, with and without their logs; return a table and its figures."""
    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.following.poller import Poller

    results: list[dict[str, Any]] = []
    async with Poller(AiohttpTransport(ClusterConnection("bench", head.url))) as poller:
        for _ in range(rounds):
            jobs = [notice_end(head, poller, seconds, stream) for seconds in RUN_TIMES for stream in (False, True)]
            results += await asyncio.gather(*jobs)
    rows = []
    for stream in (False, True):
        some = sorted(one["delay"] for one in results if one["stream"] is stream)
        late = [one["late"] for one in results if one["stream"] is stream]
        rows.append(["yes" if stream else "no", len(some), statistics.median(some), some[-1], sum(late) / len(late)])
    return common.table(("log streamed", "jobs", "delay p50 s", "max s", "late"), rows), results


def log_speed(head: RayHead, rounds: int) -> tuple[str, Any]:
    """Read the log of an ended job with each of `log_readers` in turn; return a table and its figures."""
    program = f"line = 'x' * 99\nfor _ in range({LOG // 100}): print(line)"
    submission_id = head.submit(shlex.join(["python", "-c", program]))
    head.wait_job(submission_id)
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "lines": [], "bare": []}
    for _ in range(rounds):
        for subject, results in runs.items():
            options = {"url": head.url, "submission-id": submission_id, "characters": LOG}
            command = [common.python("bench-ours"), str(common.HERE / "log_readers.py"), subject]
            arguments = [f"--{name}={value}" for name, value in options.items()]
            results.append(common.run_json([*command, *arguments], PYTHONPATH=str(common.ROOT)))
    bare = common.median(runs["bare"], "mb_per_s")
    rows = []
    for subject, results in runs.items():
        speed = common.median(results, "mb_per_s")
        noise = f"±{common.spread(results, 'mb_per_s'):.0%}"
        rows.append([subject, speed, speed / bare, noise, common.median(results, "memory_mb")])
    headers = (f"who reads {LOG // 10**6} MB of log", "MB/s", "÷ bare", "noise", "peak MB over the start")
    return common.table(headers, rows), runs


def main() -> None:
    """Run all measurements, and print the tables."""
    from tests.support.ray_head import RayHead, require_ray

    rounds = 1 if "--quick" in sys.argv else 3
    ray_bin = require_ray()
    with RayHead(num_cpus=2, ray_bin=ray_bin, token="") as head:
        speed = log_speed(head, rounds)
        late = asyncio.run(ends(head, rounds))
    with RayHead(num_cpus=2, ray_bin=ray_bin, token="") as head:
        loads = load(head, rounds)
    text = "\n\n".join([loads[0], late[0], speed[0]])
    common.report("real_head", "On a real head", text, {"load": loads[1], "ends": late[1], "log": speed[1]})


if __name__ == "__main__":
    main()

"""
Follows jobs in one event loop, as a triggerer does, and measures; run by `deferred`, in the environment of its subject.

    python followers.py ours --url http://127.0.0.1:1234 --jobs 1000 --begin UNIX --seconds 60
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import resource
import statistics
import sys
import time
from functools import partial
from typing import Any

import common
from timetable import Timetable

#: Seconds to wait for missing events after the measurement.
PATIENCE = 45.0
POLL_INTERVAL = 30.0
TICK = 0.01

#: Seconds for which a job exists before it is followed.
HEAD_START = 0.02


async def ours(url: str, name: str, started: float) -> None:
    """Follow a job with this provider's trigger."""
    from airflow_provider_rayjobs.triggers import RayJobTrigger

    trigger = RayJobTrigger(
        ray_conn_id="bench", submission_id=name, submitted_at=started, poll_interval=POLL_INTERVAL, stream_logs=False
    )
    async for _ in trigger.run():
        return


async def naive(url: str, name: str, started: float, share: float = 0.047) -> None:
    """
    Follow a job with its own aiohttp session, at the intervals of this provider.

    :param share: delay between two requests, as a share of the job's age.
    """
    import aiohttp

    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{url}/api/jobs/{name}") as answer:
                status = (await answer.json())["status"]
            if status in ("SUCCEEDED", "FAILED", "STOPPED"):
                return
            age = time.time() - started
            longest = min(max(1.35, share * age), POLL_INTERVAL)
            await asyncio.sleep(longest * (0.9 + 0.1 * random.random()))  # noqa: S311 - no secret


async def astro(url: str, name: str, started: float) -> None:
    """Follow a job with the trigger of astro-provider-ray."""
    from ray_provider.triggers import RayJobTrigger

    trigger = RayJobTrigger(
        job_id=name, conn_id="bench_astro", xcom_dashboard_url=url, ray_cluster_yaml=None, gpu_device_plugin_yaml="",
        poll_interval=2, fetch_logs=False,  # fixed, so about the mean of the others
    )  # fmt: skip
    async for _ in trigger.run():
        return


#: A list shows old jobs as often as young ones; "prompt" is a naive trigger that notices their end as early.
SUBJECTS = {"ours": ours, "naive": naive, "prompt": partial(naive, share=0.0), "astro": astro}


class Clock:
    """Lags of the event loop, and delays and errors of the jobs, while jobs are followed."""

    def __init__(self) -> None:
        self.lags: list[float] = []
        self.delays: dict[str, float] = {}
        self.errors: dict[str, str] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def tick(self) -> None:
        """Measure how late a short sleep ends."""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK)
            self.lags.append(time.perf_counter() - began - TICK)


async def follow(subject: str, url: str, times: Timetable, name: str, clock: Clock) -> None:
    """Follow one job once it exists, and record the delay until its end is noticed."""
    await asyncio.sleep(max(times.start[name], times.begin) + HEAD_START - time.time())
    try:
        await SUBJECTS[subject](url, name, times.start[name])
    except Exception as e:  # noqa: BLE001
        clock.errors[name] = repr(e)[:200]
    else:
        delay = time.time() - times.end[name]
        if delay < 0:
            clock.errors[name] = f"an end was reported {-delay:.2f} s too early"
        else:
            clock.delays[name] = delay


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Follow all jobs; return the figures."""
    times, clock = Timetable(args.jobs, args.begin, args.ends or args.seconds, args.age), Clock()
    if args.subject == "ours":  # imports what Airflow needs for the first connection of a process
        from airflow_provider_rayjobs.tasks.shared_pollers import cluster_of

        await cluster_of("bench")
    await asyncio.sleep(max(args.begin - 0.5 - time.time(), 0.0))
    ticking = asyncio.create_task(clock.tick())
    cpu, began = time.process_time(), time.monotonic()
    clock.tasks = [asyncio.create_task(follow(args.subject, args.url, times, name, clock)) for name in times.names()]
    await asyncio.sleep(0.5 + args.seconds)
    cpu, lasted, lags = time.process_time() - cpu, time.monotonic() - began, sorted(clock.lags)
    ticking.cancel()
    asked = await asyncio.to_thread(common.asked, args.url) if not args.ends else {}
    ended = times.ended_by(args.begin + args.seconds)
    waited = time.monotonic() + PATIENCE
    while time.monotonic() < waited and not all(name in clock.delays for name in ended):  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    late = sum(clock.delays.get(name, PATIENCE) > allowed(times, name) for name in ended)
    delays = sorted(clock.delays.get(name, PATIENCE) for name in ended) or [float("nan")]
    return {
        "asked": asked,
        "ended": len(ended),
        "told": sum(name in clock.delays for name in ended),
        "errors": sorted(set(clock.errors.values()))[:3],
        "lag_p50_ms": statistics.median(lags) * 1000,
        "lag_p99_ms": lags[int(len(lags) * 0.99)] * 1000,
        "lag_max_ms": lags[-1] * 1000,
        "cpu": cpu / lasted,
        "delay_p50_s": statistics.median(delays),
        "delay_p95_s": delays[int(len(delays) * 0.95)],
        "late_share": late / max(len(ended), 1),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def allowed(times: Timetable, name: str) -> float:
    """Return the seconds within which a job's end should be noticed."""
    return min(max(1.5, 0.05 * (times.end[name] - times.start[name])), POLL_INTERVAL + 1)


def main() -> None:
    """Print the figures as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--begin", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--age", type=float, default=0.0)
    parser.add_argument(
        "--ends", type=float, help="seconds in which half of the jobs end, if not --seconds; for a real head"
    )
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)  # Airflow's logging is not measured
    os.environ["AIRFLOW_CONN_BENCH"] = json.dumps({"conn_type": "ray_jobs", "host": args.url})
    os.environ["AIRFLOW_CONN_BENCH_ASTRO"] = json.dumps({"conn_type": "ray", "extra": {"address": args.url}})
    if args.subject == "ours":
        import airflow_provider_rayjobs.triggers  # noqa: F401
    if args.subject == "astro":
        import ray_provider.triggers  # noqa: F401
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    result = asyncio.run(measure(args))
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    sys.stdout.flush()
    os._exit(0)  # hanging threads of a subject must not block the benchmark


if __name__ == "__main__":
    main()

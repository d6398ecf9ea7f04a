"""
Follows many jobs with a secret of its own each in one process, and shows what it costs at the start and at the end.

    python benchmarks/secrets_of_jobs.py             10,000 jobs of each kind
    python benchmarks/secrets_of_jobs.py --quick     fewer jobs, to check that it works

A scripted head (`head`) replaces Ray. Each job has ended; its message and its log tell its secret. "Own" is a secret
for each job, "same" one for all. "Registered" is what a trigger does that hands each secret to Airflow's masker.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import common
from head import secret_of

#: Jobs that are followed at the same time, and the share of the jobs that counts as the start, and as the end.
AT_ONCE = 50
SHARE = 0.1

#: Jobs of "registered": each takes longer than the one before.
MOST_REGISTERED = 2000

HEADERS = "secrets|jobs|CPU ms a job, first|last|÷|event after s p50, first|last|MB, first|last|masked by Airflow"


class Sink:
    """A logger that masks as Airflow's does, and counts the lines that show a secret."""

    leaks = 0
    lines = 0

    def __init__(self, secret: str) -> None:
        self.secret = secret

    def info(self, text: str, *args: object) -> None:
        """Take a line."""
        from airflow.providers.common.compat.sdk import redact

        line = str(redact(text % args if args else text))
        Sink.lines += 1
        Sink.leaks += self.secret in line

    debug = warning = error = info


def memory() -> float:
    """Return the resident memory of this process, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


async def follow(name: str, *, register: bool) -> float:
    """Follow one job; return the seconds from the trigger's start to its event."""
    from airflow.sdk.log import mask_secret

    from airflow_provider_rayjobs.triggers import RayJobTrigger

    secret = secret_of(name)
    assert secret  # noqa: S101
    if register:
        mask_secret(secret)
    began = time.monotonic()
    trigger: Any = RayJobTrigger(ray_conn_id="bench", submission_id=name, submitted_at=time.time())
    trigger._log = Sink(secret)
    async for event in trigger.run():
        told = json.dumps(event.payload)
        if event.payload["outcome"] != "succeeded" or "***" not in told:
            sys.exit(f"{name}: {told}")
        Sink.leaks += secret in told
        break
    return time.monotonic() - began


async def measure(kind: str, jobs: int) -> dict[str, Any]:
    """Follow the jobs; return the figures."""
    from airflow.sdk._shared.secrets_masker import _secrets_masker

    register, prefix = kind == "registered", "same" if kind == "same" else "own"
    slots, part = asyncio.Semaphore(AT_ONCE), max(int(jobs * SHARE), 1)
    delays: list[float] = []
    marks: list[tuple[float, float]] = []  # CPU seconds and MB after each share

    async def one(number: int) -> None:
        async with slots:
            delays.append(await follow(f"{prefix}-{number}", register=register))
        if len(delays) % part == 0:
            marks.append((time.process_time(), memory()))

    # What a process does once.
    await asyncio.gather(*(follow(f"same-{number}", register=False) for number in range(AT_ONCE)))
    began = time.process_time()
    async with asyncio.TaskGroup() as group:
        for number in range(jobs):
            group.create_task(one(number))
    first, last = delays[:part], delays[-part:]
    return {
        "jobs": jobs,
        "cpu_first_ms": (marks[0][0] - began) / part * 1000,
        "cpu_last_ms": (marks[-1][0] - marks[-2][0]) / part * 1000,
        "delay_first_s": sorted(first)[part // 2],
        "delay_last_s": sorted(last)[part // 2],
        "memory_first_mb": marks[0][1],
        "memory_last_mb": marks[-1][1],
        "masked": len(_secrets_masker().patterns),
        "leaks": Sink.leaks,
        "lines": Sink.lines,
    }


def run(kind: str, jobs: int) -> dict[str, Any]:
    """Follow the jobs of one kind in a new process."""
    with common.scripted_head() as url:
        command = [common.python("airflow-3.3"), __file__, "--kind", kind, "--jobs", str(jobs), "--url", url]
        result: dict[str, Any] = common.run_json(
            command, AIRFLOW_HOME=str(common.scratch()), PYTHONPATH=str(common.ROOT)
        )
    return result


def main() -> None:
    """Run all kinds in turn, or follow the jobs of one kind."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--kind", choices=("own", "same", "registered"))
    parser.add_argument("--url")
    args = parser.parse_args()
    if args.url:
        os.environ["AIRFLOW_CONN_BENCH"] = json.dumps({"conn_type": "ray_jobs", "host": args.url})
        print(json.dumps(asyncio.run(measure(args.kind, args.jobs))), flush=True)
        os._exit(0)
    jobs = 500 if args.quick else args.jobs
    rows, figures = [], []
    for kind in [args.kind] if args.kind else ["own", "same", "registered"]:
        result = common.locked(run, kind, min(jobs, MOST_REGISTERED) if kind == "registered" else jobs)
        if result["leaks"]:
            sys.exit(f"{result['leaks']} of {result['lines']} lines and events show a secret")
        figures.append({"kind": kind, **result})
        rows.append(
            [
                kind,
                f"{result['jobs']:,}",
                result["cpu_first_ms"],
                result["cpu_last_ms"],
                result["cpu_last_ms"] / result["cpu_first_ms"],
                *(result[key] for key in ("delay_first_s", "delay_last_s", "memory_first_mb", "memory_last_mb")),
                result["masked"],
            ]
        )
    common.report("secrets_of_jobs", "Jobs with secrets of their own", common.table(HEADERS.split("|"), rows), figures)


if __name__ == "__main__":
    main()

"""
Measures on a real Ray head how long after the end of a job that prints a million lines the task log's file has them.

    PYTHONPATH=. .envs/airflow-3.3/bin/python benchmarks/million_lines.py [--quick]

Compared with Ray's own client, ``ray job logs --follow``, into a file. Run by `log_stream`. Needs Ray in a separate
environment (RAYJOBS_RAY_BIN, or `make envs`). Prints the figures as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import common
import log_readers
import task_log

if TYPE_CHECKING:
    from tests.support.ray_head import RayHead

RUNS = 3
LINES = 1_000_000

#: 100 characters a line, as fast as Python prints.
JOB = "for number in range({}): print('line', number, 'x' * (93 - len(str(number))))"


def submit(head: RayHead, number: int) -> str:
    """Submit the job; return its id."""
    return head.submit(f'env PYTHONUNBUFFERED= python -c "{JOB.format(number)}"')


def lines_of(path: Path, *, is_task_log: bool) -> list[str]:
    """Return the job's lines in a file."""
    text = path.read_text()
    if is_task_log:
        text = "\n".join(json.loads(record)["event"] for record in text.splitlines())
    return [line for line in text.split("\n") if line.startswith("line ")]


def ours(head: RayHead, submission_id: str, path: Path) -> dict[str, float]:
    """Follow the job as the operator does, into the file of a task log."""
    return task_log.run_logged(lambda log: asyncio.run(log_readers.ours(head.url, submission_id, log)), path)


def ray(head: RayHead, submission_id: str, path: Path) -> dict[str, float]:
    """Follow the job with Ray's own client."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [str(head.ray_bin), "job", "logs", "--follow", "--address", head.url, submission_id]
    with path.open("wb") as file:
        subprocess.run(
            command, check=True, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **head.client_environment}
        )
    complete, after = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"complete": complete, "reader_cpu_s": cpu, "supervisor_cpu_s": 0.0}


def measure(head: RayHead, subject: str, number: int) -> dict[str, Any]:
    """Run a job and follow it; check that no line is missing or twice."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        submission_id = submit(head, number)
        result: dict[str, Any] = dict({"ours": ours, "ray": ray}[subject](head, submission_id, path))
        job = head.job(submission_id)
        assert job is not None  # noqa: S101
        found = lines_of(path, is_task_log=subject == "ours")
        result["whole"] = [line.split()[1] for line in found] == [str(n) for n in range(number)]
        result["job_s"] = (job["end_time"] - job["start_time"]) / 1000
        result["after_end_s"] = result["complete"] - job["end_time"] / 1000
        result["total_s"] = result["complete"] - job["start_time"] / 1000
    return result


def main() -> None:
    """Run both in turn, several times."""
    from tests.support.ray_head import RayHead

    quick = "--quick" in sys.argv
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "ray": []}
    with RayHead() as head:
        for _ in range(1 if quick else RUNS):
            for subject, results in runs.items():
                results.append(common.locked(measure, head, subject, LINES // 10 if quick else LINES))
    sys.stdout.write("\n" + json.dumps(runs) + "\n")


if __name__ == "__main__":
    main()

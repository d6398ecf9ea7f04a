"""
Measures throughput and peak memory of the log follower, into a task log's file; compared with a bare WebSocket.

A scripted head sends the log as Ray does, in messages of 20,000 characters, with 100 characters a line. Reader and
supervisor are two processes, as in Airflow 3.3 (`task_log`). The time is that until the file has the last line; memory
is the reader's peak minus its memory at the start. Then `million_lines` does the same on a real Ray head.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import common

RUNS = 3

#: Characters of the log. A record for each line takes Airflow so long that a tenth has to do.
SIZES = {"ours": 10**9, "lines": 10**7, "bare": 10**9}


def run(subject: str, size: int) -> dict[str, Any]:
    """Read one log in a new process."""
    with common.scripted_head(log_bytes=size) as url, TemporaryDirectory() as folder:
        program = [common.python("bench-ours"), str(common.HERE / "log_readers.py"), subject]
        result: dict[str, Any] = common.run_json(
            [*program, "--url", url, "--file", str(Path(folder) / "task.log")], PYTHONPATH=str(common.ROOT)
        )
    return result


def throughput(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Return the table of the logs from the scripted head."""
    bare, plain = (common.median(runs[subject], "mb_per_cpu_s") for subject in ("bare", "lines"))
    rows = []
    labels = {
        "ours": "log follower",
        "lines": "bare WebSocket, a record for each line",
        "bare": "bare WebSocket, a record for each message",
    }
    for subject, label in labels.items():
        results = runs[subject]
        speed, wall = common.median(results, "mb_per_cpu_s"), common.median(results, "mb_per_s")
        size = common.median(results, "characters")
        rows.append(
            [
                label, size / 1e9, size / 100 / common.median(results, "records"), wall, speed, speed / plain,
                speed / bare, f"±{common.spread(results, 'mb_per_cpu_s'):.0%}", common.median(results, "memory_mb"),
            ]
        )  # fmt: skip
    headers = (
        *("who", "GB", "lines per record", "MB/s", "MB per CPU s", "÷ line by line", "÷ bare", "noise"),
        "peak MB over the start",
    )
    return common.table(headers, rows)


def million(runs: dict[str, list[dict[str, Any]]]) -> str:
    """Return the table of the logs from a real head."""
    rows = []
    for subject, label in {"ours": "task log", "ray": "ray job logs --follow"}.items():
        results = runs[subject]
        total, rays = (common.median(runs[one], "total_s") for one in (subject, "ray"))
        cpu = common.median(results, "reader_cpu_s") + common.median(results, "supervisor_cpu_s")
        whole = sum(row["whole"] for row in results)
        rows.append(
            [
                label, common.median(results, "job_s"), common.median(results, "after_end_s"), total, total / rays,
                f"±{common.spread(results, 'total_s'):.0%}", cpu, f"{whole} of {len(results)}",
            ]
        )  # fmt: skip
    headers = ("who", "job s", "after its end s", "total s", "÷ Ray's client", "noise", "CPU s", "whole logs")
    return common.table(headers, rows)


def main() -> None:
    """Run the subjects in turn, several times, and print the medians."""
    quick = "--quick" in sys.argv
    runs: dict[str, list[dict[str, Any]]] = {subject: [] for subject in SIZES}
    for _ in range(1 if quick else RUNS):
        for subject, results in runs.items():
            results.append(common.locked(run, subject, SIZES[subject] // (10 if quick else 1)))
    program = [common.python("airflow-3.3"), str(common.HERE / "million_lines.py")]
    real = common.run_json([*program, *(["--quick"] if quick else [])], PYTHONPATH=str(common.ROOT))
    text = f"{throughput(runs)}\n\nA million lines of a job on a real Ray head:\n\n{million(real)}"
    common.report("log_stream", "1 GB of log", text, {"runs": runs, "million": real})


if __name__ == "__main__":
    main()

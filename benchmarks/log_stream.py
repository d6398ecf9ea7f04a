"""
Measures throughput and peak memory of the operator's log follower on 1 GB of log, compared with a bare WebSocket.

A scripted head sends the log as Ray does, in messages of 20,000 characters, with 100 characters a line. The time is
that until the last line is written; memory is the peak minus the memory at the start.
"""

from __future__ import annotations

import sys
from typing import Any

import common

RUNS = 3


def run(subject: str, size: int) -> dict[str, Any]:
    """Read one log in a new process."""
    with common.scripted_head(log_bytes=size) as url:
        result: dict[str, Any] = common.run_json(
            [
                common.python("bench-ours"),
                str(common.HERE / "log_readers.py"),
                subject,
                "--url",
                url,
                "--characters",
                str(size),
            ],
            PYTHONPATH=str(common.ROOT),
        )
    return result


def main() -> None:
    """Run the subjects in turn, several times, and print the medians."""
    quick = "--quick" in sys.argv
    size = 10**8 if quick else 10**9
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "lines": [], "bare": []}
    for _ in range(1 if quick else RUNS):
        for subject, results in runs.items():
            results.append(common.locked(run, subject, size))
    bare, plain = (common.median(runs[subject], "mb_per_cpu_s") for subject in ("bare", "lines"))
    rows = []
    labels = {
        "ours": "log follower, each line to the log",
        "lines": "bare WebSocket, each line to the log",
        "bare": "bare WebSocket, messages dropped",
    }
    for subject, label in labels.items():
        results = runs[subject]
        speed, wall = common.median(results, "mb_per_cpu_s"), common.median(results, "mb_per_s")
        rows.append(
            [
                label, common.median(results, "characters") / 1e9, wall, speed, speed / plain, speed / bare,
                f"±{common.spread(results, 'mb_per_cpu_s'):.0%}", common.median(results, "memory_mb"),
            ]
        )  # fmt: skip
    headers = ("who", "GB", "MB/s", "MB per CPU s", "÷ bare with lines", "÷ bare", "noise", "peak MB over the start")
    common.report("log_stream", "1 GB of log", common.table(headers, rows), {"runs": runs})


if __name__ == "__main__":
    main()

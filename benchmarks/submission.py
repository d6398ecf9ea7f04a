"""
Measures the time from the operator's start to the accepted job: this provider, plain requests, and Ray's SDK.

In a fresh process, as for every Airflow task, the imports are included; in a warm one they are not. The scripted head
always answers a submission after 18 ms, like an idle real one.
"""

from __future__ import annotations

import statistics
from typing import Any

import common

ENVS = {
    "ours": "bench-ours",
    "sdk": "bench-sdk",
    "ours_kept": "bench-ours",
    "bare": "bench-ours",
    "sdk_kept": "bench-sdk",
}
PROCESSES = 5
WARM = 30


def run(subject: str, url: str, number: int) -> list[float]:
    """Submit jobs in a new process."""
    env = {"PYTHONPATH": str(common.ROOT)} if subject.startswith("ours") else {}
    script = str(common.HERE / "submitters.py")
    arguments = [subject, "--url", url, "--number", str(number)]
    command = [common.python(ENVS[subject]), "-W", "ignore", script, *arguments]
    done: list[float] = common.run_json(command, AIRFLOW_HOME=str(common.scratch()), **env)
    return done


def main() -> None:
    """Run the subjects in turn, several times, and print the medians."""
    runs: dict[str, list[dict[str, Any]]] = {subject: [] for subject in ENVS}
    with common.scripted_head() as url:
        for subject in ENVS:
            run(subject, url, 1)
        for _ in range(PROCESSES):
            for subject in ENVS:
                first, *rest = common.locked(run, subject, url, 1 + WARM)
                runs[subject].append({"fresh": first, "warm": statistics.median(rest)})
    rows = []
    middle = {name: {key: common.median(runs[name], key) for key in ("fresh", "warm")} for name in runs}
    labels = {
        "ours": "RaySubmitJobOperator, as a task",
        "sdk": "Ray's SDK, as a task: a client for each submission",
        "ours_kept": "RaySubmitJobOperator, connection kept",
        "bare": "requests, connection kept: look-up + POST",
        "sdk_kept": "Ray's SDK, client kept: no look-up",
    }
    for name, label in labels.items():
        warm, fresh = middle[name]["warm"], middle[name]["fresh"]
        rows.append(
            [
                label, warm * 1000, warm / middle["bare"]["warm"], warm / middle["sdk"]["warm"],
                f"±{common.spread(runs[name], 'warm'):.0%}", fresh * 1000, fresh / middle["sdk"]["fresh"],
                f"±{common.spread(runs[name], 'fresh'):.0%}",
            ]
        )  # fmt: skip
    headers = ("who", "warm ms", "÷ requests", "÷ SDK", "noise", "fresh ms", "÷ SDK", "noise")
    common.report("submission", "Submission", common.table(headers, rows), {"median": middle, "runs": runs})


if __name__ == "__main__":
    main()

"""
Follows many deferred jobs in one event loop: with this provider's trigger, a naive one, and astro-provider-ray's.

    python benchmarks/deferred.py             all
    python benchmarks/deferred.py --quick     fewer and shorter runs, to check that it works

A scripted head (`head`) replaces Ray; `timetable` says when its jobs run. The naive trigger uses aiohttp and polls at
the same intervals as ours; "prompt" is a naive trigger that polls old jobs as often as young ones, as a list does.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import common

FIGURES = ("lag_p50_ms", "lag_p99_ms", "lag_max_ms", "cpu", "delay_p50_s", "delay_p95_s", "late_share", "memory_mb")

HEADERS = "jobs of record|who|ends|lag p50 ms|p99|max|cores|requests/s|head's share|÷ naive|delay p50 s|p95|late|noise"


class Case(NamedTuple):
    """Numbers of followed jobs and of old jobs on record, and who follows the jobs."""

    jobs: int
    old: int
    seconds: float
    subjects: tuple[str, ...] = ("ours", "naive")
    age: float = 0.0


CASES = (
    Case(0, 0, 10.0, ("ours",)),  # the lag that the machine itself causes
    Case(1, 0, 15.0, ("ours", "naive", "astro"), age=5.0),
    Case(100, 10, 20.0, ("ours", "naive", "prompt", "astro")),
    Case(1000, 100, 40.0, ("ours", "naive", "prompt", "astro")),
    Case(1000, 100, 40.0, age=20.0),
    Case(1000, 100_000, 40.0),
    Case(5000, 500, 40.0, ("ours", "naive", "prompt")),
)

ENVS = {"ours": "bench-ours", "naive": "bench-ours", "prompt": "bench-ours", "astro": "bench-astro"}


def run(case: Case, subject: str) -> dict[str, Any]:
    """Follow the jobs of a case once."""
    begin = time.time() + 8  # seconds for imports
    load = common.machine()["load_average"]
    with common.scripted_head(jobs=case.jobs, old=case.old, begin=begin, seconds=case.seconds, age=case.age) as url:
        options = {"url": url, "jobs": case.jobs, "begin": begin, "seconds": case.seconds, "age": case.age}
        arguments = [f"--{name}={value}" for name, value in options.items()]
        result: dict[str, Any] = common.run_json(
            [common.python(ENVS[subject]), str(common.HERE / "followers.py"), subject, *arguments],
            AIRFLOW_HOME=str(common.scratch()),
            **({"PYTHONPATH": str(common.ROOT)} if subject == "ours" else {}),
        )
    asked = result.pop("asked")
    result.update(asked=asked["number"], head_s=asked["cost"], head=asked["cost"] / case.seconds, load_average=load)
    result["requests_per_s"] = sum(asked["number"].values()) / case.seconds
    return result


def main() -> None:
    """Run all cases, each with its subjects in turn, and print the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of cases")
    parser.add_argument("--subjects", nargs="*")
    args = parser.parse_args()
    times = 1 if args.quick else args.runs
    cases = [case for number, case in enumerate(CASES) if args.only is None or number in args.only]
    if args.quick:
        cases = [case._replace(seconds=20.0) for case in cases]
    rows, figures = [], []
    for case in cases:
        runs: dict[str, list[dict[str, Any]]] = {}
        for _ in range(times):
            for subject in case.subjects:
                if not args.subjects or subject in args.subjects:
                    runs.setdefault(subject, []).append(common.locked(run, case, subject))
        for subject, results in runs.items():
            middle = {key: common.median(results, key) for key in (*FIGURES, "head", "requests_per_s", "told")}
            naive = common.median(runs["naive"], "head") if "naive" in runs else float("nan")
            rows.append(
                [
                    f"{case.jobs} of {case.jobs + case.old}{', one age' if case.age and case.jobs > 1 else ''}",
                    subject,
                    f"{middle['told']:.0f}",
                    *(middle[key] for key in ("lag_p50_ms", "lag_p99_ms", "lag_max_ms", "cpu", "requests_per_s")),
                    middle["head"],
                    middle["head"] / naive,
                    *(middle[key] for key in ("delay_p50_s", "delay_p95_s", "late_share")),
                    f"±{common.spread(results, 'head'):.0%}",
                ]
            )
            figures.append({"case": case._asdict(), "subject": subject, "median": middle, "runs": results})
        # After each case, so that an interrupted run keeps its results.
        common.report("deferred", "Deferred jobs in one event loop", common.table(HEADERS.split("|"), rows), figures)


if __name__ == "__main__":
    main()

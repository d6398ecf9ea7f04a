"""
Run all benchmarks, then write docs/benchmarks.md and its plot from their results.

    python benchmarks/run.py [--quick]     all
    python benchmarks/run.py --report      only write the document anew
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any
from xml.sax.saxutils import escape

import common

sys.path.append(str(common.ROOT / "tools"))
import environment

#: Of the caller's settings these count, beside what every program gets.
KEPT = ("BENCH_LOCK", "RAYJOBS_RAY_BIN")

SCRIPTS = ("imports", "submission", "log_stream", "deferred", "real_head", "packing", "hostile")
#: These use the servers of the tests, so they run in the environment of the tests.
IN_THE_TESTS_ENVIRONMENT = {"real_head", "packing", "hostile"}
DOCS = common.ROOT / "docs"

INTRODUCTION = """# Benchmarks

`make benchmarks` measures what is listed here, on the machine on which it runs, and writes this page anew, with the
figures. Each comparison is made side by side in one run; what counts are the ratios. "Noise" is half the range of the
runs, as a share of the median. The load averages say what else the machine had to do, which stretches wall times and
the event loop's lag: compare rows, not pages.

- `imports`: what importing a provider costs a DAG file, and what its installation weighs; beside `astro-provider-ray`,
  the Google provider and Ray's own client.
- `submission`: from the operator's start to the accepted job, in a fresh process and in a warm one; beside `requests`
  alone and Ray's own client.
- `log_stream`: following 1 GB of a job's log, throughput and peak memory; beside the bare WebSocket.
- `deferred`: many deferred jobs in one event loop, the head's share, the loop's lag, and how late an end is told;
  beside a naive trigger with `aiohttp` and `astro-provider-ray`.
- `real_head`: 50 jobs on a real Ray head, its CPU time, and how late the end of a job is told.
- `packing`: packing and uploading a `working_dir`; beside Ray's own client.
- `hostile`: following a job of a cluster that gives hostile answers, beside a job of a good cluster in the same event
  loop; beside two good clusters.

A scripted Ray head (`benchmarks/head.py`) stands for a real one where hundreds of jobs are needed. It charges each
request what it was measured to cost a head of Ray 2.60 on 2 cores (1.7 ms for `GET /api/jobs/{id}`, 0.32 ms for each
job on record for the list, 18 ms for a submission) and answers one after the other. "Head's share" is that cost per
second.
"""

NOTES = {
    "imports": "Every environment has Airflow 3.3.2; what comes on top of `BashOperator` and of bare Airflow is shown.",
    "submission": "In a fresh process imports count, as in every Airflow task.",
    "log_stream": "Ratios are of MB per CPU second, which other work on the machine does not change.",
    "deferred": "So many jobs run at any time: each runs 10 to 600 s, and when one ends, another begins. Of one age: "
    "all began 20 s before, half of them end, and none begins. The naive trigger has an aiohttp session for each job "
    'and asks at the same intervals; "prompt" is one that asks for old jobs as often as for young ones, and so tells '
    'of an end as early as a list does. "Late" is the share of jobs whose end was told later than the larger of 1.5 s '
    "and 5 % of its run time.",
    "real_head": "The first table's jobs sleep; all follow the same ones, in turn, as if they were a minute old. "
    '"Late" is as above, with 5 s more where the log is streamed.',
    "packing": '"Again" is the second time, when the cluster has the package. Ray\'s client refuses more than 100 MiB, '
    "measured before compression.",
    "hostile": "Each case in a process of its own, three times; the most memory and the shortest of the three longest "
    "pauses count, because other work on the machine makes pauses too. The good job must be told of as in the first "
    "row. What the process has loaded is kept out of Python's garbage collections (`gc.freeze`): one of all that "
    "Airflow loads takes 0.1 s here, whoever makes the garbage.",
}


def plot(figures: list[dict[str, Any]]) -> str:
    """Draw the head's share in the cases of `deferred`, as SVG."""
    bars = [
        (
            f"{row['case']['jobs']:,} followed of {row['case']['jobs'] + row['case']['old']:,}: {row['subject']}",
            row["median"]["head"],
            {"ours": "#2a7de1", "naive": "#b0b0b0", "prompt": "#707070", "astro": "#e0903a"}[row["subject"]],
        )
        for row in figures
    ]
    most = max((share for _, share, _ in bars), default=1.0) or 1.0
    height = 22 * len(bars) + 50
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="760" height="{height}" fill="white"/>',
        '<text x="10" y="22" font-size="14">Share of the Ray head\'s time that following jobs takes</text>',
    ]
    for index, (label, share, colour) in enumerate(bars):
        y = 40 + 22 * index
        lines += [
            f'<text x="300" y="{y + 12}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="310" y="{y}" width="{360 * share / most:.1f}" height="16" fill="{colour}"/>',
            f'<text x="{316 + 360 * share / most:.1f}" y="{y + 12}">{share:.3f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def write() -> None:
    """Write the document from the results that are there."""
    DOCS.mkdir(exist_ok=True)
    parts = [INTRODUCTION]
    for name in SCRIPTS:
        path = common.RESULTS / f"{name}.json"
        if not path.exists():
            continue
        kept = json.loads(path.read_text())
        machine = kept["machine"]
        where = f"{machine['cores']} cores ({machine['cpu']}), Python {machine['python']}"
        parts.append(f"## {kept['title']}\n\n{NOTES[name]}\n\n{kept['table']}\n")
        if name == "deferred":
            (DOCS / "benchmarks-head.svg").write_text(plot(kept["figures"]))
            parts.append("![Share of the head's time](benchmarks-head.svg)\n")
        parts.append(f"{machine['date']}, {where}, load average at the end {machine['load_average']}.\n")
    (DOCS / "benchmarks.md").write_text("\n".join(parts))


def main() -> None:
    """Do what the module's docstring says."""
    environment.use(environment.for_programs() | {name: os.environ[name] for name in KEPT if name in os.environ})
    options = sys.argv[1:]
    if "--report" not in options:
        for name in SCRIPTS:
            python = common.python("airflow-3.3") if name in IN_THE_TESTS_ENVIRONMENT else sys.executable
            env = {**os.environ, "PYTHONPATH": str(common.ROOT)} if name in IN_THE_TESTS_ENVIRONMENT else None
            subprocess.run([python, str(common.HERE / f"{name}.py"), *options], check=True, env=env)
    write()


if __name__ == "__main__":
    main()

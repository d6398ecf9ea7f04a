"""
Runs all benchmarks, then writes docs/benchmarks.md and its plot from their results.

    python benchmarks/run.py [--quick]     all
    python benchmarks/run.py --report      only write the document
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

#: Environment variables of the caller that are kept, beside those that every program gets.
KEPT = ("BENCH_LOCK", "RAYJOBS_RAY_BIN")

SCRIPTS = (
    "imports",
    "submission",
    "log_stream",
    "deferred",
    "real_head",
    "diagnosis",
    "packing",
    "hostile",
    "secrets_of_jobs",
)
#: These use servers of the test suite, so they run in its environment.
IN_THE_TESTS_ENVIRONMENT = {"real_head", "diagnosis", "packing", "hostile", "secrets_of_jobs"}
DOCS = common.ROOT / "docs"

INTRODUCTION = """# Benchmarks

`make benchmarks` runs the benchmarks that are listed here, and rewrites this page with the figures of the machine on
which it runs. The two sides of a comparison are measured in turn in the same run, so rely on the ratios. "Noise" is
half the range of the runs, as a share of the median. Other load on the machine stretches wall times and the event
loop's lag; see the load averages. So compare rows of one page, not pages.

- `imports`: the cost of importing a provider in a DAG file, and its installed size; compared with `astro-provider-ray`,
  the Google provider and Ray's own client.
- `submission`: the time from the operator's start to the accepted job, in a fresh process and in a warm one; compared
  with plain `requests` and Ray's own client.
- `log_stream`: throughput and peak memory when following 1 GB of a job's log into the task log's file; compared with a
  bare WebSocket. A million lines on a real Ray head; compared with Ray's own client.
- `deferred`: many deferred jobs in one event loop: the head's share, the loop's lag, and the delay until the end of a
  job is noticed; compared with a naive trigger with `aiohttp` and with `astro-provider-ray`.
- `real_head`: 50 jobs on a real Ray head: its CPU time, and the delay until the end of a job is noticed.
- `diagnosis`: on a real Ray head: what it costs to log how far a job of 10,000 tasks is, and to read the last lines of
  a log of 300 MB.
- `packing`: packing and uploading a `working_dir`; compared with Ray's own client.
- `hostile`: following a job of a cluster with hostile answers and a job of a good cluster in the same event loop;
  compared with two good clusters.
- `secrets_of_jobs`: 10,000 jobs in one process, each with a secret of its own: CPU time, delay and memory at the start
  and at the end; compared with a secret that all jobs have in common.

Where hundreds of jobs are needed, a scripted Ray head (`benchmarks/head.py`) replaces a real one. Each request takes it
as long as was measured on a head of Ray 2.60 on 2 cores (1.7 ms for `GET /api/jobs/{id}`, 0.32 ms for each job on
record for the list, 18 ms for a submission), and it answers one request at a time. "Head's share" is the time that
the requests cost the head, per second; above 1, requests queue up.
"""

NOTES = {
    "imports": "Every environment has Airflow 3.3.2, modules are compiled. Figures are what a process needs after the "
    "import of `BashOperator`, and the size beside bare Airflow.",
    "submission": "In a fresh process, as in every Airflow task, the imports are included.",
    "log_stream": "Ratios of the first table are of MB per CPU second, which other load on the machine does not "
    "change. The CPU is that of the task and of its supervisor, which writes the file. A record of ours has at most "
    "16,000 characters, one of the bare WebSocket 20,000.",
    "deferred": "The first number is that of jobs that run at any time: each runs 10 to 600 s, and when one ends, "
    'another begins. "One age": all began 20 s before, half of them end, and none begins. The naive trigger has an '
    'aiohttp session for each job and polls at the same intervals; "prompt" is a naive trigger that polls old jobs as '
    'often as young ones, so it notices an end as early as a list does. "Late" is the share of jobs whose end was '
    "noticed later than the larger of 1.5 s and 5 % of the run time.",
    "real_head": "The jobs of the first table sleep; each follower in turn follows the same jobs, as if they were a "
    'minute old. "Late" is as above, with 5 s more if the log is streamed.',
    "diagnosis": "Ray keeps all 10,000 tasks on record. The counts take at most 2 % of the time, so for such a job "
    'there is one about every 90 s. "Ours" is all that the task does between its job\'s end and its own.',
    "packing": '"Again" is the second time, when the cluster has the package. Ray\'s client refuses more than 100 MiB, '
    "measured before compression.",
    "secrets_of_jobs": "First and last are the first and the last tenth of the jobs; 50 are followed at a time. "
    "The jobs have ended; their message and their log tell the secret, which no line and no event may show. "
    "\"Registered\" is a trigger that hands each secret to Airflow's masker; a triggerer's supervisor gets each, too.",
    "hostile": "Each case runs three times, each time in a new process. The table has the largest memory and the "
    "shortest of the three longest pauses, because other load on the machine causes pauses, too. The good job must end "
    "as in the first row. Modules that the process has loaded are excluded from Python's garbage collection "
    "(`gc.freeze`): collecting all that Airflow loads takes 0.1 s here, whichever code makes the garbage.",
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
    """Write the document from the results that exist."""
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
    """Run the benchmarks and write the document."""
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

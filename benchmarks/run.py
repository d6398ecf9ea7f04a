"""
Runs all benchmarks, then writes docs/benchmarks.md and its plot from their results.

    python benchmarks/run.py [--quick]                    all
    python benchmarks/run.py --only triggerer task_life   some; the document keeps the figures of the others
    python benchmarks/run.py --report                     only write the document
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

import common

sys.path.append(str(common.ROOT / "tools"))
import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Environment variables of the caller that are kept, beside those that every program gets.
KEPT = ("BENCH_LOCK", "RAYJOBS_RAY_BIN")

SCRIPTS = (
    *("imports", "submission", "log_stream", "deferred", "triggerer", "task_life"),
    *("real_head", "old_jobs", "prune", "diagnosis", "packing", "hostile", "secrets_of_jobs"),
)
#: These use servers of the test suite, so they run in its environment.
IN_THE_TESTS_ENVIRONMENT = {
    *("triggerer", "task_life", "real_head", "old_jobs", "prune", "diagnosis", "packing", "hostile"),
    "secrets_of_jobs",
}
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
- `triggerer`: up to 1,000 deferred jobs in a real triggerer with PostgreSQL: half of them end at once, hundreds are
  killed, and for ten minutes 10,000 jobs with secrets come and go; compared with Airflow's `DateTimeTrigger`, which
  asks nobody (the floor), and with a naive trigger with `aiohttp`.
- `task_life`: on a real Ray head and a complete Airflow: how long a task with a short job takes, and how long after its
  job's end it ends; compared with a `BashOperator` and with a task that defers to a `DateTimeTrigger`.
- `real_head`: 50 jobs on a real Ray head: its CPU time, and the delay until the end of a job is noticed.
- `old_jobs`: on a real Ray head with 100,000 old jobs on record: what the requests cost that tell which jobs still run.
- `prune`: on a real Ray head: what deleting 2,000 old records costs it, and how long another client waits meanwhile.
- `diagnosis`: on a real Ray head: what it costs to log how far a job of 10,000 tasks is, and to read the last lines of
  a log of 300 MB.
- `packing`: packing and uploading a `working_dir`; compared with Ray's own client.
- `hostile`: following a job of a cluster with hostile answers and a job of a good cluster in the same event loop;
  compared with two good clusters.
- `secrets_of_jobs`: 10,000 jobs in one process, each with a secret of its own: CPU time, delay and memory at the start
  and at the end; compared with a secret that all jobs have in common.

Where hundreds of jobs are needed, a scripted Ray head (`benchmarks/head.py`, `benchmarks/job_server.py`) replaces a
real one. Each request takes it as long as was measured on a head of Ray 2.60 on 2 cores (1.7 ms for
`GET /api/jobs/{id}`, 0.32 ms for each job on record for the list, 0.1 ms for each live actor, 18 ms for a submission),
and it answers one request at a time. "Head's share" is the time that the requests cost the head, per second; above 1,
requests queue up.
"""

TRIGGERER = """\
The floor is Airflow's DateTimeTrigger, which knows the end beforehand. The naive trigger has an aiohttp session for
each job, reads the connection, requests the job's status every 2 s, and stops the job if its task is killed. "Ours"
does not show the job's log, "ours, logs" does. Each of them has a triggerer of its own. Airflow
itself looks for events once a second, and writes them into the database one after the other.

In the first table, some of the deferred jobs end at the same moment. "p50" and "p95" are the seconds from a job's end
until its event is in the database. Cores, memory (of the triggerer's two processes) and the head's share are those of
the seconds before. "Pause" is the longest time for which Airflow found the event loop blocked; it notes 0.2 s and more.
"Whole logs" are the task logs that have the job's last line. Then the DAG run is marked failed with the REST API, while
the other tasks are deferred: "all ended" is the time from that request until the last trigger has ended, as far as
that is known: Airflow loses the last lines of some triggers. "Last stop" is the time until the last job was stopped.

In the last table, 210 tasks are deferred every 10 s, with three kinds of triggers side by side in one triggerer; each
job runs for 40 to 50 s. In ten minutes, 10,000 jobs whose log is shown each print a secret of their own. The rows are
the first and the last sixth. Then the same for a minute, with one secret for all.
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
    "triggerer": TRIGGERER,
    "task_life": 'The job sleeps two seconds and prints a line. "Task" is the time from the task\'s start to its end, '
    "and \"after the job\" that from the job's end, as Ray notes it, to the task's end. The floors do the same without "
    "Ray: a BashOperator on the worker, and a task that defers until a given time.",
    "real_head": "The jobs of the first table sleep; each follower in turn follows the same jobs, as if they were a "
    'minute old. "Late" is as above, with 5 s more if the log is streamed.',
    "old_jobs": "Each job has an actor that ends with it. Ray's GCS selects actors by their state, so old jobs cost "
    "next to nothing there; the State API reads all jobs before it selects any. So beside many old jobs the provider "
    "lists the live actors, and requests only jobs whose actor is not among them. Here, actors that wait for resources "
    "stand for live ones.",
    "prune": "The records are deleted as by `RayPruneJobsOperator`, one after the other, with pauses. The head's share "
    "is that of the processes that answer requests (the dashboard's and GCS), of one core; the others are its agent, "
    "which deletes the record, and the raylet. Another client asks for one job ten times a second.",
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


COLOURS = {
    "ours": "#2a7de1", "ours, logs": "#7fb2ee", "naive": "#b0b0b0", "prompt": "#707070", "astro": "#e0903a",
    "floor": "#63b179",
}  # fmt: skip


def plot(title: str, bars: Sequence[tuple[str, float, str]]) -> str:
    """
    Draw bars as SVG.

    :param bars: label, value, and one of :data:`COLOURS`.
    """
    most = max((value for _, value, _ in bars), default=1.0) or 1.0
    height = 22 * len(bars) + 50
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="760" height="{height}" fill="white"/>',
        f'<text x="10" y="22" font-size="14">{escape(title)}</text>',
    ]
    for index, (label, value, subject) in enumerate(bars):
        y = 40 + 22 * index
        length = 360 * value / most
        lines += [
            f'<text x="300" y="{y + 12}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="310" y="{y}" width="{length:.1f}" height="16" fill="{COLOURS[subject]}"/>',
            f'<text x="{316 + length:.1f}" y="{y + 12}">{common.shown(float(value))}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def head_shares(figures: list[dict[str, Any]]) -> str:
    """Draw the head's share in the cases of `deferred`."""
    title = "Share of the Ray head's time that following jobs takes"
    cases = [(row["case"]["jobs"], row["case"]["jobs"] + row["case"]["old"], row) for row in figures]
    bars = [
        (f"{jobs:,} followed of {record:,}: {row['subject']}", row["median"]["head"], row["subject"])
        for jobs, record, row in cases
    ]
    return plot(title, bars)


def delays(figures: dict[str, list[dict[str, Any]]]) -> str:
    """Draw how late events and kills are in the cases of `triggerer`."""
    bars = [
        (f"{row['ends']:,} of {row['jobs']:,} end at once: {row['subject']}", row["p95"], row["subject"])
        for row in figures.get("bursts", ())
    ]
    bars += [
        (f"{row['jobs'] - row['ends']:,} killed at once: {row['subject']}", row["handled"], row["subject"])
        for row in figures.get("bursts", ())
        if "handled" in row
    ]
    return plot("Seconds until the event is in the database (p95), and until all killed tasks are handled", bars)


#: What is drawn of the figures of a benchmark: the file, the title, and the function.
PLOTS: dict[str, tuple[str, str, Callable[[Any], str]]] = {
    "deferred": ("benchmarks-head.svg", "Share of the head's time", head_shares),
    "triggerer": ("benchmarks-triggerer.svg", "Delays in a real triggerer", delays),
}


def section(name: str) -> tuple[str, str]:
    """Return the title and the text of a benchmark's section; write its plot."""
    kept = json.loads((common.RESULTS / f"{name}.json").read_text())
    machine = kept["machine"]
    parts = [NOTES[name].rstrip(), kept["table"]]
    if name in PLOTS:
        file, title, draw = PLOTS[name]
        (DOCS / file).write_text(draw(kept["figures"]))
        parts.append(f"![{title}]({file})")
    where = f"{machine['cores']} cores ({machine['cpu']}), Python {machine['python']}"
    parts.append(f"{machine['date']}, {where}, load average at the end {machine['load_average']}.")
    return kept["title"], "\n\n".join(parts)


def write() -> None:
    """Write the document: the results that exist, and the present sections of benchmarks without results."""
    document = DOCS / "benchmarks.md"
    old = re.split(r"^## ", document.read_text(), flags=re.MULTILINE)[1:] if document.exists() else []
    sections = {title: text.strip() for title, _, text in (part.partition("\n") for part in old)}
    sections |= dict(section(name) for name in SCRIPTS if (common.RESULTS / f"{name}.json").exists())
    document.write_text("\n".join([INTRODUCTION, *(f"## {title}\n\n{text}\n" for title, text in sections.items())]))


def main() -> None:
    """Run the benchmarks and write the document."""
    environment.use(environment.for_programs() | {name: os.environ[name] for name in KEPT if name in os.environ})
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs, to check that it works")
    parser.add_argument("--only", nargs="*", choices=SCRIPTS, default=SCRIPTS, metavar="NAME", help=", ".join(SCRIPTS))
    parser.add_argument("--report", action="store_true", help="run nothing")
    args = parser.parse_args()
    for name in () if args.report else args.only:
        in_tests = name in IN_THE_TESTS_ENVIRONMENT
        python = common.python("airflow-3.3") if in_tests else sys.executable
        env = {**os.environ, "PYTHONPATH": str(common.ROOT)} if in_tests else None
        options = ["--quick"] if args.quick else []
        subprocess.run([python, str(common.HERE / f"{name}.py"), *options], check=True, env=env)
    write()


if __name__ == "__main__":
    main()

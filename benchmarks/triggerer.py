"""
Follows many deferred jobs in a real triggerer of Airflow, with PostgreSQL, and measures what the user waits for.

    PYTHONPATH=. .envs/airflow-3.3/bin/python benchmarks/triggerer.py [--quick] [--cases bursts secrets soak]

The rows of the deferred tasks are written into the database, as Airflow's API server does when a worker defers. So no
scheduler and no worker compete for the CPUs. A scripted head (`job_server`) has the jobs, because a real one can't run
a thousand on this machine. An event is in the database at the time that Airflow writes into `scheduled_dttm`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import common
from job_server import LAST_LINE

from tests.support.airflow_env import AirflowEnv
from tests.support.airflow_records import wait
from tests.support.databases import PostgresDatabase
from tests.support.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

DAG = "bench"
DAG_FILE = f"""
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.operators import RaySubmitJobOperator

with DAG("{DAG}", schedule=None):
    RaySubmitJobOperator(task_id="job", entrypoint="true", deferrable=True)
"""

SETTINGS = {
    "AIRFLOW__TRIGGERER__CAPACITY": "5000",
    # By default it is 50 for each round of about a second, so each case would begin much later.
    "AIRFLOW__TRIGGERER__MAX_TRIGGER_TO_SELECT_PER_LOOP": "500",
}

TRIGGER_ROWS = """
WITH given AS (SELECT * FROM unnest(?::text[], ?::text[]) WITH ORDINALITY AS given(class, kwargs, number)),
stored AS (
    INSERT INTO trigger (classpath, kwargs, created_date)
    SELECT class, kwargs, now() FROM given ORDER BY number RETURNING id
),
made AS (SELECT id, row_number() OVER (ORDER BY id) - 1 AS number FROM stored)
"""

#: Seconds for which the CPU time is measured, before the first job ends.
WINDOW = 10.0

SUBJECTS = ("floor", "naive", "ours", "ours, logs")

#: Numbers of deferred jobs, and how many of them end at once. Then the tasks of the others are killed.
BURSTS = ((1, 1), (100, 50), (1000, 500))

#: Jobs of a wave, and waves.
WAVE = 1000
WAVES = {"own": 10, "constant": 3}

#: Seconds of the soak, between two groups of tasks, and from a group's beginning to its first end.
SOAK = 600.0
STEP = 10.0
AGE = 60.0
GROUP = {"ours, logs": 120, "floor": 20, "naive": 20}


class Server:
    """The scripted head."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str = "", **body: Any) -> dict[str, Any]:
        """Ask the head to begin or to forget jobs, or for its account."""
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(f"{self.url}/bench{path}", data=data)
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@contextlib.contextmanager
def job_server() -> Iterator[Server]:
    """Run the scripted head."""
    command = [sys.executable, str(common.HERE / "job_server.py")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout  # noqa: S101
        yield Server(process.stdout.readline().strip())
    finally:
        process.terminate()
        process.wait()


class Task(NamedTuple):
    """
    A deferred task.

    :param subject: one of :data:`SUBJECTS`.
    :param end: end of its job in Unix seconds; None: never.
    :param secret: value of a secret variable of its job.
    """

    subject: str
    end: float | None = None
    secret: str = ""


class Bench:
    """An Airflow with a triggerer, and the scripted head."""

    def __init__(self, env: AirflowEnv, head: Server) -> None:
        self.env, self.head = env, head
        self.triggerer = env.components["triggerer"]
        self.runs = 0
        self._output = 0  # characters of the triggerer's output that belong to earlier cases

    @contextlib.contextmanager
    def running(self, *subjects: str) -> Iterator[None]:
        """Run a new triggerer, without what earlier ones left; it has already imported the triggers of subjects."""
        self._output = len(self._read_output())
        self.env.start_process("triggerer", timeout=300)
        try:
            tasks = [Task(subject, time.time() + 3) for subject in subjects]
            self.wait_events(self.defer(tasks), tasks)
            yield
        finally:
            self.env.kill_process("triggerer", signal.SIGKILL)  # a graceful end would wait for all triggers
            self.env.database.execute("UPDATE task_instance SET trigger_id = NULL, state = 'removed'")
            self.env.database.execute("DELETE FROM trigger")
            self.head.ask("/forget", prefix="")

    def defer(self, tasks: Sequence[Task]) -> str:
        """Begin the jobs of tasks, and write the rows of a DAG run whose tasks are deferred; return the run's id."""
        self.runs += 1
        run_id = f"run{self.runs}"
        secrets = [{"API_TOKEN": task.secret} if task.secret else {} for task in tasks]
        self.head.ask("/begin", prefix=run_id, ends=[task.end for task in tasks], env_vars=secrets)
        rows = [self._trigger(task, f"{run_id}-{number}") for number, task in enumerate(tasks)]
        self.env.database.execute(self._copied("dag_run", run_id="?", logical_date="NULL", state="'running'"), run_id)
        task_rows = self._copied(
            "task_instance", "trigger", id="gen_random_uuid()", run_id="?", map_index="made.number", try_number="1",
            state="'deferred'", trigger_id="made.id", next_method="'execute_complete'", start_date="now()",
        )  # fmt: skip
        # In one statement: the triggerer deletes a trigger that no task has.
        classes, arguments = ([row[column] for row in rows] for column in (0, 1))
        self.env.database.execute(TRIGGER_ROWS + task_rows, classes, arguments, run_id)
        return run_id

    def _trigger(self, task: Task, submission_id: str) -> tuple[str, str]:
        """Return the class and the arguments of a task's trigger."""
        if task.subject == "floor":
            return "peers.Floor", json.dumps({"moment": task.end or time.time() + 86400})
        if task.subject == "naive":
            return "peers.Naive", json.dumps({"ray_conn_id": "bench", "submission_id": submission_id})
        return "airflow_provider_rayjobs.triggers.RayJobTrigger", json.dumps(
            {
                "ray_conn_id": "bench",
                "submission_id": submission_id,
                "submitted_at": time.time(),
                "stream_logs": task.subject == "ours, logs",
            }
        )

    def _copied(self, table: str, source: str = "", **changes: str) -> str:
        """Return SQL that copies the row that `airflow dags trigger` made, with other values in some columns."""
        columns = [
            row["column_name"]
            for row in self.env.query("SELECT column_name FROM information_schema.columns WHERE table_name = ?", table)
            if row["column_name"] != "id" or "id" in changes
        ]
        values = ", ".join(changes.get(name, f"old.{name}") for name in columns)
        made = ", made" if source else ""
        return (
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} old{made}"  # noqa: S608
            " WHERE old.run_id = 'template'"
        )

    def wait_followed(self, run_id: str, number: int) -> None:
        """Wait until the triggers of a run have begun to run, which their logs say."""
        self._wait(lambda: len(self.logs(run_id)) >= number, f"{run_id}: not all triggers run")

    def wait_events(self, run_id: str, tasks: Sequence[Task]) -> list[tuple[str, float]]:
        """Wait until all tasks whose job ends have their event; return the subject and the delay of each."""
        ending = {number: task for number, task in enumerate(tasks) if task.end is not None}
        sql = (
            "SELECT map_index, extract(epoch FROM scheduled_dttm)::float AS at FROM task_instance"
            " WHERE run_id = ? AND state = 'scheduled'"
        )
        self._wait(lambda: len(self.env.query(sql, run_id)) >= len(ending), f"{run_id}: not all events have arrived")
        found = self.env.query(sql, run_id)
        if wrong := {row["map_index"] for row in found} ^ ending.keys():
            raise RuntimeError(f"{run_id}: tasks ended although their jobs did not, or the reverse: {sorted(wrong)}")
        ends = [(ending[row["map_index"]], row["at"]) for row in found]
        return [(task.subject, at - (task.end or 0.0)) for task, at in ends]

    def _wait(self, done: Callable[[], bool], trouble: str) -> None:
        wait(done, 300.0, lambda: f"{trouble}\n{self._read_output()[-3000:]}")

    def usage(self) -> dict[str, float]:
        """Return the CPU seconds and the memory (MB) of the triggerer's processes, and the head's seconds."""
        members = self.triggerer.members()
        return {
            "cpu": common.cpu_seconds(members),
            "memory": sum(common.memory(process) for process in members),
            "head": self.head.ask()["cost"],
            "at": time.monotonic(),
        }

    def pauses(self) -> list[float]:
        """Return the seconds for which, as Airflow noticed, the event loop of this triggerer was blocked."""
        return [
            float(found) for found in re.findall(r"blocked for ([\d.]+) seconds", self._read_output()[self._output :])
        ]

    def _read_output(self) -> str:
        return self.triggerer.log_path.read_text(errors="replace") if self.triggerer.log_path.exists() else ""

    def logs(self, run_id: str) -> list[Path]:
        """Return a run's task logs."""
        folder = self.env.home / "logs" / f"dag_id={DAG}" / f"run_id={run_id}"
        return [file for file in folder.rglob("attempt=*.log.trigger.*") if file.stat().st_size]

    def ended(self, run_id: str) -> list[float]:
        """Return when the triggers of a run ended, in Unix seconds."""
        lines = [line for log in self.logs(run_id) for line in log.read_text(errors="replace").splitlines()]
        found = [re.search(r'"timestamp":"(\S+?)".*"event":"trigger completed"', line) for line in lines]
        # On a busy machine, the line may come after the log has been closed, and is then in the triggerer's output.
        output = re.finditer(rf"^(\S+) .*trigger completed .*\brun_id={run_id}\b", self._read_output(), re.MULTILINE)
        return [datetime.fromisoformat(match[1]).timestamp() for match in (*found, *output) if match]


@contextlib.contextmanager
def started() -> Iterator[Bench]:
    """Run PostgreSQL, an API server and the scripted head; prepare a DAG and a connection."""
    home = common.scratch() / "airflow"
    (home / "dags").mkdir(parents=True)
    (home / "dags" / "bench.py").write_text(DAG_FILE)
    with Postgres() as postgres, job_server() as head:
        env = AirflowEnv(
            home,
            home / "dags",
            PostgresDatabase(postgres.url("bench")),
            env={**SETTINGS, "PYTHONPATH": common.airflow_path(home)},
        )
        env.prepare()
        env.cli("connections", "add", "bench", "--conn-type", "ray_jobs", "--conn-host", head.url)
        env.cli("dags", "reserialize")
        env.cli("dags", "trigger", DAG, "--run-id", "template")
        try:
            yield Bench(env, head)
        finally:
            env.stop(grace=0)


def percentiles(delays: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 95th percentile."""
    ordered = sorted(delays)
    return statistics.median(ordered), ordered[int(len(ordered) * 0.95)]


class TooLateError(Exception):
    """The triggerer had not begun to run all triggers when the measurement was to begin."""


def burst(bench: Bench, subject: str, number: int, ending: int) -> dict[str, Any]:
    """Follow jobs, of which some end at the same moment; then the tasks of the others are killed."""
    patience = 4 + number / 100  # seconds for beginning
    while True:
        with contextlib.suppress(TooLateError), bench.running(subject):
            return _burst(bench, subject, number, ending, patience)
        patience *= 3


def _burst(bench: Bench, subject: str, number: int, ending: int, patience: float) -> dict[str, Any]:
    end = time.time() + patience + WINDOW
    tasks = [Task(subject, end if index < ending else None) for index in range(number)]
    run_id = bench.defer(tasks)
    bench.wait_followed(run_id, number)
    if time.time() > end - WINDOW:
        raise TooLateError
    time.sleep(end - WINDOW - time.time())
    before, earlier = bench.usage(), len(bench.pauses())
    time.sleep(end - time.time())
    after = bench.usage()
    p50, p95 = percentiles([delay for _, delay in bench.wait_events(run_id, tasks)])
    last_lines = whole_logs(bench, run_id, ending) if subject == "ours, logs" else None
    lasted = after["at"] - before["at"]
    return {
        "jobs": number,
        "ends": ending,
        "subject": subject,
        "cores": (after["cpu"] - before["cpu"]) / lasted,
        "head": (after["head"] - before["head"]) / lasted,
        "memory": after["memory"],
        "p50": p50,
        "p95": p95,
        "longest_pause": max(bench.pauses()[earlier:], default=0.0),
        "last_lines": last_lines,
        **(kill(bench, run_id, subject, number) if number > ending else {}),
    }


def whole_logs(bench: Bench, run_id: str, number: int) -> int:
    """Return how many of a run's logs have the last line of their job, at most 10 s later."""
    deadline = time.monotonic() + 10
    while True:
        found = sum(LAST_LINE in log.read_text() for log in bench.logs(run_id))
        if found >= number or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def kill(bench: Bench, run_id: str, subject: str, number: int) -> dict[str, Any]:
    """
    Mark a DAG run failed; return when all its triggers had ended, and when its jobs were stopped.

    :param number: of all the run's triggers.
    """
    began = time.time()
    bench.env.set_run_state(DAG, run_id, "failed")
    marked = time.time()
    wait(lambda: len(bench.ended(run_id)) >= number, 300.0, lambda: f"{run_id}: not all triggers have ended")
    stopped = [] if subject == "floor" else bench.head.ask()["stopped"]
    return {
        "api": marked - began,
        "handled": max(bench.ended(run_id)) - began,
        "stopped": len(stopped),
        "last_stop": max(stopped) - began if stopped else 0.0,
    }


def bursts(bench: Bench, quick: bool) -> tuple[str, list[dict[str, Any]]]:
    """Run all bursts and kills; return their tables and figures."""
    figures, ends, kills = [], [], []
    bench.env.start_process("api-server", timeout=300)
    bench.env.set_run_state(DAG, bench.defer([Task("floor")]), "failed")  # the first request takes seconds
    for number, ending in ((20, 10),) if quick else BURSTS:
        floor: dict[str, Any] = {}
        for subject in SUBJECTS:
            found = burst(bench, subject, number, ending)
            floor = floor or found
            for key in ("p50", "p95", "handled"):
                if key in found:
                    found[f"{key}_ratio"] = found[key] / floor[key]
            figures.append(found)
            logs = "" if found["last_lines"] is None else f"{found['last_lines']} of {ending}"
            keys = ("cores", "memory", "head", "longest_pause", "p50", "p95", "p50_ratio", "p95_ratio")
            ends.append([f"{number:,}", f"{ending:,}", subject, *(found[key] for key in keys), logs])
            if "handled" in found:
                keys = ("api", "handled", "handled_ratio", "stopped", "last_stop")
                kills.append([number - ending, subject, *(found[key] for key in keys)])
    bench.env.kill_process("api-server")
    headers = "deferred|end at once|who|cores|MB|head's share|pause s|p50 s|p95|p50 ÷ floor|p95 ÷ floor|whole logs"
    kill_headers = ("killed at once", "who", "API's answer s", "all ended s", "÷ floor", "jobs stopped", "last stop s")
    return common.table(headers.split("|"), ends) + "\n\n" + common.table(kill_headers, kills), figures


def waves(bench: Bench, kind: str, size: int, number: int) -> list[dict[str, Any]]:
    """Follow waves of jobs with secrets, through one triggerer; return the figures of each wave."""
    figures = []
    with bench.running("ours, logs"):
        for wave in range(number):
            end = time.time() + 6 + size / 100
            secrets = [f"SECRET-{kind}-{wave * size + index if kind == 'own' else 0:06}" for index in range(size)]
            tasks = [Task("ours, logs", end, secret) for secret in secrets]
            run_id = bench.defer(tasks)
            before = bench.usage()
            p50, p95 = percentiles([delay for _, delay in bench.wait_events(run_id, tasks)])
            after = bench.usage()
            bench.head.ask("/forget", prefix=f"{run_id}-")
            figures.append(
                {
                    "kind": kind,
                    "wave": wave,
                    "p50": p50,
                    "p95": p95,
                    "cpu_per_job": (after["cpu"] - before["cpu"]) / size,
                    "memory": after["memory"],
                    "leaks": sum(log.read_text(errors="replace").count("SECRET-") for log in bench.logs(run_id)),
                }
            )
    return figures


def secrets(bench: Bench, quick: bool) -> tuple[str, list[dict[str, Any]]]:
    """Run waves of jobs with a secret of their own, and with the same one; return a table and its figures."""
    size = 25 if quick else WAVE
    figures, rows = [], []
    for kind, number in WAVES.items():
        found = waves(bench, kind, size, 2 if quick else number)
        figures += found
        for wave in (found[0], found[-1]):
            last = (wave["wave"] + 1) * size
            keys = ("p50", "p95", "cpu_per_job", "memory")
            change = [wave[key] / found[0][key] for key in keys]
            rows.append(
                [kind, f"{last - size + 1:,} to {last:,}", *(wave[key] for key in keys), *change, wave["leaks"]]
            )
    headers = "secret|jobs|p50 s|p95|CPU s per job|MB|÷ first: p50|p95|CPU|MB|secrets in the logs"
    return common.table(headers.split("|"), rows), figures


def soak(bench: Bench, quick: bool) -> tuple[str, list[dict[str, Any]]]:
    """Follow jobs that end while others begin, with the three triggers side by side; return a table and its figures."""
    seconds, age = (40.0, 20.0) if quick else (SOAK, AGE)
    share = 0.1 if quick else 1.0
    kinds = [subject for subject, number in GROUP.items() for _ in range(int(number * share))]
    groups: list[tuple[str, list[Task]]] = []
    figures: list[dict[str, Any]] = []

    def finish() -> None:
        """Measure the oldest group, all of whose jobs have ended."""
        run_id, tasks = groups.pop(0)
        delays = bench.wait_events(run_id, tasks)
        figures.append({"delays": delays, **bench.usage()})
        bench.head.ask("/forget", prefix=f"{run_id}-")

    with bench.running(*GROUP):
        begin = time.time()
        for number in range(int(seconds / STEP)):
            time.sleep(max(begin + number * STEP - time.time(), 0.0))
            first_end = time.time() + age
            # The ends are spread over the whole step; neighbours have different triggers.
            ends = [first_end + (index * 37 % len(kinds)) * STEP / len(kinds) for index in range(len(kinds))]
            tasks = [Task(subject, end) for subject, end in zip(kinds, ends, strict=True)]
            groups.append((bench.defer(tasks), tasks))
            if begin + age + (len(figures) + 1) * STEP < time.time():
                finish()
        while groups:
            finish()
        pauses = bench.pauses()
    sixth = max(len(figures) // 6, 1)
    rows = []
    for name, some in (("first", figures[:sixth]), ("last", figures[-sixth:])):
        for subject in GROUP:
            delays = [delay for group in some for kind, delay in group["delays"] if kind == subject]
            floor = [delay for group in some for kind, delay in group["delays"] if kind == "floor"]
            p50, p95 = percentiles(delays)
            ratios = [one / other for one, other in zip((p50, p95), percentiles(floor), strict=True)]
            memory = some[-1]["memory"]
            rows.append([name, subject, len(delays), p50, p95, *ratios, memory, max(pauses, default=0.0)])
    headers = "sixth of the time|who|ends|p50 s|p95|p50 ÷ floor|p95 ÷ floor|MB of all|longest pause s"
    return common.table(headers.split("|"), rows), figures


CASES = {"bursts": bursts, "secrets": secrets, "soak": soak}


def main() -> None:
    """Run the cases, and print their tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    args = parser.parse_args()
    tables, figures = [], {}
    with started() as bench:
        for name in args.cases:
            began = time.monotonic()
            text, figures[name] = CASES[name](bench, args.quick)
            tables.append(text)
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
            # After each case, so that an interrupted run keeps its results.
            common.report("triggerer", "In a real triggerer", "\n\n".join(tables), figures)


if __name__ == "__main__":
    main()

"""
Follows many deferred jobs in a real triggerer of Airflow, with PostgreSQL, and measures what the user waits for.

    PYTHONPATH=. .envs/airflow-3.3/bin/python benchmarks/triggerer.py [--quick] [--cases bursts soaks]

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
WINDOW = 6.0

SUBJECTS = ("floor", "naive", "ours", "ours, logs")

#: Numbers of deferred jobs, and how many of them end at once. Then the tasks of the others are killed.
BURSTS = ((1, 1), (100, 50), (1000, 500))

#: Seconds of the soaks: in the first, each of 10,000 jobs has a secret of its own; in the second, all have the same.
SOAKS = {"own": 600.0, "same": 60.0}

#: Seconds between two groups of tasks, and from a group's beginning to its first end; tasks of a group.
STEP = 10.0
AGE = 40.0
GROUP = {"ours, logs": 170, "floor": 20, "naive": 20}


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

    def wait_ended(self, run_id: str, numbers: range) -> list[float]:
        """
        Wait until the triggers of some tasks of a run have ended; return when, in Unix seconds.

        Airflow may close a task's log before the trigger's last line; so some ends may not be known.
        """
        known, since = -1, time.monotonic()
        while True:
            ended = self.ended(run_id, numbers)
            if len(ended) > known:
                known, since = len(ended), time.monotonic()
            if known >= len(numbers) or (known > 0 and time.monotonic() > since + 20):
                return ended
            if time.monotonic() > since + 300:
                raise TimeoutError(f"{run_id}: {known} of {len(numbers)} triggers ended\n{self._read_output()[-3000:]}")
            time.sleep(0.5)

    def _wait(self, done: Callable[[], bool], trouble: str) -> None:
        deadline = time.monotonic() + 300
        while not done():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{trouble}\n{self._read_output()[-3000:]}")
            time.sleep(0.5)  # the times come from records; a shorter pause would take the CPU from what is measured

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

    def ended(self, run_id: str, numbers: range) -> list[float]:
        """
        Return when the triggers of some tasks of a run ended, in Unix seconds.

        :param numbers: of tasks that were killed. A trigger that fires an event may end without a line: its log is
            closed with the event.
        """
        lines = [line for log in self.logs(run_id) for line in log.read_text(errors="replace").splitlines()]
        found = [
            re.search(r'"timestamp":"(?P<at>\S+?)".*"event":"trigger completed".*"map_index":(?P<number>\d+)', line)
            for line in lines
        ]
        # On a busy machine, the line may come after the log has been closed, and is then in the triggerer's output.
        output = re.finditer(
            rf"^(?P<at>\S+) .*trigger completed .*\bmap_index=(?P<number>\d+) .*\brun_id={run_id}\b",
            self._read_output(),
            re.MULTILINE,
        )
        matches = [match for match in (*found, *output) if match and int(match["number"]) in numbers]
        return [datetime.fromisoformat(match["at"]).timestamp() for match in matches]


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


def burst(bench: Bench, subject: str, number: int, ending: int) -> dict[str, Any]:
    """Follow jobs, of which some end at the same moment; then the tasks of the others are killed."""
    patience = 4 + number / 100  # seconds for beginning
    while True:
        end = time.time() + patience + WINDOW
        tasks = [Task(subject, end if index < ending else None) for index in range(number)]
        run_id = bench.defer(tasks)
        bench.wait_followed(run_id, number)
        if time.time() < end - WINDOW:
            break
        kill(bench, run_id, range(ending, number))  # the machine is busy: once more, with more time
        patience *= 3
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
        **(kill(bench, run_id, range(ending, number)) if number > ending else {}),
    }


def whole_logs(bench: Bench, run_id: str, number: int) -> int:
    """Return how many of a run's logs have the last line of their job, at most 10 s later."""
    deadline = time.monotonic() + 10
    while True:
        found = sum(LAST_LINE in log.read_text() for log in bench.logs(run_id))
        if found >= number or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def kill(bench: Bench, run_id: str, numbers: range) -> dict[str, Any]:
    """
    Mark a DAG run failed; return when the triggers of its deferred tasks had ended, and when its jobs were stopped.

    :param numbers: of the tasks that are deferred.
    """
    began = time.time()
    bench.env.set_run_state(DAG, run_id, "failed")
    marked = time.time()
    ended = bench.wait_ended(run_id, numbers)
    stopped = [at for at in bench.head.ask()["stopped"] if at > began]
    return {
        "api": marked - began,
        "handled": max(ended, default=began) - began,
        "known": len(ended),
        "stopped": len(stopped),
        "last_stop": max(stopped) - began if stopped else 0.0,
    }


def bursts(bench: Bench, quick: bool) -> tuple[str, list[dict[str, Any]]]:
    """Run all bursts and kills; return their tables and figures."""
    figures, ends, kills = [], [], []
    bench.env.start_process("api-server", timeout=300)
    bench.env.set_run_state(DAG, bench.defer([Task("floor")]), "failed")  # the first request takes seconds
    for subject in SUBJECTS:
        with bench.running(subject):
            for size in ((20, 10),) if quick else BURSTS:
                figures.append(burst(bench, subject, *size))
                print(figures[-1], flush=True)
    bench.env.kill_process("api-server")
    figures.sort(key=lambda found: found["jobs"])  # keeps the order of the subjects
    for found in figures:
        number, ending = found["jobs"], found["ends"]
        floor = next(other for other in figures if other["jobs"] == number)
        for key in ("p50", "p95", "handled"):
            if key in found:
                found[f"{key}_ratio"] = found[key] / floor[key]
        logs = "" if found["last_lines"] is None else f"{found['last_lines']} of {ending}"
        keys = ("cores", "memory", "head", "longest_pause", "p50", "p95", "p50_ratio", "p95_ratio")
        ends.append([f"{number:,}", f"{ending:,}", found["subject"], *(found[key] for key in keys), logs])
        if "handled" in found:
            keys = ("api", "handled", "handled_ratio", "known", "stopped", "last_stop")
            kills.append([number - ending, found["subject"], *(found[key] for key in keys)])
    headers = "deferred|end at once|who|cores|MB|head's share|pause s|p50 s|p95|p50 ÷ floor|p95 ÷ floor|whole logs"
    kill_headers = ("killed at once", "who", "API's answer s", "all ended s", "÷ floor", "ends known",
                    "jobs stopped", "last stop s")  # fmt: skip
    return common.table(headers.split("|"), ends) + "\n\n" + common.table(kill_headers, kills), figures


def soak(bench: Bench, secrets: str, seconds: float, age: float, group: dict[str, int]) -> list[dict[str, Any]]:
    """
    Follow jobs that end while others begin, with all kinds of triggers side by side; return the figures of each group.

    :param secrets: "own" if each job has a secret of its own, "same" if all have the same.
    :param seconds: duration; a group of tasks begins every :data:`STEP` seconds.
    :param age: seconds from a group's beginning to the first end of its jobs.
    :param group: number of tasks of each kind in a group.
    """
    kinds = [subject for subject, number in group.items() for _ in range(number)]
    groups: list[tuple[str, list[Task]]] = []
    figures: list[dict[str, Any]] = []

    def finish() -> None:
        """Wait for the events of the oldest group, and measure."""
        run_id, tasks = groups.pop(0)
        delays = bench.wait_events(run_id, tasks)
        leaks = sum(log.read_text(errors="replace").count("SECRET-") for log in bench.logs(run_id))
        figures.append({"secrets": secrets, "delays": delays, "leaks": leaks, **bench.usage()})
        bench.head.ask("/forget", prefix=f"{run_id}-")

    with bench.running(*group):
        begin = time.time()
        for number in range(int(seconds / STEP)):
            time.sleep(max(begin + number * STEP - time.time(), 0.0))
            first_end = time.time() + age
            tasks = []
            for index, subject in enumerate(kinds):
                # The ends are spread over the whole step; neighbours have different triggers.
                end = first_end + (index * 37 % len(kinds)) * STEP / len(kinds)
                tasks.append(Task(subject, end, f"SECRET-{number}-{index}" if secrets == "own" else "SECRET-0"))
            groups.append((bench.defer(tasks), tasks))
            if begin + age + (len(figures) + 1) * STEP < time.time():
                finish()
        while groups:
            finish()
        for one in figures:
            one["pause"] = max(bench.pauses(), default=0.0)
    return figures


def soaks(bench: Bench, quick: bool) -> tuple[str, list[dict[str, Any]]]:
    """Run the soak with secrets of the jobs' own, and a shorter one with the same for all; return table and figures."""
    group = {subject: number // 10 for subject, number in GROUP.items()} if quick else GROUP
    rows, figures = [], []
    for secrets, seconds in SOAKS.items():
        found = soak(bench, secrets, 30.0 if quick else seconds, 10.0 if quick else AGE, group)
        figures += found
        part = max(len(found) // 6, 1)
        for name, some in (("first", found[:part]), ("last", found[-part:])):
            delays = [delay for one in some for delay in one["delays"]]
            floor = percentiles([delay for subject, delay in delays if subject == "floor"])
            for subject in group:
                own = [delay for kind, delay in delays if kind == subject]
                ratios = [one / other for one, other in zip(percentiles(own), floor, strict=True)]
                row = [secrets, name, subject, len(own), *percentiles(own), *ratios]
                if subject == "ours, logs":
                    row += [some[-1]["memory"], some[-1]["pause"], sum(one["leaks"] for one in some)]
                rows.append(row + [""] * (11 - len(row)))
    headers = "secrets|part|who|ends|p50 s|p95|p50 ÷ floor|p95 ÷ floor|MB of all|longest pause s|secrets in logs"
    return common.table(headers.split("|"), rows), figures


CASES = {"bursts": bursts, "soaks": soaks}


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

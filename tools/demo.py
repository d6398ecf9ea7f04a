"""Runs an example DAG in a real Airflow, on a real Ray cluster, on this machine; leaves only `.envs/` behind.

    python tools/demo.py           or: make demo
    python tools/demo.py --keep    or: make demo KEEP=1    (the cluster stays up until Ctrl-C)

Only the standard library is used.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import environment
import envs
import processes
from console import ToolError, ignore_signals, run_main, step
from local_ray import LocalRay

if TYPE_CHECKING:
    from collections.abc import Iterator

AIRFLOW_ENV, RAY_ENV = "airflow-3.3", "ray-2.60"
DAG_ID = "ray_job_pi"
RAY_TIMEOUT = 180  # seconds, as all of these
MIGRATE_TIMEOUT = 180
DAG_TIMEOUT = 240

#: The provider's module that logs the job's output, airflow_provider_rayjobs/following/lines.py.
JOB_OUTPUT_FILE = "lines.py"

#: Matches Ray's own lines in a job's output: "2026-01-31 12:00:00,123<tab>INFO worker.py:1841 -- Connecting".
RAY_LOG_LINE = re.compile(r"[-\d]+ [:,\d]+\tINFO ")


class Demo:
    """One run of the demo."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._home = Path(tempfile.mkdtemp(prefix="airflow-demo-", dir=environment.SHORT_TMP))
        self._log = self._home / "demo.log"
        self._ray = LocalRay(envs.ENVS_DIR / RAY_ENV / "bin")

    def run(self, *, keep: bool) -> None:
        """Run all steps.

        :param keep: keep the cluster running until Ctrl-C, so that the user can open its dashboard.
        :raises ToolError: if a step fails.
        """
        try:
            self._run_steps()
            if keep:
                self._wait_for_interrupt()
        except ToolError as error:
            raise ToolError(f"{error}\n\nThe complete output of Airflow and Ray: {self._save_log()}") from None
        finally:
            self._clean_up()

    def seconds(self) -> float:
        """Return how many seconds the demo has run."""
        return time.monotonic() - self._begin

    def _run_steps(self) -> None:
        # Not at the same time: a starting Ray head needs all of a small machine.
        with step(f"Starting a Ray cluster at {self._ray.url}"):
            self._ray.start()
            self._ray.wait_ready(RAY_TIMEOUT)
        with step("Creating Airflow's database"):
            for _ in self._run_airflow("db", "migrate", timeout=MIGRATE_TIMEOUT):
                pass
        print(f"Running `airflow dags test {DAG_ID}` (its task starts after about 15 s):", flush=True)
        for line in self._run_airflow("dags", "test", DAG_ID, timeout=DAG_TIMEOUT):
            if text := readable(line):
                print(f"  [{self.seconds():3.0f} s] {text}", flush=True)
        self._check_job()

    def _check_job(self) -> None:
        """Ask Ray whether the job ran: the demo must show more than a successful task."""
        jobs = self._ray.jobs()
        if list(jobs.values()) != ["SUCCEEDED"]:
            raise ToolError(f"The DAG run succeeded, but Ray reports these jobs: {jobs or 'none'}.")
        submission_id = next(iter(jobs))
        print(f"Ray says SUCCEEDED. The job's page is {self._ray.url}/#/jobs/{submission_id}", flush=True)

    def _wait_for_interrupt(self) -> None:
        print(f"The dashboard asks for a token: {self._ray.token}")
        print("The cluster keeps running until you press Ctrl-C.", flush=True)
        with suppress(SystemExit):  # raised by the signal handler; not a failure here
            signal.pause()

    def _run_airflow(self, *arguments: str, timeout: float) -> Iterator[str]:
        """Run a command of Airflow; log its output, and yield it line by line."""
        command = [envs.program(AIRFLOW_ENV, "airflow"), *arguments]
        lines = processes.stream(command, env=self._airflow_environment(), cwd=self._home, timeout=timeout)
        with self._log.open("a") as log:
            for line in lines:
                log.write(line)
                yield line

    def _airflow_environment(self) -> dict[str, str]:
        connection = {"conn_type": "ray_jobs", "host": self._ray.url, "password": self._ray.token}
        return environment.for_programs() | {
            "AIRFLOW_HOME": str(self._home),
            "TMPDIR": str(self._home),
            "AIRFLOW_CONN_RAY_DEFAULT": json.dumps(connection),
            "AIRFLOW__CORE__DAGS_FOLDER": str(envs.ROOT / "example_dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__JSON_LOGS": "True",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "PYTHONDONTWRITEBYTECODE": "1",  # no __pycache__ beside the example DAGs
        }

    def _save_log(self) -> Path:
        """Copy all output to one file that remains after the demo."""
        handle, name = tempfile.mkstemp(prefix="rayjobs-demo-", suffix=".log")
        with os.fdopen(handle, "w") as file:
            for log in (self._log, self._ray.log):
                file.write(f"==> {log.name}\n{log.read_text(errors='replace') if log.exists() else ''}\n")
        return Path(name)

    def _clean_up(self) -> None:
        """Stop Ray and remove all files; Airflow has already ended."""
        ignore_signals()
        with step("Stopping Ray, removing temporary files"):
            self._ray.stop()
            shutil.rmtree(self._home, ignore_errors=True)


def readable(line: str) -> str:
    """Return what to show of a line of Airflow's JSON log: the provider's messages, errors and the outcome."""
    try:
        record: dict[str, Any] = json.loads(line)
    except ValueError:
        return ""
    logger, event = str(record.get("logger", "")), str(record.get("event", ""))
    problem = record.get("level") in ("error", "critical")
    if event.startswith("DagRun Finished"):
        event = "The DAG run ended with " + event.partition("state=")[2].partition(",")[0]
    elif record.get("filename") == JOB_OUTPUT_FILE and not problem:
        return "" if RAY_LOG_LINE.match(event) else f"job     | {event}"
    elif not problem and "airflow_provider_rayjobs" not in logger:
        return ""
    errors = [f"{error['exc_type']}: {error['exc_value']}" for error in record.get("exception") or ()]
    return "\n".join([f"airflow | {event}", *errors[:1]])


def main(arguments: list[str]) -> int:
    """Create the environments, then run the demo."""
    if not set(arguments) <= {"--keep"}:
        raise ToolError(__doc__ or "")
    begin = time.monotonic()
    envs.ensure(AIRFLOW_ENV, RAY_ENV)
    Demo().run(keep="--keep" in arguments)
    print(f"All done in {time.monotonic() - begin:.0f} s: a DAG ran a Ray job and showed its output.")
    return 0


if __name__ == "__main__":
    run_main(main)

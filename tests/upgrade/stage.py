"""
Runs one half of an upgrade with the Airflow of this interpreter.

    python -m tests.upgrade.stage HALF HOME DATABASE_URL CONNECTION

``defer`` creates a deployment in HOME, starts a job, and stops Airflow when its task is deferred. ``finish`` upgrades
that deployment, lets the job end, and prints the result of the task.
"""

from __future__ import annotations

import base64
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.airflow.drivers import driver
from tests.support.airflow_env import AirflowEnv
from tests.support.airflow_records import wait
from tests.support.databases import database_of
from tests.upgrade import MARK

DAG = "rj_deferred"
DAG_FILE = Path(__file__).parents[1] / "airflow" / "dags" / "rayjobs.py"


def defer(airflow: AirflowEnv, connection: dict[str, Any]) -> dict[str, object]:
    """Start a job that runs until a file exists, and wait until its task is deferred."""
    airflow.add_connection("ray_default", **connection)
    airflow.wait_dag(DAG)
    command = driver(airflow.home / "trace", airflow.home / "gate")
    airflow.trigger(DAG, run_of(airflow.home), {"command": command})
    airflow.wait_task(DAG, run_of(airflow.home), "job", "deferred")
    airflow.wait_log(DAG, run_of(airflow.home), "job", "hello from the driver")
    return {
        "version": airflow.version,
        "submission_id": airflow.xcom(DAG, run_of(airflow.home), "job", "submission_id"),
    }


def finish(airflow: AirflowEnv, _connection: dict[str, Any]) -> dict[str, object]:
    """Let the job end, and wait for the end of its task."""
    run_id = run_of(airflow.home)

    def log() -> str:
        return airflow.task_log(DAG, run_id, "job")

    # The new triggerer reads the job's log from its start.
    wait(
        lambda: log().count("hello from the driver") == 2,
        180,
        lambda: f"job not followed:\n{log()}\n{airflow.outputs()}",
    )
    (airflow.home / "gate").touch()
    row = airflow.wait_task(DAG, run_id, "job", "success", timeout=180)
    return {
        "version": airflow.version,
        "try_number": row.try_number,
        "xcom": airflow.xcom(DAG, run_id, "job"),
        "log": log(),
    }


def run_of(home: Path) -> str:
    """Return the id of the DAG run, which its Ray job has in its metadata."""
    return f"upgrade-{home.name}"


def main(half: str, home: Path, database: str, connection: dict[str, Any]) -> None:
    """Run one half."""
    dags = home / "dags"
    dags.mkdir(parents=True, exist_ok=True)
    shutil.copy(DAG_FILE, dags)
    key = base64.urlsafe_b64encode(b"k" * 32).decode()
    airflow = AirflowEnv(home, dags, database_of(database), env={"AIRFLOW__CORE__FERNET_KEY": key})
    try:
        airflow.start()
        result = {"defer": defer, "finish": finish}[half](airflow, connection)
    finally:
        airflow.stop(grace=20)
    print(MARK + json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4]))

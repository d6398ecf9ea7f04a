"""
Runs short jobs on a real Ray head, as tasks of a complete Airflow with PostgreSQL, and measures how long that takes.

    PYTHONPATH=. .envs/airflow-3.3/bin/python benchmarks/task_life.py [--quick]

One DAG run after the other, so that nothing else runs meanwhile. The floors do the same without Ray.
"""

from __future__ import annotations

import statistics
import sys
from typing import TYPE_CHECKING, Any

import common

from tests.airflow.drivers import jobs_of
from tests.support.airflow_env import AirflowEnv
from tests.support.databases import PostgresDatabase
from tests.support.postgres import Postgres
from tests.support.ray_head import RayHead, require_ray

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 3

#: Seconds for which a job sleeps.
JOB = 2.0

DAG_FILE = f"""
import time

from airflow.providers.common.compat.sdk import DAG, BaseOperator, task
from airflow.providers.standard.operators.bash import BashOperator

from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from peers import Floor

COMMAND = "sleep {JOB}; echo the last line"


class Deferred(BaseOperator):
    def execute(self, context):
        end = time.time() + {JOB}
        self.defer(trigger=Floor(end), method_name="resume", kwargs={{"end": end}})

    def resume(self, context, event, end):
        return end


with DAG("floor", schedule=None):
    BashOperator(task_id="task", bash_command=COMMAND + "; date +%s.%N")

with DAG("floor_deferred", schedule=None):
    Deferred(task_id="task")

for name, options in {{
    "worker": {{}},
    "worker_quiet": {{"stream_logs": False}},
    "deferred": {{"deferrable": True}},
    "deferred_quiet": {{"deferrable": True, "stream_logs": False}},
}}.items():
    with DAG(name, schedule=None):
        RaySubmitJobOperator(task_id="task", entrypoint=COMMAND, **options)

with DAG("function", schedule=None):

    @task.ray_job
    def sleep(seconds):
        import time

        time.sleep(seconds)
        print("the last line")
        return seconds

    sleep.override(task_id="task")({JOB})
"""

#: The DAGs, what they are called in the table, and the floor of each.
LIVES = {
    "floor": ("BashOperator (the floor)", "floor"),
    "worker": ("on the worker", "floor"),
    "worker_quiet": ("on the worker, no log", "floor"),
    "function": ("function, on the worker", "floor"),
    "floor_deferred": ("deferred without Ray (the floor)", "floor_deferred"),
    "deferred": ("deferred", "floor_deferred"),
    "deferred_quiet": ("deferred, no log", "floor_deferred"),
}


def life(env: AirflowEnv, head: RayHead, dag_id: str, number: int) -> dict[str, Any]:
    """Run one task; return its times in seconds, and whether its log has the job's last line."""
    run_id = f"{dag_id}-{number}"
    env.trigger(dag_id, run_id)
    env.wait_task(dag_id, run_id, "task", "success", timeout=180)
    (row,) = env.query(
        "SELECT extract(epoch FROM start_date)::float AS begin, extract(epoch FROM end_date)::float AS end"
        " FROM task_instance WHERE dag_id = ? AND run_id = ?",
        *(dag_id, run_id),
    )
    result: dict[str, Any] = {"dag": dag_id, "task": row["end"] - row["begin"]}
    if dag_id.startswith("floor"):
        return {**result, "after": row["end"] - float(env.xcom(dag_id, run_id, "task"))}
    (job,) = jobs_of(head, run_id)
    result["job"] = (job["end_time"] - job["start_time"]) / 1000
    if "quiet" not in dag_id:
        result["whole_log"] = "the last line" in env.task_log(dag_id, run_id, "task")
    return {**result, "after": row["end"] - job["end_time"] / 1000}


def lives(home: Path, rounds: int) -> list[dict[str, Any]]:
    """Run all DAGs in turn, several times; the first time does not count."""
    (home / "dags").mkdir(parents=True)
    (home / "dags" / "bench.py").write_text(DAG_FILE)
    ray_bin = require_ray()
    with Postgres() as postgres, RayHead(num_cpus=2, ray_bin=ray_bin, token="") as head:
        database = PostgresDatabase(postgres.url("bench"))
        env = AirflowEnv(home, home / "dags", database, env={"PYTHONPATH": common.airflow_path(home)})
        try:
            env.start()
            env.add_connection("ray_default", **head.connection())
            for dag_id in LIVES:
                env.wait_dag(dag_id)
            found = [life(env, head, dag_id, number) for number in range(rounds + 1) for dag_id in LIVES]
        finally:
            env.stop(grace=0)
    return found[len(LIVES) :]


def table(found: list[dict[str, Any]]) -> str:
    """Return the table."""
    rows = []
    for dag_id, (name, floor) in LIVES.items():
        own = [one for one in found if one["dag"] == dag_id]
        of_floor = [one for one in found if one["dag"] == floor]
        job = statistics.median(one["job"] for one in own) if "job" in own[0] else ""
        task, after = (common.median(own, key) for key in ("task", "after"))
        over = after - common.median(of_floor, "after")
        logs = f"{sum(one['whole_log'] for one in own)} of {len(own)}" if "whole_log" in own[0] else ""
        longest = max(one["after"] for one in own)
        rows.append([name, len(own), job, task, task / common.median(of_floor, "task"), after, longest, over, logs])
    headers = "task|runs|job s|task s|÷ floor|after the job s|longest|over the floor s|whole logs"
    return common.table(headers.split("|"), rows)


def main() -> None:
    """Run the tasks, and print the table."""
    found = lives(common.scratch() / "airflow", 1 if "--quick" in sys.argv else ROUNDS)
    common.report("task_life", "The life of a task", table(found), found)


if __name__ == "__main__":
    main()

"""
Scheduled batch work: every day one Ray job per shard, with retries, and a callback when a shard fails for good.

A retry after a failed job starts a new Ray job. A retry after a lost worker follows the job that is running.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_rayjobs.operators import RaySubmitJobOperator

SUMMARISE = """
import sys
import ray

day, shard = sys.argv[1:]

@ray.remote
def count(part):
    return sum(len(str(number)) for number in range(part * 10_000, (part + 1) * 10_000))

total = sum(ray.get([count.remote(part) for part in range(4)]))
print(f"{day}: shard {shard} has {total} digits")
"""


def tell_the_team(context: Any) -> None:
    """Stand in for the page or chat message that a team would send."""
    ti = context["ti"]
    logging.getLogger("airflow.task").error(
        "%s failed for good; its last Ray job is %s",
        ti.task_id,
        ti.xcom_pull(task_ids=ti.task_id, key="submission_id", map_indexes=ti.map_index),
    )


with DAG(
    "ray_job_daily_batch",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5), "on_failure_callback": tell_the_team},
    tags=["ray"],
):

    @task
    def shards(ds: str | None = None) -> list[list[str]]:
        """Return the command of each shard; a list of words keeps every value one argument."""
        return [["python", "-c", SUMMARISE, str(ds), name] for name in ("north", "east", "south", "west")]

    RaySubmitJobOperator.partial(
        task_id="summarise",
        deferrable=True,
        job_timeout=3600,
        max_active_tis_per_dagrun=2,  # at most 2 shards at a time
    ).expand(entrypoint=shards())

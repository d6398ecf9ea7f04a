"""Jobs on a worker and deferred, whose command comes with the run."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.operators import RaySubmitJobOperator

KINDS = {
    "observed_sync": {"runtime_env": {"working_dir": str(Path(__file__).parent / "code")}},
    "observed_deferred": {"deferrable": True},
    "observed_own": {"reattach": False},
    "observed_unreliable": {"ray_conn_id": "ray_unreliable"},
}

for dag_id, arguments in KINDS.items():
    with DAG(dag_id, start_date=datetime(2026, 1, 1), schedule=None, catchup=False) as dag:  # noqa: DTZ001 - in UTC
        RaySubmitJobOperator(
            task_id="job",
            entrypoint="{{ dag_run.conf['command'] }}",
            inject_trace_context=True,
            retries=1,
            retry_delay=timedelta(seconds=1),
            **arguments,
        )
    globals()[dag_id] = dag

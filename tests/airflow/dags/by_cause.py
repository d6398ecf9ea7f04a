"""DAGs with tasks that are retried by cause: with a subclass, as docs/retries.md shows it, and with a policy."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.retries import retrying_by_cause

ARGUMENTS: dict[str, Any] = {
    "entrypoint": "{{ dag_run.conf['command'] }}",
    "ray_conn_id": "{{ dag_run.conf.get('conn_id', 'ray_default') }}",
    "retries": 2,
    "retry_delay": timedelta(seconds=1),
}


class RayJobOperator(RaySubmitJobOperator):
    def execute(self, context):
        with retrying_by_cause():
            return super().execute(context)

    def resume_execution(self, next_method, next_kwargs, context):
        with retrying_by_cause():
            return super().resume_execution(next_method, next_kwargs, context)


with DAG("rj_by_cause", schedule=None):
    RayJobOperator(task_id="sync", deferrable=False, **ARGUMENTS)
    RayJobOperator(task_id="deferred", deferrable=True, **ARGUMENTS)

with contextlib.suppress(ImportError):  # before Airflow 3.3
    from airflow_provider_rayjobs.retries import RayRetryPolicy

    with DAG("rj_policy", schedule=None):
        POLICY = RayRetryPolicy()
        RaySubmitJobOperator(task_id="sync", deferrable=False, retry_policy=POLICY, **ARGUMENTS)
        RaySubmitJobOperator(task_id="deferred", deferrable=True, retry_policy=POLICY, **ARGUMENTS)

"""A task that is tried again if its cluster or a node is lost, and not if its program fails (Airflow 3.3 and later)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.operators import RaySubmitJobOperator

by_cause: dict[str, Any]
try:
    from airflow_provider_rayjobs.retries import RayRetryPolicy
except ImportError:  # Airflow before 3.3, on which this task is tried again after each error
    by_cause = {}
else:
    by_cause = {"retry_policy": RayRetryPolicy()}

with DAG("ray_job_retries", schedule=None, catchup=False, tags=["ray"]):
    RaySubmitJobOperator(
        task_id="train",
        entrypoint=["python", "-c", "print('one epoch')"],
        deferrable=True,
        retries=3,
        retry_delay=timedelta(minutes=1),
        **by_cause,
    )

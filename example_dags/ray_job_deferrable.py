"""A long job that holds no worker slot: the triggerer follows it, with limits for its time."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.operators import RaySubmitJobOperator

with DAG("ray_job_deferrable", schedule=None, catchup=False, tags=["ray"]):
    RaySubmitJobOperator(
        task_id="train",
        entrypoint=["python", "-u", "-c", "import time\nfor i in range(10):\n print('epoch', i)\n time.sleep(1)"],
        deferrable=True,
        job_timeout=6 * 3600,  # seconds from submission to end; then the job is stopped
        pending_timeout=15 * 60,  # seconds for which the job may wait for resources
    )

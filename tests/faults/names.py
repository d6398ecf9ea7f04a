"""Names shared by the tests and the processes that they start. This module does not import Airflow."""

from __future__ import annotations

DAG_ID = "faults"
TASK_ID = "job"

#: Enough for the longest chain of faults.
RETRIES = 4

#: The DAG file with the task. Each try creates the task with the arguments of its case.
DAG_FILE = f"""
from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.operators import RaySubmitJobOperator

with DAG({DAG_ID!r}, schedule=None):
    RaySubmitJobOperator(task_id={TASK_ID!r}, entrypoint="true", retries={RETRIES}, retry_delay=timedelta(0))
"""

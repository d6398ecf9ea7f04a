"""A job of many Ray tasks, which takes longer than a minute."""

from pathlib import Path

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.operators import RaySubmitJobOperator

with DAG("sweep", schedule=None, tags=["ray"]):
    RaySubmitJobOperator(
        task_id="sweep",
        entrypoint="python sweep.py",
        runtime_env={"working_dir": str(Path(__file__).parent / "sweep")},
        deferrable=True,
    )

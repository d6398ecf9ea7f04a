"""A task whose job fails, one whose job waits for ever, and one without a job."""

from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, BaseOperator

from airflow_provider_rayjobs.operators import RaySubmitJobOperator


class Nothing(BaseOperator):
    """Does nothing."""

    def execute(self, context):
        """Succeed."""


with DAG("nightly_report", schedule=None, tags=["ray"]):
    RaySubmitJobOperator(
        task_id="report",
        entrypoint="python report.py",
        runtime_env={"working_dir": str(Path(__file__).parent / "report")},
    )
    RaySubmitJobOperator(task_id="embed", entrypoint="python embed.py", entrypoint_num_gpus=8)
    Nothing(task_id="plain")

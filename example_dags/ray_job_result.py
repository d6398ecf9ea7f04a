"""Training scripts report their results: a sweep over learning rates, then a model whose asset tells its loss."""

from typing import Any

from airflow.providers.common.compat.sdk import DAG, Asset, task

from airflow_provider_rayjobs.operators import RaySubmitJobOperator

# Fits the slope of a line. In your own DAG, this is a file of the `working_dir`.
TRAIN = """
import sys

from airflow_provider_rayjobs.job import report_result  # sent with the job, no need to install it

rate, slope = float(sys.argv[1]), 0.0
for _ in range(20):
    slope -= rate * sum((slope * x - 3 * x) * x for x in range(1, 5))
report_result({"rate": rate, "slope": slope, "loss": (slope - 3) ** 2})
"""

MODEL = Asset("ray-job-result-model")


def tell_loss(context: Any, result: Any) -> None:
    """Store the loss with the asset's event."""
    context["outlet_events"][MODEL].extra = {"loss": result["loss"]}


with DAG("ray_job_result", schedule=None):
    sweep = RaySubmitJobOperator.partial(task_id="sweep", read_result=True).expand(
        entrypoint=[["python", "-c", TRAIN, rate] for rate in ("0.001", "0.01", "0.1")]
    )

    @task
    def best(results: Any) -> float:
        """Return the learning rate with the smallest loss."""
        return float(min(results, key=lambda result: result["loss"])["rate"])

    best(sweep.output) >> RaySubmitJobOperator(
        task_id="train",
        entrypoint=["python", "-c", TRAIN, "{{ ti.xcom_pull('best') }}"],
        read_result=True,
        outlets=[MODEL],
        post_execute=tell_loss,
    )

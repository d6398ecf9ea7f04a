"""The DAG of the browser tests: a job that prints while it runs, then three deferred ones in parallel."""

from pathlib import Path

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.operators import RaySubmitJobOperator

with DAG("train_model", schedule=None, tags=["ray"]):
    train = RaySubmitJobOperator(
        task_id="train",
        entrypoint="python train.py",
        runtime_env={"working_dir": str(Path(__file__).parent / "train")},
    )
    evaluate = RaySubmitJobOperator.partial(task_id="evaluate", deferrable=True).expand(
        entrypoint=[["echo", f"accuracy on {name}: 0.9{digit}"] for digit, name in enumerate(("a", "b", "c"))]
    )
    train >> evaluate

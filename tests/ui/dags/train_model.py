"""What the browser tests run: a job that reports as it goes, then three at once, deferred."""

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.operators import RaySubmitJobOperator

TRAIN = """
import time
print("reading 60,000 samples", flush=True)
for epoch in range(1, 9):
    time.sleep(3)
    print(f"epoch {epoch} of 8: loss {0.9 ** epoch:.3f}", flush=True)
print("saved model 17", flush=True)
"""

with DAG("train_model", schedule=None, tags=["ray"]):
    train = RaySubmitJobOperator(task_id="train", entrypoint=["python", "-c", TRAIN], job_timeout=600)
    evaluate = RaySubmitJobOperator.partial(task_id="evaluate", deferrable=True).expand(
        entrypoint=[["echo", f"accuracy on {name}: 0.9{digit}"] for digit, name in enumerate(("a", "b", "c"))]
    )
    train >> evaluate

"""Estimate pi on a Ray cluster, with arguments from the DAG's parameters and progress in the task log."""

from pathlib import Path

from airflow.providers.common.compat.sdk import DAG, Param

from airflow_provider_rayjobs.operators import RaySubmitJobOperator

# The cluster does not have the files beside this DAG. A short script can be passed in an environment variable of the
# job. Airflow renders it as a template, so it must not contain double braces.
SCRIPT = (Path(__file__).parent / "scripts" / "pi.py").read_text()

with DAG(
    "ray_job_pi",
    schedule=None,
    # Typed, so that no parameter can inject a shell command into the entrypoint.
    params={
        "samples": Param(4_000_000, type="integer", minimum=1),
        "tasks": Param(8, type="integer", minimum=1),
    },
):
    RaySubmitJobOperator(
        task_id="estimate_pi",
        entrypoint='python -c "$PI_SCRIPT" --samples {{ params.samples }} --tasks {{ params.tasks }}',
        runtime_env={"env_vars": {"PI_SCRIPT": SCRIPT}},
    )

"""Two DAGs that submit the same jobs: in the second one, Airflow renders templates to native Python objects.

A third one returns the part of Airflow's context that reaches a function.
"""

from __future__ import annotations

import sys

from airflow.providers.common.compat.sdk import DAG, XComArg, task

from airflow_provider_rayjobs.operators import RayDeleteJobOperator, RayStopJobOperator, RaySubmitJobOperator
from airflow_provider_rayjobs.sensors import RayClusterSensor, RayJobSensor

PARAMS = {"n": 3, "version": "3.10", "nothing": None, "words": ["echo", 7]}
ENV_VARS = {"PORT": "8080", "N": "{{ params.n }}", "VERSION": "{{ params.version }}", "JSON": '{"a": [1, 2]}'}


def build(dag_id: str, *, native: bool) -> DAG:
    with DAG(dag_id, schedule=None, params=PARAMS, render_template_as_native_obj=native) as dag:
        cluster = RayClusterSensor(
            task_id="cluster",
            entrypoint_num_cpus="{{ params.n - 2 }}",
            entrypoint_num_gpus="{{ params.nothing }}",
            poke_interval=1,
            timeout=120,
        )
        job = RaySubmitJobOperator(
            task_id="job",
            entrypoint=["printenv", "PORT", "N", "VERSION", "JSON", "PIN"],
            runtime_env={"env_vars": ENV_VARS},
            secret_env_vars={"PIN": "91827364"},
            metadata={"ticket": "12345", "version": "{{ params.version }}"},
            entrypoint_num_cpus="{{ params.n - 2 }}",
            entrypoint_resources={"memory_units": "0"},
            job_timeout="{{ params.n * 100 }}",
            deferrable=True,
        )
        mapped = RaySubmitJobOperator.partial(task_id="mapped", runtime_env={"env_vars": ENV_VARS}).expand(
            entrypoint=[["echo", "{{ params.n }}", "10"], ["echo", "{{ params.version }}"]]
        )

        @task.ray_job(runtime_env={"env_vars": ENV_VARS})
        def work(number: int | str, port: str) -> str:
            import os

            return f"{int(number) + 1} {port} {os.environ['PORT']} {os.environ['VERSION']}"

        known = RayJobSensor(task_id="known", submission_id=str(job.output), target_statuses="{{ 'SUCCEEDED' }}")
        cluster >> job >> known >> mapped >> work("{{ params.n }}", port="{{ '80' }}80")

        # The connection does not exist, so nothing is submitted, and there is nothing to clean up.
        never = RaySubmitJobOperator(task_id="never", entrypoint="true", ray_conn_id="nowhere")
        clean = {"trigger_rule": "all_done"}
        ended = RaySubmitJobOperator(task_id="ended", entrypoint="true", trigger_rule="all_done")
        [
            RayStopJobOperator(task_id="stop_template", submission_id=str(never.output), **clean),
            RayStopJobOperator(task_id="stop_xcom", submission_id=XComArg(never, key="submission_id"), **clean),
            RayDeleteJobOperator(task_id="delete_xcom", submission_id=never.output, **clean),
            RayDeleteJobOperator.partial(task_id="delete_mapped", **clean).expand(submission_id=ids(never.output)),
        ] >> ended
    return dag


@task(trigger_rule="all_done")
def ids(submission_id: str | None = None) -> list[str | None]:
    return [submission_id, "None"]


texts = build("rj_texts", native=False)
native = build("rj_native", native=True)


with DAG("rj_context", schedule=None, params={"a": [1, "x"]}):

    @task.ray_job
    def on_ray(run_id, **context):
        return {name: [type(value).__name__, str(value)] for name, value in {**context, "run_id": run_id}.items()}

    @task.external_python(python=sys._base_executable, expect_airflow=False)  # without Airflow
    def elsewhere(run_id, **context):
        return {name: [type(value).__name__, str(value)] for name, value in {**context, "run_id": run_id}.items()}

    on_ray()
    elsewhere()

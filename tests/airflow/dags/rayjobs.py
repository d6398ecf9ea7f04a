"""DAGs with one task that runs the command in the run's conf on Ray, each with other arguments."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_rayjobs.operators import RaySubmitJobOperator

COMMAND = "{{ dag_run.conf['command'] }}"
RETRIED = {"retries": 1, "retry_delay": timedelta(seconds=1)}

with DAG("rj_sync", schedule=None):
    RaySubmitJobOperator(task_id="job", entrypoint=COMMAND, **RETRIED)

with DAG("rj_local", schedule=None):
    LOCAL = "{{ dag_run.conf['working_dir'] }}"
    RaySubmitJobOperator(task_id="job", entrypoint=COMMAND, runtime_env={"working_dir": LOCAL}, deferrable=True)

with DAG("rj_deferred", schedule=None):
    RaySubmitJobOperator(task_id="job", entrypoint=COMMAND, deferrable=True, **RETRIED)

with DAG("rj_quiet", schedule=None):
    RaySubmitJobOperator(task_id="job", entrypoint=COMMAND, deferrable=True, stream_logs=False, **RETRIED)

with DAG("rj_proxied", schedule=None):
    RaySubmitJobOperator(task_id="job", entrypoint=COMMAND, deferrable=True, ray_conn_id="ray_proxied", **RETRIED)

with DAG("rj_execution_timeout", schedule=None):
    RaySubmitJobOperator(task_id="job", entrypoint=COMMAND, deferrable=True, execution_timeout=timedelta(seconds=15))

with DAG("rj_job_timeout", schedule=None):
    RaySubmitJobOperator(task_id="job", entrypoint=COMMAND, deferrable=True, job_timeout=12)

with DAG("rj_run_timeout", schedule=None, dagrun_timeout=timedelta(seconds=20)):
    RaySubmitJobOperator(task_id="job", entrypoint=COMMAND, deferrable=True)

with DAG("rj_many", schedule=None, max_active_tasks=64) as many:

    @task
    def commands(dag_run=None) -> list[str]:
        return list(dag_run.conf["commands"])

    RaySubmitJobOperator.partial(task_id="job", deferrable=True, **RETRIED).expand(entrypoint=commands())

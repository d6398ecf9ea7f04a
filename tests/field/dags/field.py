"""One DAG for each way to run a job. The run's conf has the job's command."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.operators import RaySubmitJobOperator

RETRIES = 3
COMMAND = "{{ dag_run.conf['command'] }}"
ALL = {"entrypoint": COMMAND, "retries": RETRIES, "retry_delay": timedelta(seconds=2)}
ONCE = {"retries": 0}

#: The additional arguments of the task, by kind of DAG.
TASKS = {
    "plain": {},
    # Waits in the broker until a worker consumes this queue.
    "queued": {"queue": "later"},
    # Has files, whose upload the proxy can hold.
    "uploading": {"runtime_env": {"working_dir": "{{ dag_run.conf['working_dir'] }}"}},
    # Is PENDING while another job holds the resource.
    "pending": {"entrypoint_resources": {"held": 0.01}},
    "once": ONCE,
    "execution_timeout": {"execution_timeout": timedelta(seconds=20), **ONCE},
    "job_timeout": {"job_timeout": 15, **ONCE},
    "dagrun_timeout": ONCE,
}

for kind, arguments in TASKS.items():
    for deferrable in (False, True):
        mode = "deferrable" if deferrable else "sync"
        timeout = timedelta(seconds=25) if kind == "dagrun_timeout" else None
        with DAG(f"field_{kind}_{mode}", schedule=None, dagrun_timeout=timeout):
            RaySubmitJobOperator(task_id="job", deferrable=deferrable, **ALL | arguments)

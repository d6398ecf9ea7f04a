"""Wait for a cluster, submit a job without waiting, wait for it in a sensor, stop it, and delete its record."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.operators import RayDeleteJobOperator, RayStopJobOperator, RaySubmitJobOperator
from airflow_provider_rayjobs.sensors import RayClusterSensor, RayJobSensor

with DAG("ray_job_sensors", schedule=None, catchup=False, tags=["ray"]):
    # A head answers long before it can run jobs, so this sensor runs a trivial job, with one CPU reserved for it.
    cluster = RayClusterSensor(
        task_id="cluster", entrypoint_num_cpus=1, poke_interval=2, timeout=300, mode="reschedule"
    )

    # For example a service, which runs until it is stopped.
    serve = RaySubmitJobOperator(
        task_id="serve",
        entrypoint="echo serving; sleep 3600",
        wait_for_completion=False,
    )
    service = str(serve.output)  # the template of the submission id, which the task returns
    up = RayJobSensor(
        task_id="up",
        submission_id=service,
        target_statuses=["RUNNING"],
        poke_interval=2,
        timeout=300,
        deferrable=True,
    )
    use = RaySubmitJobOperator(task_id="use", entrypoint="echo using the service")

    # The service is stopped and its record deleted, however `use` ends.
    stop = RayStopJobOperator(task_id="stop", submission_id=service, trigger_rule="all_done")
    delete = RayDeleteJobOperator(task_id="delete", submission_id=service)

    cluster >> serve >> up >> use >> stop >> delete

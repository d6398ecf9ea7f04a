"""A job in each of the ways in which a task follows it."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_rayjobs.operators import RaySubmitJobOperator

SECRET = "hidden-from-lineage"
BACKEND = "OPENLINEAGE__TRANSPORT__TRANSPORTS__HTTP1"
TELL = "echo parent=$OPENLINEAGE_PARENT_ID root=$OPENLINEAGE_ROOT_PARENT_ID"

with DAG("lineage", schedule=None):
    for name, ending in (("succeeds", "exit 0"), ("fails", "echo $PLAIN; exit 3")):
        for deferrable in (False, True):
            RaySubmitJobOperator(
                task_id=f"{name}_{'deferred' if deferrable else 'here'}",
                entrypoint=f"{TELL}; {ending}",
                secret_env_vars={"PLAIN": SECRET},
                deferrable=deferrable,
                poll_interval=1,
            )

    RaySubmitJobOperator(
        task_id="transport",
        entrypoint=f"echo url=${BACKEND}__URL key=${BACKEND}__AUTH__API_KEY",
        deferrable=True,
        poll_interval=1,
        openlineage_inject_parent_job_info=False,
        openlineage_inject_transport_info=True,
    )

    @task.ray_job(deferrable=True, poll_interval=1)
    def function():
        import os

        return os.environ["OPENLINEAGE_PARENT_ID"]

    @task.ray_job(runtime_env={"env_vars": {"OPENLINEAGE_PARENT_ID": "mine"}}, poll_interval=1)
    def own_parent():
        import os

        return os.environ["OPENLINEAGE_PARENT_ID"]

    RaySubmitJobOperator.partial(task_id="mapped", deferrable=True, poll_interval=1).expand(entrypoint=[TELL])
    function()
    own_parent()

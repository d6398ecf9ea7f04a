"""The smallest DAG: one command on a Ray cluster.

It runs on the cluster that the connection `ray_default` names, for example:

    export AIRFLOW_CONN_RAY_DEFAULT='{"conn_type": "ray_jobs", "host": "http://ray-head", "port": 8265}'
"""

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.operators import RaySubmitJobOperator

with DAG("ray_job_minimal", schedule=None):
    RaySubmitJobOperator(task_id="hello", entrypoint="python -c 'print(\"Hello from Ray\")'")

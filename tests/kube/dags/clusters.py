"""DAGs whose tasks run on clusters that KubeRay makes."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.kuberay import KubeRayCluster, ray_cluster
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.sensors import RayClusterSensor

COMMAND = "{{ dag_run.conf['command'] }}"
RETRIED = {"retries": 1, "retry_delay": timedelta(seconds=1), "poll_interval": 2.0}
SPEC = """
headGroupSpec:
  rayStartParams: {}
  template: {spec: {containers: [{name: ray-head, image: "ray.example/ray:2.60.0"}]}}
"""


def cluster(start_timeout: float = 120, **arguments) -> KubeRayCluster:
    annotations = {"bench/play": "{{ dag_run.conf.get('play', '') }}"}
    return KubeRayCluster(
        SPEC,
        kubernetes_conn_id="kube_bench",
        access="proxy",
        annotations=annotations,
        start_timeout=start_timeout,
        history_url="https://history.example/{namespace}/{cluster}/{session}/{submission_id}",
        **arguments,
    )


for name, deferrable in (("kc_sync", False), ("kc_deferred", True)):
    with DAG(name, schedule=None):
        RaySubmitJobOperator(task_id="job", entrypoint=COMMAND, cluster=cluster(), deferrable=deferrable, **RETRIED)

with DAG("kc_many", schedule=None, max_active_runs=20, max_active_tasks=20):
    # Airflow's scheduler may fail a task whose trigger fires before it has seen the deferral. The retry takes over.
    more = RETRIED | {"retries": 2}
    RaySubmitJobOperator(task_id="job", entrypoint=COMMAND, cluster=cluster(600), deferrable=True, **more)

with DAG("kc_shared", schedule=None), ray_cluster(cluster(lifetime=600), deferrable=True) as shared:
    ready = RayClusterSensor(task_id="ready", cluster=shared, poke_interval=1, deferrable=True)
    first = RaySubmitJobOperator(task_id="first", entrypoint=COMMAND, cluster=shared)
    second = RaySubmitJobOperator(task_id="second", entrypoint=COMMAND, cluster=shared, deferrable=True)
    ready >> first >> second

"""A Ray cluster for one DAG run: KubeRay creates it, the job runs, and it is deleted however the job ends."""

from __future__ import annotations

from airflow.providers.cncf.kubernetes.operators.resource import (
    KubernetesCreateResourceOperator,
    KubernetesDeleteResourceOperator,
)
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.sensors import RayClusterSensor

# KubeRay creates the service `airflow-ray-head-svc` for it, in the same namespace.
RAY_CLUSTER = """
apiVersion: ray.io/v1
kind: RayCluster
metadata:
  name: airflow-ray
  namespace: ray
spec:
  headGroupSpec:
    rayStartParams:
      dashboard-host: "0.0.0.0"
      num-cpus: "0"  # work goes to the workers
    template:
      spec:
        containers:
          - name: ray-head
            image: rayproject/ray:2.60.0
            resources:
              requests: {cpu: "1", memory: 4Gi}
              limits: {cpu: "1", memory: 4Gi}
  workerGroupSpecs:
    - groupName: workers
      replicas: 2
      minReplicas: 2
      maxReplicas: 2
      rayStartParams: {}
      template:
        spec:
          containers:
            - name: ray-worker
              image: rayproject/ray:2.60.0
              resources:
                requests: {cpu: "2", memory: 4Gi}
                limits: {cpu: "2", memory: 4Gi}
"""

with DAG(
    "ray_on_kubernetes",
    schedule=None,
    max_active_runs=1,  # the cluster's name and the connection's host are fixed
    tags=["ray"],
):
    create = KubernetesCreateResourceOperator(
        task_id="create",
        yaml_conf=RAY_CLUSTER,
        custom_resource_definition=True,
    ).as_setup()

    # At first, the head's host name does not resolve. In reschedule mode, the sensor retries until `timeout` passes.
    ready = RayClusterSensor(
        task_id="ready",
        ray_conn_id="ray_kubernetes",
        entrypoint_num_cpus=1,
        mode="reschedule",
        poke_interval=15,
        timeout=20 * 60,
    ).as_setup()

    job = RaySubmitJobOperator(
        task_id="job",
        ray_conn_id="ray_kubernetes",
        entrypoint="python -c 'import ray; ray.init(); print(ray.cluster_resources())'",
        entrypoint_num_cpus=1,
        deferrable=True,
        retries=2,
    )

    delete = KubernetesDeleteResourceOperator(
        task_id="delete",
        yaml_conf=RAY_CLUSTER,
        custom_resource_definition=True,
        retries=3,
    ).as_teardown(setups=[create, ready])

    create >> ready >> job >> delete

"""A Ray cluster for one task, and one for several tasks of a run: KubeRay makes them, and each removes itself."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.kuberay import KubeRayCluster, ray_cluster
from airflow_provider_rayjobs.operators import RaySubmitJobOperator

# The spec of a RayCluster: a dict, YAML, or the path of a YAML file. All of it is a template.
SPEC = """
headGroupSpec:
  rayStartParams: {num-cpus: "0"}  # work goes to the workers
  template:
    spec:
      containers:
        - name: ray-head
          image: rayproject/ray:{{ params.ray }}
          resources: {requests: {cpu: "1", memory: 4Gi}, limits: {cpu: "1", memory: 4Gi}}
workerGroupSpecs:
  - groupName: workers
    replicas: {{ params.workers }}
    minReplicas: {{ params.workers }}
    maxReplicas: {{ params.workers }}
    rayStartParams: {}
    template:
      spec:
        containers:
          - name: ray-worker
            image: rayproject/ray:{{ params.ray }}
            resources: {requests: {cpu: "2", memory: 4Gi}, limits: {cpu: "2", memory: 4Gi}}
"""

with DAG("ray_job_kubernetes", schedule=None, catchup=False, params={"ray": "2.60.0", "workers": 2}, tags=["ray"]):
    # The cluster lives as long as this job.
    alone = RaySubmitJobOperator(
        task_id="alone",
        entrypoint="python -c 'import ray; ray.init(); print(ray.cluster_resources())'",
        cluster=KubeRayCluster(SPEC, namespace="ray", labels={"team": "data"}),
        deferrable=True,
        retries=2,
    )

    # This cluster lives from the first to the last task of the block.
    with ray_cluster(KubeRayCluster(SPEC, namespace="ray", lifetime=2 * 3600), deferrable=True) as cluster:
        prepare = RaySubmitJobOperator(task_id="prepare", entrypoint="echo preparing", cluster=cluster)
        train = RaySubmitJobOperator(
            task_id="train", entrypoint="echo training", entrypoint_num_cpus=1, cluster=cluster, deferrable=True
        )
        alone >> prepare >> train

"""DAGs of an Airflow that is killed: without retries, and with clusters that end soon if nobody cares for them."""

from __future__ import annotations

from pathlib import Path

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.standard.operators.bash import BashOperator

from airflow_provider_rayjobs.kuberay import KubeRayCluster, ray_cluster
from airflow_provider_rayjobs.kubernetes import lease, manifest
from airflow_provider_rayjobs.operators import RaySubmitJobOperator

lease.NOTICE_SECONDS = 5  # a cluster whose task has died stays for this time after the job's end
lease.RESULT_SECONDS = 5
manifest.SUBMISSION_LEAST = 30.0

COMMAND = "{{ dag_run.conf['command'] }}"


def cluster(**arguments) -> KubeRayCluster:
    return KubeRayCluster(
        str(Path(__file__).with_name("cluster.yaml")),
        kubernetes_conn_id="kube_bench",
        access="proxy",
        annotations={"bench/play": "{{ dag_run.conf.get('play', '') }}"},
        start_timeout=40,
        **arguments,
    )


with DAG("kc_dying", schedule=None):
    for name, deferrable in (("sync", False), ("deferred", True)):
        RaySubmitJobOperator(
            task_id=name, entrypoint=COMMAND, cluster=cluster(), deferrable=deferrable, poll_interval=2.0
        )

with DAG("kc_dying_shared", schedule=None), ray_cluster(cluster(lifetime=90)) as shared:
    first = RaySubmitJobOperator(task_id="first", entrypoint=COMMAND, cluster=shared)
    between = BashOperator(task_id="between", bash_command="echo waiting; sleep 600")
    second = RaySubmitJobOperator(task_id="second", entrypoint=COMMAND, cluster=shared)
    first >> between >> second

"""Reaches a cluster that KubeRay made, from a worker and from the triggerer, and ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.threads import in_airflows_thread
from airflow_provider_rayjobs.compat.masking import register_cluster
from airflow_provider_rayjobs.kubernetes.access import connection_to, find_head
from airflow_provider_rayjobs.kubernetes.api import KubeApi, async_kube_api
from airflow_provider_rayjobs.kubernetes.cluster import PROXY
from airflow_provider_rayjobs.kubernetes.lease import delete

if TYPE_CHECKING:
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef


def connect(ref: ClusterRef, log: Any, **options: Any) -> ClusterConnection:
    """
    Return how to talk to a cluster; its secrets are masked.

    :param options: other arguments of :class:`~airflow_provider_rayjobs.kubernetes.api.KubeApi`.
    :raises RayClusterStartError: the cluster is gone.
    :raises RayKubernetesError: Kubernetes can't be asked, or refuses.
    """
    api = KubeApi(ref.kubernetes_conn_id, log, **options)
    head = api.run(find_head(ref))
    cluster = connection_to(ref, head, api.configuration() if ref.access == PROXY else None)
    register_cluster(cluster, passing=True)
    return cluster


async def async_connect(ref: ClusterRef, log: Any) -> ClusterConnection:
    """Return how to talk to a cluster, on an event loop; raises what :func:`connect` does."""
    async with async_kube_api(ref.kubernetes_conn_id, log) as api:
        head = await api.run(find_head(ref))
    configuration = None
    if ref.access == PROXY:  # the other client's configuration may lack what the connection says of TLS
        configuration = await in_airflows_thread(lambda: KubeApi(ref.kubernetes_conn_id, log).configuration())
    cluster = connection_to(ref, head, configuration)
    await in_airflows_thread(lambda: register_cluster(cluster, passing=True))
    return cluster


def end(ref: ClusterRef, log: Any, patience: float = 0.0) -> bool:
    """
    Delete a RayJob, and so its cluster.

    :param patience: seconds for which the API server is tried if it is not reached.
    :return: whether it was there.
    """
    return KubeApi(ref.kubernetes_conn_id, log, patience=patience).run(delete(ref.namespace, ref.name, ref.uid))


async def async_end(ref: ClusterRef, log: Any, patience: float = 30.0) -> bool:
    """Delete a RayJob, and so its cluster, on an event loop."""
    async with async_kube_api(ref.kubernetes_conn_id, log, patience) as api:
        return await api.run(delete(ref.namespace, ref.name, ref.uid))

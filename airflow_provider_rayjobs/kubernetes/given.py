"""Checks which cluster was given. DAG files import this, so it loads nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.cluster.fields import DEFAULT_CONN_ID
from airflow_provider_rayjobs.exceptions import RayKubernetesRefusedError

if TYPE_CHECKING:
    from typing import TypeGuard

    from airflow_provider_rayjobs.kubernetes.cluster import KubeRayCluster


def is_to_be_made(cluster: Any) -> TypeGuard[KubeRayCluster]:
    """Whether a ``cluster`` is a :class:`KubeRayCluster`. Its module is loaded only if there is a cluster at all."""
    if cluster is None:
        return False
    from airflow_provider_rayjobs.kubernetes.cluster import KubeRayCluster

    return isinstance(cluster, KubeRayCluster)


def check_one_cluster(ray_conn_id: Any, cluster: Any) -> None:
    """
    Check that a cluster is given in one way only.

    :raises ValueError: if there is a ``cluster`` and another connection than the default.
    """
    if cluster is not None and ray_conn_id != DEFAULT_CONN_ID:
        raise ValueError(
            f"ray_conn_id={ray_conn_id!r} is not used beside cluster; give one of them (ray_conn_id may come from "
            "default_args)"
        )


def check_makes_none(ray_conn_id: Any, cluster: Any) -> None:
    """
    Check the cluster of a task that uses one, and makes none.

    :raises ValueError: if there is a ``cluster`` and another connection than the default.
    :raises TypeError: if ``cluster`` describes a cluster to make.
    """
    check_one_cluster(ray_conn_id, cluster)
    if is_to_be_made(cluster):
        raise TypeError(
            "only a task that submits a job makes a cluster; give this one the cluster of `with ray_cluster(…) as "
            "cluster`"
        )


def known_cluster(cluster: Any, *, is_given: bool) -> Any:
    """
    Return the rendered ``cluster`` of a task; None if the task uses a connection.

    :param is_given: whether the DAG author gave ``cluster``.
    :raises RayKubernetesRefusedError: it is None after rendering: no other cluster must be used instead.
    """
    if is_given and cluster is None:
        raise RayKubernetesRefusedError(
            "cluster is None: the task that makes the cluster was skipped or has failed, or its XCom is gone. Clear "
            "that task, or give this one a trigger_rule with which it does not run then"
        )
    return cluster

"""
Ray clusters that KubeRay makes on Kubernetes, for one task or for several tasks of a DAG run.

Needs the extra: ``pip install 'airflow-provider-rayjobs[kubernetes]'``.
"""

from __future__ import annotations

from airflow_provider_rayjobs.kuberay.shared import RayClusterDownOperator, RayClusterUpOperator, ray_cluster
from airflow_provider_rayjobs.kubernetes.cluster import KubeRayCluster

__all__ = ["KubeRayCluster", "RayClusterDownOperator", "RayClusterUpOperator", "ray_cluster"]

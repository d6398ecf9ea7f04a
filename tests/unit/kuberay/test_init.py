"""The public names."""

from __future__ import annotations

from airflow_provider_rayjobs import kuberay


def test_the_names_are_those_that_are_documented() -> None:
    assert set(kuberay.__all__) == {"KubeRayCluster", "RayClusterDownOperator", "RayClusterUpOperator", "ray_cluster"}
    assert all(hasattr(kuberay, name) for name in kuberay.__all__)

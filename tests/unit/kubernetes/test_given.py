"""Which cluster was given."""

from __future__ import annotations

import pytest

from airflow_provider_rayjobs.exceptions import RayKubernetesRefusedError
from airflow_provider_rayjobs.kubernetes.given import check_one_cluster, known_cluster


def test_a_cluster_is_given_in_one_way() -> None:
    check_one_cluster("mine", None)
    check_one_cluster("ray_default", {})
    with pytest.raises(ValueError, match="ray_conn_id='mine' is not used beside cluster"):
        check_one_cluster("mine", {})


def test_a_cluster_that_was_given_is_not_none() -> None:
    assert known_cluster(None, is_given=False) is None
    assert known_cluster({"a": 1}, is_given=True) == {"a": 1}
    with pytest.raises(RayKubernetesRefusedError, match="cluster is None"):
        known_cluster(None, is_given=True)

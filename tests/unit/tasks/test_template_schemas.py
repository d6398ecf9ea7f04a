"""What a template field may contain; ``test_rendering`` holds what becomes of each."""

from __future__ import annotations

from airflow_provider_rayjobs.kubernetes.cluster import KubeRayCluster
from airflow_provider_rayjobs.tasks.template_schemas import CLUSTER_SCHEMAS, SCHEMAS


def test_a_part_without_a_schema_has_that_of_the_whole() -> None:
    pip = SCHEMAS["runtime_env"].part("pip")
    assert pip.part("packages") is pip
    assert pip.part("pip_check").kind == "native"


def test_numbers_become_strings_where_strings_are_expected() -> None:
    given = {"env_vars": {"PORT": 8080}, "pip": {"packages": [1.5], "pip_check": True}, "my_plugin": {"a": 1}}
    assert SCHEMAS["runtime_env"].with_strings(given) == {
        "env_vars": {"PORT": "8080"},
        "pip": {"packages": ["1.5"], "pip_check": True},
        "my_plugin": {"a": 1},
    }


def test_the_fields_of_a_cluster_are_known() -> None:
    assert set(CLUSTER_SCHEMAS) <= set(KubeRayCluster.template_fields)

"""What Airflow's providers manager is told: every name in it leads to what it names."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook, BaseOperator, BaseOperatorLink

from airflow_provider_rayjobs import __version__
from airflow_provider_rayjobs.get_provider_info import get_provider_info

INFO = get_provider_info()


def named(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_airflow_finds_it_by_its_entry_point() -> None:
    found = [point for point in entry_points(group="apache_airflow_provider") if "rayjobs" in point.value]
    assert [point.load() for point in found] == [get_provider_info]


def test_the_version_is_the_packages() -> None:
    assert (INFO["package-name"], INFO["versions"]) == ("airflow-provider-rayjobs", [__version__])


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("hooks", {"RayJobHook", "RayJobAsyncHook"}),
        ("operators", {"RaySubmitJobOperator", "RayStopJobOperator", "RayDeleteJobOperator"}),
        ("sensors", {"RayJobSensor", "RayClusterSensor"}),
        ("triggers", {"RayJobTrigger", "RayConditionTrigger"}),
    ],
)
def test_each_module_holds_what_it_is_listed_for(kind: str, names: set[str]) -> None:
    (integration,) = INFO["integrations"]
    (listed,) = INFO[kind]
    assert listed["integration-name"] == integration["integration-name"]
    (module,) = listed["python-modules"]
    assert names <= vars(importlib.import_module(module)).keys()


def test_the_connection_type_is_the_hooks_own() -> None:
    (told,) = INFO["connection-types"]
    hook = named(told["hook-class-name"])
    assert issubclass(hook, BaseHook)
    assert (hook.conn_type, hook.hook_name) == (told["connection-type"], told["hook-name"])
    assert set(told["ui-field-behaviour"]) == {"hidden-fields", "relabeling", "placeholders"}


def test_links_and_decorators_are_there() -> None:
    assert all(issubclass(named(path), BaseOperatorLink) for path in INFO["extra-links"])
    assert set(INFO["extra-links"]) == {
        f"{type(link).__module__}.{type(link).__qualname__}"
        for link in named("airflow_provider_rayjobs.operators.RaySubmitJobOperator").operator_extra_links
    }
    (decorator,) = INFO["task-decorators"]
    assert callable(named(decorator["class-name"]))
    assert issubclass(named("airflow_provider_rayjobs.operators.RaySubmitJobOperator"), BaseOperator)


def test_every_option_says_what_a_deployment_needs() -> None:
    options = INFO["config"]["ray_jobs"]["options"]
    assert {name: (option["type"], option["default"]) for name, option in options.items()} == {
        "allowed_modules": ("string", ""),
        "credential_folders": ("string", ""),
        "task_view": ("boolean", "False"),
    }
    for option in options.values():
        assert option["description"].endswith(".\n")
        assert option["example"]

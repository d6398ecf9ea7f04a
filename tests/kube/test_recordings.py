"""The played KubeRay does what the recordings of KubeRay say: the same script runs against it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes import config

from tests.support import environment
from tests.support.processes import output_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kube.bench import Access, Kube
    from tests.kube.controller import KubeRay

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import record_kuberay

FILES = sorted((Path(__file__).parent / "recordings").glob("*.json"))
RECORDED = {file.stem: json.loads(file.read_text())["scenarios"] for file in FILES}


@pytest.fixture
def play(cheap_kuberay: KubeRay, access: Access) -> Iterator[Callable[[str], dict[str, Any]]]:
    """A function that plays a scenario, with the rights of an Airflow."""
    settings = record_kuberay.Settings(access.namespace, "ray.example/ray:2.60.0", deadline=5, hold=2)
    with config.new_client_from_config_dict(access.kubeconfig, persist_config=False) as api:
        yield lambda name: record_kuberay.record(api, settings, name)


@pytest.mark.parametrize("scenario", record_kuberay.SCENARIOS)
def test_the_states_are_those_of_each_recording(play: Callable[[str], dict[str, Any]], scenario: str) -> None:
    played = play(scenario)
    for name, scenarios in RECORDED.items():
        if scenario in scenarios:
            assert record_kuberay.steps(played) == record_kuberay.steps(scenarios[scenario]), f"{name}: {played}"
    assert not [one["what"] for one in played["notes"] if "broke" in one["what"] or " after " in one["what"]]


def test_a_recording_tells_what_happened(play: Callable[[str], dict[str, Any]]) -> None:
    played = play("no node fits")
    assert {one["type"]: one["status"] for one in played["conditions"]} == {
        "HeadPodReady": "False",
        "RayClusterProvisioned": "False",
        "RayClusterSuspended": "False",
        "RayClusterSuspending": "False",
    }
    told = {(one["about"], one["reason"], one["by"]) for one in played["events"]}
    assert ("Pod", "FailedScheduling", "default-scheduler") in told
    assert ("RayJob", "CreatedRayCluster", "kuberay-operator") in told
    assert [one["what"] for one in played["notes"]] == ["made", "held", "deleted", "RayJob gone"]


def test_the_tool_writes_a_recording(cheap_kuberay: KubeRay, kube: Kube, access: Access, tmp_path: Path) -> None:
    kubeconfig, output = tmp_path / "kubeconfig", tmp_path / "recording.json"
    kubeconfig.write_text(json.dumps(access.kubeconfig))
    options = ["--namespace", access.namespace, "--image", "ray.example/ray:1", "--only", "refused"]
    env = environment.for_programs() | {"KUBECONFIG": str(kubeconfig)}
    output_of(
        [sys.executable, str(record_kuberay.__file__), *options, "--output", output], cwd=tmp_path, env=env, timeout=100
    )
    recording = json.loads(output.read_text())
    assert record_kuberay.steps(recording["scenarios"]["refused"]) == [["ValidationFailed", "ValidationFailed"]]
    assert recording["kubernetes"]
    assert kube.left(access.namespace) == []


def test_all_scenarios_are_expected() -> None:
    assert RECORDED["as-read"].keys() == record_kuberay.SCENARIOS.keys()

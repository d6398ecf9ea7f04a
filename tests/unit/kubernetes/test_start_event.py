"""The event of the trigger that waits for a cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_rayjobs.exceptions import RayClusterStartError, RayKubernetesError, RayKubernetesRefusedError
from airflow_provider_rayjobs.kubernetes.start_event import StartEvent


@pytest.mark.parametrize("kind", [RayKubernetesRefusedError, RayClusterStartError, RayKubernetesError])
def test_an_error_arrives_as_itself(kind: type[RayKubernetesError]) -> None:
    event = StartEvent.of_error(kind("no room\x00"), number=2, waited=("after 1 s: pods",))
    read = StartEvent.from_json(json.loads(json.dumps(event.to_json())))
    assert (read.number, read.waited) == (2, ("after 1 s: pods",))
    with pytest.raises(kind, match="no room") as caught:
        read.raise_if_failed()
    assert type(caught.value) is kind


def test_a_ready_cluster_is_no_error() -> None:
    StartEvent.from_json(StartEvent("ready").to_json()).raise_if_failed()


@pytest.mark.parametrize("data", [None, {}, {"version": 2, "outcome": "ready"}, {"version": 1, "outcome": "maybe"}])
def test_other_data_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="must run the same version"):
        StartEvent.from_json(data)

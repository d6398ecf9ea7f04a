"""A few words on a cluster's size, from a route that may give anything."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_rayjobs.client.cluster_status import describe_resources
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError
from tests.support.flows import answer_to, outcome


def status(usage: Any, nodes: Any) -> bytes:
    report = {"usage": usage, "nodeTypes": nodes}
    return json.dumps({"data": {"clusterStatus": {"loadMetricsReport": report}}}).encode()


@pytest.mark.parametrize(
    ("usage", "nodes", "words"),
    [
        ({"CPU": [1.0, 4.0]}, [[{"node:a": 1}, 1]], "1 node, 3 of 4 CPUs free"),
        ({"GPU": [0.5, 2], "CPU": [0, 8]}, [[{}, 2], [{}, 3]], "5 nodes, 8 of 8 CPUs free, 1.5 of 2 GPUs free"),
        ({"memory": [1, 2]}, [[{}, 1]], "1 node"),
        ({}, [], "0 nodes"),
    ],
)
def test_nodes_and_what_is_free(usage: Any, nodes: Any, words: str) -> None:
    assert outcome(describe_resources(), status(usage, nodes)) == words


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"<html>",
        b'{"data": {"clusterStatus": null}}',
        status({"CPU": "x"}, []),
        status({"CPU": [1]}, []),
        status({}, [["x"]]),
        status({"CPU": ["x", "y"]}, []),
        status({}, [[{}, float("inf")]]),
    ],
)
def test_what_the_route_does_not_tell_is_left_out(body: bytes) -> None:
    assert outcome(describe_resources(), body) == ""


@pytest.mark.parametrize("code", [401, 404, 502])
def test_no_answer_is_no_error(code: int) -> None:
    flow = describe_resources()
    request = next(flow)
    assert request.path == "/api/cluster_status"  # type: ignore[union-attr]
    assert not request.repeatable  # type: ignore[union-attr]
    with pytest.raises(StopIteration) as end:
        flow.send(answer_to(request, b"no", code))  # type: ignore[arg-type]
    assert end.value.value == ""
    lost = describe_resources()
    next(lost)
    with pytest.raises(StopIteration) as end:
        lost.throw(RayClusterUnreachableError("gone"))
    assert end.value.value == ""

"""A few words on a cluster's size, from a route that may give anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.client.cluster_status import ClusterResources, cluster_resources, describe_resources
from airflow_provider_rayjobs.client.exchange import Request
from airflow_provider_rayjobs.diagnosis.pending import why_pending
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError
from airflow_provider_rayjobs.jobs import JobDetails, JobStatus
from tests.support import answers
from tests.support.flows import answer_to, outcome, response


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


#: A job that waits for CPUs.
PENDING = JobDetails("SUBMISSION", JobStatus.PENDING, "a", metadata={keys.RESOURCES: '{"CPU": 2}'})


def read(body: Any) -> ClusterResources | None:
    flow = cluster_resources()
    assert isinstance(next(flow), Request)
    try:
        flow.send(response(answers.as_json(body) if not isinstance(body, answers.Answer) else body))
    except StopIteration as stop:
        found: ClusterResources | None = stop.value
        return found
    raise AssertionError("one request only")


USAGE = {"ab": {"CPU": [1.0, 2.0], "node:__internal_head__": [0, 1]}}


def report_of(**more: Any) -> dict[str, Any]:
    return {"data": {"clusterStatus": {"loadMetricsReport": {"usageByNode": USAGE}, **more}}, "result": True}


def test_what_the_head_reports_is_read() -> None:
    plain = read(report_of())
    assert plain == ClusterResources(({"CPU": (1.0, 2.0), "node:__internal_head__": (0.0, 1.0)},))
    mapping = {"ab": "ray.head.default"}
    scaling = read(report_of(autoscalerReport={"nodeTypeMapping": mapping, "pendingResources": {"GPU": 4}}))
    assert scaling is not None
    assert (scaling.autoscales, scaling.starting) == (True, {"GPU": 4.0})
    fixed = read(report_of(autoscalerReport={"nodeTypeMapping": {"ab": "node_ab"}, "pendingResources": None}))
    assert fixed is not None
    assert (fixed.autoscales, fixed.starting) == (False, {})
    assert read(report_of(autoscalerReport={})) == plain


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_report_is_read_or_is_no_answer(part: Any) -> None:
    for body in (part, {"data": part}, {"data": {"clusterStatus": part}}, report_of(autoscalerReport=part)):
        found = read(body)
        assert found is None or isinstance(why_pending(PENDING, found), str)


def test_no_answer_gives_no_resources() -> None:
    assert read(answers.internal_error()) is None
    assert read(answers.html(404)) is None
    assert outcome(cluster_resources(), b"[]") is None

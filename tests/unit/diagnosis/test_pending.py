"""Why a job is PENDING: what it asks for, what there is, and whether it can ever be had."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.client.cluster_status import ClusterResources
from airflow_provider_rayjobs.diagnosis import pending
from airflow_provider_rayjobs.diagnosis.pending import (
    ExplainTimes,
    wanted_resources,
    why_pending,
)
from airflow_provider_rayjobs.jobs import JobDetails, JobStatus

SAID = "Job has not started yet."


def job(wanted: Any = None, *, message: str | None = SAID, **fields: Any) -> JobDetails:
    metadata = {} if wanted is None else {keys.RESOURCES: wanted if isinstance(wanted, str) else json.dumps(wanted)}
    return JobDetails("SUBMISSION", JobStatus.PENDING, "a", message=message, metadata=metadata, **fields)


def node(**resources: tuple[float, float]) -> dict[str, tuple[float, float]]:
    return resources


TWO_NODES = (node(CPU=(4.0, 4.0), GPU=(1.0, 1.0)), node(CPU=(3.0, 4.0), GPU=(0.0, 1.0)))


@pytest.mark.parametrize(
    ("wanted", "cluster", "reason"),
    [
        ({"GPU": 4}, ClusterResources(TWO_NODES), "but no node has 4 GPU (at most 1 GPU); Ray"),
        (
            {"GPU": 4},
            ClusterResources(TWO_NODES, autoscales=False),
            "but no node has 4 GPU (at most 1 GPU), and there is no autoscaler",
        ),
        (
            {"GPU": 4},
            ClusterResources(TWO_NODES, autoscales=True, starting={"CPU": 8}),
            "(at most 1 GPU); the autoscaler starts no node for it: no node type has this, or the",
        ),
        (
            {"GPU": 4},
            ClusterResources(TWO_NODES, autoscales=True, starting={"CPU": 1, "GPU": 4}),
            "no node has 4 GPU (at most 1 GPU); the autoscaler is starting a node",
        ),
        ({"CPU": 2}, ClusterResources(TWO_NODES), "needs 2 CPU on one node, free are 1 CPU of 8 CPU"),
        ({"CPU": 1}, ClusterResources(TWO_NODES), "needs 1 CPU on one node, which is free"),
        ({"CPU": 4, "GPU": 1, "TPU": 1}, ClusterResources(TWO_NODES), "no node has 1 TPU (at most 0 TPU)"),
        (
            {"a": 1, "b": 1},
            ClusterResources((node(a=(0.0, 1.0)), node(b=(0.0, 1.0)))),
            "needs 1 a, 1 b on one node, but no node has all of it",
        ),
        ({"memory": 8 * 2**30}, ClusterResources((node(memory=(0.0, 2.0**32)),)), "needs 8 GiB of memory on one node"),
        ({"CPU": 2}, None, "needs 2 CPU on one node; Ray: "),
        ({"CPU": 2}, ClusterResources(()), "but no node has 2 CPU (at most 0 CPU)"),
    ],
)
def test_the_reason_says_what_is_needed_and_what_there_is(
    wanted: dict[str, float], cluster: ClusterResources | None, reason: str
) -> None:
    found = why_pending(job(wanted), cluster)
    assert reason in found
    assert found.endswith(f"; Ray: {SAID}")


def test_a_job_without_resources_waits_for_its_set_up_or_for_what_ray_says() -> None:
    cluster = ClusterResources(TWO_NODES)
    assert why_pending(job(), cluster) == f"Ray: {SAID}"
    assert why_pending(job(message=None), cluster) == ""
    set_up = why_pending(job(runtime_env={"pip": ["torch"]}), cluster)
    assert set_up == f"its runtime environment is being set up; Ray: {SAID}"
    both = why_pending(job({"CPU": 1}, runtime_env={"pip": ["torch"]}), cluster)
    assert both.startswith("needs 1 CPU on one node, which is free, so its runtime environment is being set up; ")
    assert why_pending(job(message="a\nb\r\n c"), None) == "Ray: a b c", "one line"


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", "[1]", '{"CPU": "x"}', '{"CPU": [1]}', "[" * 100_000, '{"CPU": 1e999999}']
)
def test_metadata_that_anyone_wrote_is_no_error(text: str) -> None:
    assert set(wanted_resources(job(text))) <= {"CPU"}
    assert why_pending(job(text), ClusterResources(TWO_NODES))


def test_what_anyone_wrote_is_bounded() -> None:
    large = json.dumps({"CPU": 2, "x" * pending.MAX_RESOURCES: 1})
    assert wanted_resources(job(large)) == {}
    assert len(why_pending(job(message="x" * 20_000), None)) <= pending.MAX_MESSAGE + 10


def test_no_part_of_a_secret_at_the_cut_is_shown() -> None:
    message = "x" * (pending.MAX_MESSAGE - 3) + "hunter2"
    found = why_pending(job(message=message), None, lambda text: text.replace("hunter2", "***"))
    assert found.endswith("x***")
    login = why_pending(job(message="pip install https://me:passw0rd@example.com/x"), None)
    assert "passw0rd" not in login


def test_a_node_that_starts_must_have_all_that_is_wanted() -> None:
    cluster = ClusterResources(TWO_NODES, autoscales=True, starting={"CPU": 1, "GPU": 4})
    assert "the autoscaler starts no node for it" in why_pending(job({"CPU": 1, "GPU": 8}), cluster)


def test_the_times_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pending.time, "monotonic", lambda: now[0])
    times = ExplainTimes()
    due = []
    for second in range(1000):
        now[0] = float(second)
        if times.is_due():
            due.append(second)
    assert due == [10, 30, 60, 120, 240, 540, 840]

"""Every metric of the page arrives at a StatsD server, with its tags, and nothing arrives that is not on the page."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.observability.metrics import CAUSES, METRICS, Kind
from tests.airflow.drivers import driver, wait_statuses
from tests.support import faults

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.observability.statsd import Sample, StatsDServer
    from tests.support.airflow_env import AirflowEnv
    from tests.support.faulty_proxy import FaultyProxy
    from tests.support.ray_head import RayHead

pytestmark = pytest.mark.timeout(600)

TYPES = {Kind.COUNTER: "c", Kind.TIMER: "ms", Kind.GAUGE: "g"}


def wait_for(statsd: StatsDServer, name: str, of: Callable[[Sample], bool], timeout: float = 30.0) -> list[Sample]:
    """Wait for a metric, whose name is given without ``ray_jobs.``."""
    deadline = time.monotonic() + timeout
    while not (found := [one for one in statsd.received() if one.name == f"ray_jobs.{name}" and of(one)]):
        assert time.monotonic() < deadline, (name, statsd.received())
        time.sleep(0.2)
    return found


def of_dag(dag_id: str) -> Callable[[Sample], bool]:
    return lambda one: one.tags.get("dag_id") == dag_id


def test_a_job_on_a_worker(airflow: AirflowEnv, statsd: StatsDServer, tmp_path: Path) -> None:
    airflow.trigger("observed_sync", "plain", {"command": driver(tmp_path / "trace", 4)})
    airflow.wait_task("observed_sync", "plain", "job", "success")
    mine = of_dag("observed_sync")
    tags = {"conn_id": "ray_default", "dag_id": "observed_sync", "task_id": "job"}
    (submitted,) = wait_for(statsd, "submitted", mine)
    assert submitted == ("ray_jobs.submitted", tags, 1.0, "c")
    (uploaded,) = wait_for(statsd, "upload_bytes", mine)
    assert 100 < uploaded.value < 10_000
    (pending,), (ran,) = wait_for(statsd, "pending_time", mine), wait_for(statsd, "run_time", mine)
    assert ran.value > 0
    assert 3_500 < pending.value + ran.value < 60_000, "4 s, and what Ray needs to start it"
    assert wait_for(statsd, "head_requests", lambda one: one.tags == {"conn_id": "ray_default"})
    assert not [one for one in statsd.received() if one.name == "ray_jobs.failed" and mine(one)]


def test_a_deferred_job_that_fails(airflow: AirflowEnv, statsd: StatsDServer, tmp_path: Path) -> None:
    airflow.trigger("observed_deferred", "failing", {"command": driver(tmp_path / "trace", 8, exit_code=3)})
    followed = wait_for(statsd, "followed", lambda one: one.value > 0, 120)
    assert followed[0].tags.keys() == {"conn_id", "hostname"}
    airflow.wait_task("observed_deferred", "failing", "job", "failed", try_number=2, timeout=180)
    mine = of_dag("observed_deferred")
    failed = wait_for(statsd, "failed", mine)
    assert [one.tags["cause"] for one in failed] == ["job_entrypoint_command_error"] * 2
    assert len(wait_for(statsd, "submitted", mine)) == 2
    pending, ran = wait_for(statsd, "pending_time", mine), wait_for(statsd, "run_time", mine)
    for waited, took in zip(pending, ran, strict=True):
        assert took.value > 0
        assert 7_500 < waited.value + took.value < 60_000, "8 s, and what Ray needs to start it"
    last = followed[-1]
    wait_for(statsd, "followed", lambda one: one.value == 0 and one.tags == last.tags)


def test_a_job_that_the_next_try_follows(
    airflow: AirflowEnv, statsd: StatsDServer, ray_head: RayHead, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    before = len([one for one in statsd.received() if one.name == "ray_jobs.submitted"])
    airflow.trigger("observed_sync", "lost", {"command": driver(tmp_path / "trace", gate)})
    wait_statuses(ray_head, "lost", ["RUNNING"], 60)
    airflow.kill_task("observed_sync", "lost", "job", supervisor=True)
    (reattached,) = wait_for(statsd, "reattached", of_dag("observed_sync"), 180)
    assert (reattached.value, reattached.kind) == (1.0, "c")
    gate.touch()
    airflow.wait_task("observed_sync", "lost", "job", "success", try_number=2)
    assert len([one for one in statsd.received() if one.name == "ray_jobs.submitted"]) == before + 1


def test_a_job_that_the_next_try_stops(
    airflow: AirflowEnv, statsd: StatsDServer, ray_head: RayHead, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    airflow.trigger("observed_own", "lost-own", {"command": driver(tmp_path / "trace", gate)})
    wait_statuses(ray_head, "lost-own", ["RUNNING"], 60)
    airflow.kill_task("observed_own", "lost-own", "job", supervisor=True)
    (stopped,) = wait_for(statsd, "orphans_stopped", of_dag("observed_own"), 180)
    assert (stopped.value, stopped.kind) == (1.0, "c")
    gate.touch()
    airflow.wait_task("observed_own", "lost-own", "job", "success", try_number=2)


def test_a_job_whose_answer_was_lost(
    airflow: AirflowEnv, statsd: StatsDServer, unreliable_head: FaultyProxy, tmp_path: Path
) -> None:
    unreliable_head.on(faults.swallow_response(), "POST", "/api/jobs/", times=1)
    airflow.trigger("observed_unreliable", "plain", {"command": driver(tmp_path / "trace", 1)})
    airflow.wait_task("observed_unreliable", "plain", "job", "success")
    mine = of_dag("observed_unreliable")
    (adopted,) = wait_for(statsd, "adopted", mine)
    assert adopted.tags == {"conn_id": "ray_unreliable", "dag_id": "observed_unreliable", "task_id": "job"}
    assert not [one for one in statsd.received() if one.name == "ray_jobs.submitted" and mine(one)]
    requests = wait_for(statsd, "head_requests", lambda one: one.tags == {"conn_id": "ray_unreliable"})
    assert sum(one.value for one in requests) == len(unreliable_head.requests), "as many as the head got"


def test_all_of_the_page_was_received_and_nothing_else(statsd: StatsDServer) -> None:
    """Runs after the other tests of this file."""
    received = statsd.received()
    of_name = {metric.name: metric for metric in METRICS}
    assert {one.name for one in received} == of_name.keys()
    for one in received:
        metric = of_name[one.name]
        assert (one.kind, sorted(one.tags)) == (TYPES[metric.kind], sorted(metric.tags)), one
        assert one.tags.get("cause", "other") in CAUSES
    print(Counter(one.name for one in received))

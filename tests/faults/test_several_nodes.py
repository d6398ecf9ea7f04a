"""A real cluster of three nodes: jobs on another node than the head, a killed node and a killed head."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_rayjobs.decorators import RayJobDecoratedOperator
from airflow_provider_rayjobs.exceptions import (
    RayJobFailedError,
    RayJobLostError,
    RayJobStoppedError,
    RayJobTimeoutError,
)
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from tests.support.ray_cluster import RayCluster, RayNode
from tests.support.ray_head import require_ray_since
from tests.support.redis_server import Redis
from tests.support.tries import Tries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

# The tests run in this order: the last one ends the cluster.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """A cluster whose head remembers its jobs after a restart."""
    with Redis() as redis, RayCluster(redis) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _connection(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(cluster.head.connection()))


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A file to which each process of :data:`RUNS` writes its pid."""
    return tmp_path / "trace"


#: Found by trial with this Ray, and with 2.8, whose restarted head assigns new jobs to nodes of its earlier session.
MEMORY_SINCE, MEMORY = (2, 60), "a head that restarts while its nodes run accepts new jobs at once"

#: Runs until the file "<trace>.go" appears.
RUNS = """
import os, signal, sys, time
trace = sys.argv[1]
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Ray waits 3 s, then sends SIGKILL
with open(trace, "a") as file:
    print(os.getpid(), file=file)
print("began", flush=True)
while not os.path.exists(trace + ".go"):
    time.sleep(0.1)
print("went on", flush=True)
"""


def submitted(trace: Path, node: RayNode, **kwargs: Any) -> Tries:
    """Return a task whose job runs on a node."""

    def make() -> RaySubmitJobOperator:
        entrypoint = ["python", "-c", RUNS, str(trace)]
        arguments = {"deferrable": True, "retries": 3, **node.placed, **kwargs}
        return RaySubmitJobOperator(task_id="task", entrypoint=entrypoint, **arguments)

    return Tries(make, uuid.uuid4().hex)


def job_of(cluster: RayCluster, tries: Tries) -> dict[str, Any]:
    """Return the only job of a task."""
    (job,) = [job for job in cluster.head.jobs() if (job["metadata"] or {}).get("airflow_run_id") == tries.run_id]
    return job


def node_id(cluster: RayCluster, node: RayNode) -> str:
    """Return Ray's id of a node."""
    nodes = json.loads(cluster.head.request("GET", "/api/v0/nodes")[1])["data"]["result"]["result"]
    (found,) = [one["node_id"] for one in nodes if node.name in one["resources_total"]]
    return str(found)


def pid_of(trace: Path) -> int:
    """Wait for the only process that writes to a trace, and return its pid."""
    wait_until(lambda: trace.exists() and trace.read_text().endswith("\n"))
    return int(trace.read_text())


def runs(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until(holds: Callable[[], bool], timeout: float = 60) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def seen_running(tries: Tries) -> bool:
    """Return whether a task has logged that its job is RUNNING."""
    return any("is RUNNING" in line for line in tries.lines)


def in_the_background(run: Callable[[], Any]) -> Future[Any]:
    """Run a task in a thread."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(run)
    pool.shutdown(wait=False)
    return future


@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
def test_value_and_log_come_from_another_node(cluster: RayCluster, deferrable: bool) -> None:
    def greets(name: str) -> list[str]:
        print("a line of", name)
        return ["hello", name]

    node = cluster.nodes[0]

    def make() -> RayJobDecoratedOperator:
        return RayJobDecoratedOperator(
            task_id="task",
            python_callable=greets,
            op_args=["ü"],
            op_kwargs={},
            deferrable=deferrable,
            **node.placed,
        )

    tries = Tries(make, uuid.uuid4().hex)
    assert tries.run() == ["hello", "ü"]
    assert "a line of ü" in tries.lines
    assert job_of(cluster, tries)["driver_node_id"] == node_id(cluster, node)


def test_a_job_on_another_node_is_stopped_and_its_process_ends(cluster: RayCluster, trace: Path) -> None:
    tries = submitted(trace, cluster.nodes[0])
    running = in_the_background(tries.run)
    pid = pid_of(trace)
    assert cluster.head.stop_job(job_of(cluster, tries)["submission_id"]) is True
    with pytest.raises(RayJobStoppedError, match="somebody other than this task"):
        running.result(90)
    assert not runs(pid)
    assert "began" in tries.lines


def test_a_stop_for_a_limit_is_reported_after_a_restart_of_the_triggerer(cluster: RayCluster, trace: Path) -> None:
    job_timeout = 20.0
    tries = submitted(trace, cluster.nodes[0], job_timeout=job_timeout)
    operator, context = tries.make(), tries.context()
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    kind, arguments = type(deferred.value.trigger), deferred.value.trigger.serialize()[1]

    async def first(trigger: Any, within: float = math.inf) -> Any:
        events = trigger.run()
        try:
            return (await asyncio.wait_for(anext(events), within)).payload
        finally:
            await events.aclose()

    pid_of(trace)
    with pytest.raises(TimeoutError):  # like a triggerer that shuts down after the stop request
        asyncio.run(first(kind(**arguments), arguments["deadlines"]["job_timeout"] + 1.5 - time.time()))
    assert job_of(cluster, tries)["status"] == "RUNNING"
    cluster.head.wait_job(job_of(cluster, tries)["submission_id"], until={"STOPPED"})
    event = asyncio.run(first(kind(**arguments)))
    with pytest.raises(RayJobTimeoutError, match=r"exceeded its job_timeout: it ended 2\d s after its submission"):
        operator.execute_complete(context, event)


def test_a_job_is_still_followed_after_the_head_restarts_with_its_jobs(cluster: RayCluster, trace: Path) -> None:
    require_ray_since(MEMORY_SINCE, MEMORY)
    tries = submitted(trace, cluster.nodes[0])
    running = in_the_background(tries.run)
    pid = pid_of(trace)
    version = cluster.head.request("GET", "/api/version")
    cluster.head.restart()
    assert cluster.head.request("GET", "/api/version") == version  # the session is the same
    assert runs(pid)
    trace.with_name("trace.go").touch()
    assert running.result(120)
    assert tries.lines.count("went on") == 1
    assert pid_of(trace) == pid  # it ran once
    assert job_of(cluster, tries)["status"] == "SUCCEEDED"


def test_the_error_of_a_job_reports_that_its_node_died(cluster: RayCluster, trace: Path) -> None:
    node = cluster.nodes[1]
    tries = submitted(trace, node)
    running = in_the_background(tries.run)
    pid = pid_of(trace)
    node.kill()
    with pytest.raises(RayJobFailedError, match="died"):
        running.result(200)
    assert not runs(pid)


def test_a_job_is_lost_when_the_head_restarts_without_its_jobs(cluster: RayCluster, trace: Path) -> None:
    """Its process goes on, and the error says where. This ends the cluster: nodes don't join the new head."""
    require_ray_since(MEMORY_SINCE, MEMORY)
    tries = submitted(trace, cluster.nodes[0])
    running = in_the_background(tries.run)
    pid = pid_of(trace)
    wait_until(lambda: seen_running(tries))
    job = job_of(cluster, tries)
    cluster.forget()
    cluster.head.restart()
    with pytest.raises(RayJobLostError, match="the head restarted") as caught:
        running.result(120)
    error = caught.value
    assert (error.submission_id, error.may_run, error.node_id) == (job["submission_id"], True, job["driver_node_id"])
    assert f"may still run on node {error.node_ip} (node id {error.node_id})" in str(error)
    # It runs there, as the error says, and its environment identifies it.
    assert runs(pid)
    assert job["submission_id"].encode() in Path(f"/proc/{pid}/environ").read_bytes()
    os.kill(pid, signal.SIGKILL)

"""Why a job failed, as a real cluster reports it: raised exceptions, too little memory, and a node that was killed."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import threading
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_rayjobs.exceptions import RayJobFailedError
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.retries import retrying_by_cause
from tests.support import environment
from tests.support.ray_cluster import RayNode
from tests.support.ray_head import RayHead, require_ray
from tests.support.tries import Tries

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.integration, pytest.mark.alone]

#: More than the tests' machine uses at the moment; a job that takes more memory is killed.
SPARE = 4 * 2**30

RAISES = """
import ray
@ray.remote(max_retries=0)
def load(number):
    if number % 2:
        raise ValueError(f"bad input {number}")
@ray.remote(max_retries=0)
def leave():
    import os
    os._exit(3)
@ray.remote
class Trainer:
    def __init__(self):
        raise RuntimeError("no weights found")
    def train(self):
        pass
def failed(ref):
    try:
        ray.get(ref)
    except Exception as e:
        return 1
    return 0
number = sum(map(failed, [load.remote(number) for number in range(200)] + [leave.remote()]))
ray.get(Trainer.remote().train.remote())
"""

FILLS = """
import ray, time
@ray.remote(max_retries=0)
def fill():
    kept = []
    while True:
        kept.append(bytearray(b"x") * 2**26)
        time.sleep(0.05)
ray.get(fill.remote())
"""

ON_NODE = """
import ray, time
@ray.remote(max_retries=0, resources={"node1": 0.1})
def work():
    print("began", flush=True)
    time.sleep(1000)
ray.get([work.remote() for _ in range(2)])
"""

#: Gives up when the node is gone, on which its object lies.
LOSES_AN_OBJECT = """
import ray, sys, time
ray.init()
@ray.remote(max_retries=0, resources={"node2": 0.1})
def make():
    return bytes(2**22)
kept = make.remote()
ray.wait([kept], fetch_local=False)
while any(node["Alive"] and "node2" in node["Resources"] for node in ray.nodes()):
    time.sleep(0.5)
sys.exit(3)
"""


def used_memory() -> tuple[int, int]:
    """Return the machine's memory that is in use, and all of it, in bytes."""
    values = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available, total = (1024 * int(values[name].split()[0]) for name in ("MemAvailable", "MemTotal"))
    return total - available, total


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    """A head whose tasks are killed when they take more than a little memory."""
    used, total = used_memory()
    env = {
        "RAY_memory_usage_threshold": f"{min((used + SPARE) / total, 0.95):.4f}",
        "RAY_memory_monitor_refresh_ms": "100",
    }
    folder = Path(tempfile.mkdtemp(prefix="rj", dir=environment.SHORT_TMP))
    try:
        with RayHead(num_cpus=2, env=env, ray_bin=require_ray(), folder=folder) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def failure_of(head: RayHead, monkeypatch: pytest.MonkeyPatch, script: str) -> tuple[RayJobFailedError, Tries]:
    """Run a script as a job that fails; return its task's error."""
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(head.connection()))
    tries = Tries(
        lambda: RaySubmitJobOperator(task_id="task", entrypoint=["python", "-c", script], deferrable=True),
        uuid.uuid4().hex,
    )
    with pytest.raises(RayJobFailedError) as failed:
        tries.run()
    return failed.value, tries


def is_retried(error: RayJobFailedError) -> bool:
    """Return whether a task with this error is tried again by cause."""
    try:
        with retrying_by_cause():
            raise error
    except AirflowFailException:
        return False
    except RayJobFailedError:
        return True


def test_tasks_that_raise(head: RayHead, monkeypatch: pytest.MonkeyPatch) -> None:
    error, tries = failure_of(head, monkeypatch, RAISES)
    lines = str(error).splitlines()
    assert lines[0] == "Ray job FAILED: exception in a Ray task; exit code 1"
    assert lines[1] == "103 of 203 Ray tasks failed (a retry counts again):"
    assert re.match(r"  101 exception in load(, Trainer.__init__)?: ValueError: bad input \d+$", lines[2])
    assert any(line.startswith("  1 worker died in leave") for line in lines)
    assert "Actors that died: 1 Trainer: RuntimeError: no weights found" in lines
    assert (error.cause, error.exit_code) == ("TASK_EXECUTION_EXCEPTION", 1)
    assert {tasks.cause: tasks.number for tasks in error.failed_tasks} == {
        "TASK_EXECUTION_EXCEPTION": 101,
        "WORKER_DIED": 1,
        "ACTOR_DIED": 1,
    }
    assert not is_retried(error)
    stored = tries.ti.xcoms["ray_job_failure"]
    assert (stored["cause"], stored["tasks"]) == ("TASK_EXECUTION_EXCEPTION", 203)


def test_a_task_that_takes_too_much_memory(head: RayHead, monkeypatch: pytest.MonkeyPatch) -> None:
    error, _ = failure_of(head, monkeypatch, FILLS)
    lines = str(error).splitlines()
    assert lines[0] == "Ray job FAILED: out of memory; exit code 1"
    assert lines[2].startswith("  1 out of memory in fill: ")
    assert "running low on memory" in lines[2]
    assert error.cause == "OUT_OF_MEMORY"
    assert is_retried(error)


def test_a_node_that_is_killed(head: RayHead, monkeypatch: pytest.MonkeyPatch) -> None:
    node = RayNode(head, "node1")
    node.start()
    try:
        node.wait_ready()
        timer = threading.Timer(12, node.kill)
        timer.start()
        error, _ = failure_of(head, monkeypatch, ON_NODE)
        timer.join()
    finally:
        node.kill()
    lines = str(error).splitlines()
    assert lines[0] == "Ray job FAILED: node died; exit code 1"
    assert "node died in work: " in lines[2]
    assert error.cause == "NODE_DIED"
    assert is_retried(error)


def test_a_node_that_is_killed_with_what_the_driver_needs(head: RayHead, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver fails with an exit code of its own, and no Ray task failed; only the dead node tells why."""
    node = RayNode(head, "node2")
    node.start()
    try:
        node.wait_ready()
        timer = threading.Timer(12, node.kill)
        timer.start()
        error, _ = failure_of(head, monkeypatch, LOSES_AN_OBJECT)
        timer.join()
    finally:
        node.kill()
    assert error.exit_code == 3
    assert error.dead_nodes
    assert is_retried(error)

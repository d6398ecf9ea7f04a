"""Triggers survive serialisation, send one checked event, and stop a job only on a user's wish."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs import triggers
from airflow_provider_rayjobs.exceptions import RayJobLostError, RayJobNotFoundError
from airflow_provider_rayjobs.following.conditions import ClusterRunsJobs, JobReaches
from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.jobs import JobDetails
from airflow_provider_rayjobs.triggers import RayConditionTrigger, RayJobTrigger

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

    from tests.support.scripted_server import ScriptedRay

JOB = {
    "ray_conn_id": "other",
    "submission_id": "j1",
    "submitted_at": 1700000000.25,
    "session_name": "session_1",
    "poll_interval": 7.5,
    "deadlines": {"job_timeout": 1700000100.0, "execution_timeout": 1700000200.0},
    "pending_deadline": 1700000050.0,
    "stream_logs": False,
    "reattached_at": 1700000001.5,
    "stop_on_kill": False,
}
CONDITION = {
    "ray_conn_id": "other",
    "kind": "cluster",
    "condition": {"submission_id": "p1", "resources": {"entrypoint_num_cpus": 1.5}, "metadata": {"a": "b"}},
    "poke_interval": 3.0,
    "deadline": 1700000000.0,
}


@pytest.mark.parametrize(
    ("kind", "kwargs"), [(RayJobTrigger, JOB), (RayConditionTrigger, CONDITION)], ids=["job", "condition"]
)
def test_arguments_survive_serialisation(kind: type[BaseTrigger], kwargs: dict[str, Any]) -> None:
    path, serialized = kind(**kwargs).serialize()

    assert path == f"airflow_provider_rayjobs.triggers.{kind.__name__}"
    assert serialized == kwargs
    assert json.loads(json.dumps(serialized)) == kwargs
    from airflow.models.trigger import Trigger  # how Airflow itself keeps them

    row = Trigger(classpath=path, kwargs=serialized)
    assert dict(row.kwargs) == kwargs
    assert kind(**row.kwargs).serialize() == (path, serialized)


#: What a release's triggers leave in Airflow's database, one file for each release that changed it.
SAMPLES = sorted(
    (Path(__file__).parents[1] / "upgrade").glob("trigger_rows_*.json"),
    key=lambda file: [int(number) for number in file.stem.rpartition("_")[2].split(".")],
)


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.stem)
def test_rows_of_earlier_releases_are_read(file: Path) -> None:
    for row in json.loads(file.read_text()):
        kind = getattr(triggers, row["classpath"].rpartition(".")[2])
        path, now = kind(**row["kwargs"]).serialize()
        assert path == row["classpath"]
        assert {**now, **row["kwargs"]} == now
        if kind is RayConditionTrigger:
            condition = {"job": JobReaches, "cluster": ClusterRunsJobs}[now["kind"]](**now["condition"])
            assert condition.to_json() == now["condition"]


@pytest.mark.parametrize("kind", [RayJobTrigger, RayConditionTrigger])
def test_the_newest_sample_has_every_argument(kind: type[BaseTrigger]) -> None:
    """Else this release would leave rows of which later ones know no sample."""
    rows = [row for row in json.loads(SAMPLES[-1].read_text()) if row["classpath"].endswith(f".{kind.__name__}")]
    arguments = inspect.signature(kind).parameters
    assert rows
    for row in rows:
        assert row["kwargs"].keys() == arguments.keys()


@pytest.fixture
def conn_id(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AIRFLOW_CONN_SCRIPTED", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url}))
    return "scripted"


def trigger_of(conn_id: str, **kwargs: Any) -> RayJobTrigger:
    trigger = RayJobTrigger(ray_conn_id=conn_id, submission_id="j1", submitted_at=time.time(), **kwargs)
    trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1)
    return trigger


async def first_event(trigger: BaseTrigger) -> JobEvent:
    events = trigger.run()
    try:
        return JobEvent.from_json((await anext(events)).payload)
    finally:
        await events.aclose()


def test_job_trigger_sends_the_outcome(scripted_ray: ScriptedRay, conn_id: str) -> None:
    scripted_ray.add_job("j1", status="FAILED", message="no luck", driver_exit_code=3)

    event = asyncio.run(first_event(trigger_of(conn_id, stream_logs=False)))
    assert (event.submission_id, event.outcome, event.exit_code) == ("j1", Outcome.FAILED, 3)


async def cancelled(trigger: RayJobTrigger, cancellations: int, *, on_kill: bool = False) -> None:
    """Run a trigger as a triggerer does, and cancel it so often, as Airflow 3 does while the trigger is wound up."""

    async def run() -> None:
        try:
            async for _ in trigger.run():
                pass
        except asyncio.CancelledError:
            if on_kill:
                await trigger.on_kill()
            raise

    task = asyncio.create_task(run())
    await asyncio.sleep(0.6)
    for _ in range(cancellations):
        task.cancel()
        await asyncio.sleep(0.1)
    await asyncio.wait({task}, timeout=30)
    assert task.cancelled()


def stops(server: ScriptedRay) -> int:
    return len(server.received_on("POST", "/api/jobs/j1/stop"))


@pytest.mark.parametrize("on_kill", [False, True], ids=["cancelled", "on_kill"])
@pytest.mark.parametrize("cancellations", [1, 4])
def test_kill_stops_the_job_once_however_often_it_is_cancelled(
    scripted_ray: ScriptedRay, conn_id: str, monkeypatch: pytest.MonkeyPatch, cancellations: int, on_kill: bool
) -> None:
    async def killed(*_: object) -> bool:
        await asyncio.sleep(0.2)
        return True

    monkeypatch.setattr(triggers, "was_killed", killed)
    scripted_ray.add_job("j1")
    asyncio.run(cancelled(trigger_of(conn_id, stream_logs=False), cancellations, on_kill=on_kill))
    assert stops(scripted_ray) == 1
    assert scripted_ray.jobs["j1"].status == "STOPPED"


@pytest.mark.parametrize("why", ["handed over", "check failed", "not wanted", "no task", "check hangs"])
def test_what_is_no_kill_stops_nothing(
    scripted_ray: ScriptedRay, conn_id: str, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    async def was_killed(*_: object) -> bool:
        if why == "check failed":
            raise RuntimeError("the database is away")
        if why == "check hangs":
            await asyncio.sleep(60)
        return why in ("not wanted", "no task")

    monkeypatch.setattr(triggers, "was_killed", was_killed)
    monkeypatch.setattr("airflow_provider_rayjobs.triggers.KILL_CHECK_TIMEOUT", 0.5)
    scripted_ray.add_job("j1")
    trigger = trigger_of(conn_id, stream_logs=False, stop_on_kill=why != "not wanted")
    if why == "no task":  # as under `airflow dags test`
        trigger.task_instance = None
    asyncio.run(cancelled(trigger, 1))
    assert stops(scripted_ray) == 0


def condition_of(conn_id: str, kind: str, condition: dict[str, Any], seconds: float = 20) -> RayConditionTrigger:
    return RayConditionTrigger(
        ray_conn_id=conn_id, kind=kind, condition=condition, poke_interval=0.1, deadline=time.time() + seconds
    )


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("SUCCEEDED", Outcome.SUCCEEDED), ("FAILED", Outcome.FAILED), ("RUNNING", Outcome.TIMEOUT)],
)
def test_condition_trigger_tells_what_became_of_a_job(
    scripted_ray: ScriptedRay, conn_id: str, status: str, outcome: Outcome
) -> None:
    scripted_ray.add_job("j1", status=status)
    trigger = condition_of(conn_id, "job", {"submission_id": "j1", "targets": ["SUCCEEDED"]}, seconds=1)
    assert asyncio.run(first_event(trigger)).outcome is outcome


def test_condition_trigger_waits_until_a_cluster_runs_a_job(scripted_ray: ScriptedRay, conn_id: str) -> None:
    scripted_ray.new_job_timeline = [(0.0, "PENDING"), (0.3, "RUNNING"), (0.5, "SUCCEEDED")]
    trigger = condition_of(conn_id, "cluster", {"submission_id": "p1", "resources": {"entrypoint_num_cpus": 2}})

    assert asyncio.run(first_event(trigger)).outcome is Outcome.SUCCEEDED
    (submitted,) = scripted_ray.received_on("POST", "/api/jobs/")
    assert submitted.json["entrypoint_num_cpus"] == 2


def test_a_sensors_job_that_is_gone_is_told_with_the_node_where_it_may_still_run() -> None:
    fields = {"driver_agent_http_address": "http://10.0.0.7:52365", "driver_node_id": "ab12"}
    condition = JobReaches("a", ["SUCCEEDED"])
    gone = RayJobNotFoundError("http://ray: there is no job a")
    assert condition.missing(gone) is False
    assert condition.reached(JobDetails.from_json({"type": "SUBMISSION", "status": "RUNNING", **fields})) is False
    with pytest.raises(RayJobLostError, match=r"may still run on node 10\.0\.0\.7 \(node id ab12\)") as caught:
        condition.missing(gone)
    assert (caught.value.may_run, caught.value.node_id, caught.value.node_ip) == (True, "ab12", "10.0.0.7")

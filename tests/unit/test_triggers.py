"""Triggers survive serialisation, send one checked event, and stop a job only on a user's wish."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from airflow.providers.common.compat.sdk import redact

from airflow_provider_rayjobs import triggers
from airflow_provider_rayjobs.following.conditions import ClusterRunsJobs, JobReaches
from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.following.serving import ServeEvent
from airflow_provider_rayjobs.triggers import (
    RayClusterStartTrigger,
    RayConditionTrigger,
    RayJobTrigger,
    RayServeTrigger,
)
from tests.support import answers
from tests.support.answers import Answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow.triggers.base import BaseTrigger

    from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
    from tests.support.scripted_server import ScriptedRay

JOB = {
    "ray_conn_id": "other",
    "submission_id": "j1",
    "submitted_at": 1700000000.25,
    "session_name": "session_1",
    "poll_interval": 7.5,
    "deadlines": {"job_timeout": 1700000100.0, "execution_timeout": 1700000200.0},
    "pending_deadline": 1700000050.0,
    "log_progress": False,
    "stream_logs": False,
    "reattached_at": 1700000001.5,
    "stop_on_kill": False,
}
CLUSTER = {
    "kubernetes_conn_id": "kube",
    "namespace": "ray",
    "name": "etl-1",
    "uid": "uid-1",
    "access": "proxy",
    "owned": True,
}
SERVE = {
    "ray_conn_id": "other",
    "applications": ["text", "image"],
    "deadline": 1700000000.0,
    "poll_interval": 2.5,
    "target_statuses": ["RUNNING"],
    "deployed": {"text": "0123456789abcdef"},
}
START = {"cluster": CLUSTER, "deadlines": {"start_timeout": 1700000000.0}, "submission_id": "j1", "number": 2}
CONDITION = {
    "ray_conn_id": "other",
    "kind": "cluster",
    "condition": {"submission_id": "p1", "resources": {"entrypoint_num_cpus": 1.5}, "metadata": {"a": "b"}},
    "poke_interval": 3.0,
    "deadline": 1700000000.0,
}


@pytest.mark.parametrize(
    ("kind", "kwargs"),
    [
        (RayJobTrigger, JOB),
        (RayJobTrigger, {**JOB, "cluster": CLUSTER}),
        (RayConditionTrigger, CONDITION),
        (RayConditionTrigger, {**CONDITION, "cluster": CLUSTER}),
        (RayClusterStartTrigger, START),
        (RayServeTrigger, SERVE),
        (RayServeTrigger, {**SERVE, "cluster": CLUSTER}),
    ],
    ids=[
        "job",
        "job on a cluster",
        "condition",
        "condition on a cluster",
        "start of a cluster",
        "serve",
        "its cluster",
    ],
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


def test_a_cluster_that_is_ready_at_once_is_told_a_little_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow fails a task whose trigger fires before the scheduler has seen the deferral."""

    @asynccontextmanager
    async def api(*_: Any) -> AsyncIterator[Any]:
        async def run(flow: Any) -> None:
            flow.close()

        yield SimpleNamespace(run=run)

    async def told() -> float:
        began = time.monotonic()
        async for event in RayClusterStartTrigger(**START).run():
            assert event.payload["outcome"] == "ready"
        return time.monotonic() - began

    monkeypatch.setattr(triggers, "async_kube_api", api)
    monkeypatch.setattr(RayClusterStartTrigger, "least_time", 0.2)
    assert asyncio.run(told()) >= 0.2


def test_a_serve_trigger_tells_what_is_wrong_with_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of a trigger fails its task before that can put anything back."""
    wrong = {"conn_type": "ray_jobs", "host": "http://head:8265", "extra": {"unreachable_timeout": "soon"}}
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(wrong))
    monkeypatch.setattr(RayServeTrigger, "least_time", 0.0)

    async def told() -> list[Any]:
        return [event.payload async for event in RayServeTrigger(**SERVE).run()]

    (payload,) = asyncio.run(told())
    event = ServeEvent.from_json(payload)
    assert event.outcome is Outcome.STOPPED
    assert "unreachable_timeout" in event.detail


def test_large_details_of_serve_are_judged_off_the_loop(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url}))
    monkeypatch.setattr(RayServeTrigger, "least_time", 0.0)
    replicas = [{"state": "RUNNING", "actor_name": "x" * 300}] * 1000
    found = {
        name: {"status": "RUNNING", "deployments": {"M": {"replicas": replicas}}} for name in SERVE["applications"]
    }
    scripted_ray.script("GET", "/api/serve/applications/", answers.as_json({"applications": found}))
    threads = []
    judged = triggers._judged

    def judge(*args: Any) -> Any:
        threads.append(threading.current_thread())
        return judged(*args)

    monkeypatch.setattr(triggers, "_judged", judge)

    async def told() -> list[Any]:
        arguments = {**SERVE, "deployed": {}, "deadline": time.time() + 60}
        return [event.payload async for event in RayServeTrigger(**arguments).run()]

    (payload,) = asyncio.run(told())
    assert payload["outcome"] == "succeeded"
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("kind", [RayJobTrigger, RayConditionTrigger, RayClusterStartTrigger, RayServeTrigger])
def test_the_newest_sample_has_every_argument(kind: type[BaseTrigger]) -> None:
    """Else this release would leave rows of which later ones know no sample."""
    rows = [row for row in json.loads(SAMPLES[-1].read_text()) if row["classpath"].endswith(f".{kind.__name__}")]
    arguments = inspect.signature(kind).parameters
    assert rows
    assert set().union(*(row["kwargs"] for row in rows)) == arguments.keys()


def test_an_argument_that_an_older_triggerer_does_not_know_is_sent_only_if_it_matters() -> None:
    arguments = {"ray_conn_id": "c", "submission_id": "j1", "submitted_at": 1.0}
    assert "log_progress" not in RayJobTrigger(**arguments).serialize()[1]
    assert RayJobTrigger(**arguments, log_progress=False).serialize()[1]["log_progress"] is False
    assert "cluster" not in RayJobTrigger(**arguments).serialize()[1]


@pytest.mark.parametrize(("kind", "ends"), [("start", True), ("job", False)])
def test_a_user_who_ends_the_setup_task_of_a_shared_cluster_ends_the_cluster(
    monkeypatch: pytest.MonkeyPatch, kind: str, ends: bool
) -> None:
    """Its teardown is skipped. A task that only uses the cluster leaves it."""
    ended: list[str] = []

    async def killed(*_: object) -> bool:
        return True

    async def end(ref: ClusterRef, *_: object) -> bool:
        ended.append(ref.name)
        return True

    async def stop_job(*_: object) -> None:
        pass

    monkeypatch.setattr(triggers, "was_killed", killed)
    monkeypatch.setattr(triggers, "async_end", end)
    monkeypatch.setattr(RayJobTrigger, "_stop_job", stop_job)
    shared = {**CLUSTER, "owned": False}
    trigger = {
        "start": lambda: RayClusterStartTrigger(**{**START, "cluster": shared}),
        "job": lambda: RayJobTrigger(ray_conn_id="", submission_id="j1", submitted_at=1.0, cluster=shared),
    }[kind]()
    trigger.task_instance = SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, try_number=1)
    asyncio.run(trigger._stop_if_killed())
    assert ended == (["etl-1"] if ends else [])


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


# Secrets


LISTED = "airflow_secret_env_vars"


def event_of(trigger: Any) -> dict[str, Any]:
    async def first() -> dict[str, Any]:
        async for event in trigger.run():
            return dict(event.payload)
        raise AssertionError("no event")

    return asyncio.run(first())


def failed_job(server: ScriptedRay, secret: str) -> None:
    server.add_job(
        "j1",
        "FAILED",
        message=f"Traceback\nValueError: {secret}",
        runtime_env={"env_vars": {"API_TOKEN": f"{secret}-a", "DSN": f"{secret}-b", "OTHER": "other-text"}},
        metadata={LISTED: "DSN"},
    )
    server.append_log("j1", [f"token {secret}-a\n", f"dsn {secret}-b\n", "other-text\n"])


def test_a_trigger_learns_the_secrets_of_its_job_before_it_shows_its_log(
    conn_id: str, scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed_job(scripted_ray, "sec-5e1f9a")
    shown: list[str] = []
    trigger = RayJobTrigger(ray_conn_id=conn_id, submission_id="j1", submitted_at=1.0)
    real = trigger.log.info
    # Airflow's loggers mask, too, but not all of them: no line may need it.
    monkeypatch.setattr(trigger.log, "info", lambda *args: shown.append(args[0] % args[1:]) or real(*args))
    event = event_of(trigger)
    text = json.dumps([event, shown])
    assert "sec-5e1f9a-a" not in text
    assert "sec-5e1f9a-b" not in text
    assert any("other-text" in line for line in shown)
    assert event["outcome"] == Outcome.FAILED
    assert event["submission_id"] == "j1"


def test_a_condition_that_a_failed_job_ends_shows_no_secret(conn_id: str, scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job(
        "j2", "FAILED", message="it said sec-77aa31", runtime_env={"env_vars": {"API_TOKEN": "sec-77aa31"}}
    )
    trigger = RayConditionTrigger(
        ray_conn_id=conn_id,
        kind="job",
        condition={"submission_id": "j2", "targets": ["SUCCEEDED"]},
        poke_interval=1,
        deadline=9e9,
    )
    assert "it said ***" in event_of(trigger)["detail"]


def test_no_error_of_the_cluster_shows_a_secret_of_the_job(
    conn_id: str, scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster may quote the job in any answer, and the trigger tells it in its log and in its event."""
    secret = "sec-3b/9d0c"
    job = scripted_ray.add_job("j3", runtime_env={"env_vars": {"API_TOKEN": secret}})
    quoting = Answer(500, f"no answer for {secret} and {quote(secret, safe='')}".encode())
    trigger = RayJobTrigger(
        ray_conn_id=conn_id, submission_id="j3", submitted_at=time.time(), deadlines={"job_timeout": time.time() + 3}
    )
    shown: list[str] = []
    for level in ("info", "warning", "error"):
        monkeypatch.setattr(trigger.log, level, lambda text, *args: shown.append(text % args))

    async def followed() -> Any:
        events = asyncio.ensure_future(anext(aiter(trigger.run())))
        await asyncio.sleep(2)
        scripted_ray.script("GET", "/api/jobs/j3", quoting, forever=True)
        scripted_ray.script("POST", "/api/jobs/j3/stop", quoting, forever=True)
        await asyncio.sleep(4)
        await trigger._stop_job("j3")
        scripted_ray.clear()
        return (await events).payload

    event = asyncio.run(followed())
    text = json.dumps([event, shown])
    assert job.ended
    assert "no answer for ***" in text
    assert "3b/9d0c" not in text
    assert "3b%2F9d0c" not in text


def test_the_secrets_of_many_jobs_leave_airflows_masker_as_it_is(conn_id: str, scripted_ray: ScriptedRay) -> None:
    for number in range(20):
        secret = f"own-secret-{number}"
        scripted_ray.add_job(f"m{number}", "FAILED", message=secret, runtime_env={"env_vars": {"API_TOKEN": secret}})
        trigger = RayJobTrigger(ray_conn_id=conn_id, submission_id=f"m{number}", submitted_at=1.0, stream_logs=False)
        assert event_of(trigger)["message"] == "***"
    assert redact("own-secret-0 own-secret-19") == "own-secret-0 own-secret-19"

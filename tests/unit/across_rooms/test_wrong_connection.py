"""A connection of another type, or without a host: each way in refuses it, and its host gets no request."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_provider_rayjobs.decorators import ray_job
from airflow_provider_rayjobs.exceptions import RayConnectionConfigError
from airflow_provider_rayjobs.hooks import RayJobAsyncHook, RayJobHook
from airflow_provider_rayjobs.operators import RayDeleteJobOperator, RayStopJobOperator, RaySubmitJobOperator
from airflow_provider_rayjobs.sensors import RayClusterSensor, RayJobSensor
from airflow_provider_rayjobs.triggers import RayConditionTrigger, RayJobTrigger
from tests.support.command_line import environment, finish, start
from tests.support.tries import Tries

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.scripted_server import ScriptedRay

WRONG = {"conn_type": "postgres", "login": "me", "password": "hunter2"}
SAID = "Connection 'ray_x' has the type 'postgres', not 'ray_jobs'; "


@pytest.fixture(autouse=True)
def _postgres(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {**WRONG, "host": scripted_ray.host, "port": scripted_ray.port}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(connection))


def decorated() -> Any:
    def work() -> None:
        pass

    with DAG("wrong_connection", schedule=None):
        return ray_job(work, ray_conn_id="ray_x")().operator


TASKS: dict[str, Callable[[], Any]] = {
    "submit": lambda: RaySubmitJobOperator(task_id="t", entrypoint="true", ray_conn_id="ray_x"),
    "deferred": lambda: RaySubmitJobOperator(task_id="t", entrypoint="true", ray_conn_id="ray_x", deferrable=True),
    "function": decorated,
    "stop": lambda: RayStopJobOperator(task_id="t", submission_id="j1", ray_conn_id="ray_x"),
    "delete": lambda: RayDeleteJobOperator(task_id="t", submission_id="j1", ray_conn_id="ray_x"),
    "job sensor": lambda: RayJobSensor(task_id="t", submission_id="j1", ray_conn_id="ray_x"),
    "job sensor, deferred": lambda: RayJobSensor(task_id="t", submission_id="j1", ray_conn_id="ray_x", deferrable=True),
    "cluster sensor": lambda: RayClusterSensor(task_id="t", ray_conn_id="ray_x"),
    "cluster sensor, deferred": lambda: RayClusterSensor(task_id="t", ray_conn_id="ray_x", deferrable=True),
}


@pytest.mark.parametrize("make", TASKS.values(), ids=TASKS)
def test_a_task_fails_for_good(make: Callable[[], Any], scripted_ray: ScriptedRay) -> None:
    with pytest.raises(AirflowFailException) as caught:
        make().execute(Tries(make, "run").context())
    assert SAID in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert not scripted_ray.received


def test_a_hook_raises(scripted_ray: ScriptedRay) -> None:
    async def ask() -> None:
        await RayJobAsyncHook("ray_x").get_version()

    with pytest.raises(RayConnectionConfigError, match=SAID):
        RayJobHook("ray_x").submit_job(entrypoint="true")
    with pytest.raises(RayConnectionConfigError, match=SAID):
        asyncio.run(ask())
    assert not scripted_ray.received


@pytest.mark.parametrize(
    "make",
    [
        lambda: RayJobTrigger(ray_conn_id="ray_x", submission_id="j1", submitted_at=time.time()),
        lambda: RayConditionTrigger(
            ray_conn_id="ray_x",
            kind="job",
            condition={"submission_id": "j1", "targets": ["SUCCEEDED"]},
            poke_interval=1,
            deadline=time.time() + 9,
        ),
    ],
    ids=["job", "condition"],
)
def test_a_trigger_fails(make: Callable[[], Any], scripted_ray: ScriptedRay) -> None:
    """It was deferred when the connection was still right."""

    async def run() -> Any:
        return (await anext(make().run())).payload

    try:
        said = asyncio.run(run())["detail"]
    except RayConnectionConfigError as e:
        said = str(e)
    assert SAID in said
    assert not scripted_ray.received


def test_the_command_line_calls_it_the_callers_mistake(scripted_ray: ScriptedRay) -> None:
    connection = json.dumps({**WRONG, "host": scripted_ray.host, "port": scripted_ray.port})
    for verb, *args in (["list"], ["submit", "--", "true"], ["stop", "j1"]):
        done = finish(start("", verb, *args, env={**environment(""), "AIRFLOW_CONN_RAY_X": connection}))
        assert (done.code, done.out) == (2, "")
        assert SAID in done.err
        assert "hunter2" not in done.err
    assert not scripted_ray.received


def test_the_test_button_says_so(scripted_ray: ScriptedRay) -> None:
    good, said = RayJobHook("ray_x").test_connection()
    assert not good
    assert said.startswith(SAID)
    assert not scripted_ray.received


def test_a_uri_that_airflow_cannot_split_is_no_other_cluster(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", scripted_ray.url)
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", "ray_jobs://:hunter2@head:8265")
    with pytest.raises(RayConnectionConfigError, match=r"has no type.*write ray-jobs://") as caught:
        RayJobHook("ray_x").get_version()
    assert "hunter2" not in str(caught.value)
    assert not scripted_ray.received

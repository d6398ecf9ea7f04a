"""On a real head: applications are deployed and answer; after a broken version, the old one answers again."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_rayjobs.exceptions import RayServeDeployError, RayServeTimeoutError
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.operators import RayServeDeployOperator
from airflow_provider_rayjobs.sensors import RayServeSensor
from tests.support.deployments import Deployment

if TYPE_CHECKING:
    from tests.serve.conftest import Serve

BOTH = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])


def deployment(config: Any, **kwargs: Any) -> Deployment:
    return Deployment(lambda: RayServeDeployOperator(**{"task_id": "deploy", "config": config, **kwargs}))


def deploy(config: Any, **kwargs: Any) -> Deployment:
    done = deployment(config, **kwargs)
    assert set(done.run().values()) == {"RUNNING"}
    return done


def statuses() -> dict[str, str]:
    with contextlib.closing(RayJobHook()) as hook:
        return {name: one.status for name, one in hook.get_serve_details().applications.items()}


@BOTH
def test_an_application_is_deployed_and_answers(serve: Serve, deferrable: bool) -> None:
    name = f"first-{deferrable}"
    options = {"autoscaling_config": {"min_replicas": 1, "max_replicas": 2}, "ray_actor_options": {"num_cpus": 0.5}}
    application = serve.application(name, "1") | {"deployments": [{"name": "Hello", **options}]}
    done = deploy(serve.config(application), deferrable=deferrable)
    assert serve.answer(name) == "version 1"
    assert f"this deployment deploys {name}" in done.log
    assert len(done.stored) == deferrable
    again = deploy(serve.config(application), deferrable=deferrable)
    assert "has this config already: nothing is sent" in again.log
    assert not again.stored
    changed = deploy(serve.config(serve.application(name, "2")), deferrable=deferrable)
    assert f"changes {name}" in changed.log
    assert serve.answer(name) == "version 2"


@BOTH
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"path": "nothing:app"}, "No module named 'nothing'"),
        ({"mode": "raises"}, "the model is not there"),
        ({"mode": "sick"}, "no GPU memory left"),
    ],
    ids=["import", "constructor", "health"],
)
def test_a_broken_version_is_rolled_back(serve: Serve, broken: dict[str, str], said: str, deferrable: bool) -> None:
    deploy(serve.config(serve.application("app", "1")))
    failing = deployment(serve.config(serve.application("app", "2", **broken)), deferrable=deferrable)
    with pytest.raises(RayServeDeployError) as caught:
        failing.run()
    assert said in str(caught.value)
    assert "app: back to the previous config; app: healthy after" in str(caught.value)
    assert caught.value.rolled_back
    assert caught.value.statuses == {"app": "DEPLOY_FAILED"}
    assert serve.answer("app") == "version 1"
    assert len(failing.stored) == deferrable


def test_what_was_not_there_is_removed_again_and_others_stay(serve: Serve) -> None:
    deploy(serve.config(serve.application("stays", "1")))
    failing = deployment(serve.config(serve.application("new", "1", mode="raises")))
    with pytest.raises(RayServeDeployError, match="new: removed, because it was not there before"):
        failing.run()
    assert "keeps" in failing.log
    assert serve.answer("stays") == "version 1"
    deadline = time.monotonic() + 30
    while "new" in statuses():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_a_version_that_takes_too_long_is_rolled_back(serve: Serve) -> None:
    deploy(serve.config(serve.application("app", "1")))
    waiting = {
        **serve.application("app", "2"),
        "deployments": [{"name": "Hello", "ray_actor_options": {"num_cpus": 99}}],
    }
    with pytest.raises(RayServeTimeoutError, match="app: back to the previous config; app: healthy"):
        deployment(serve.config(waiting), deploy_timeout=8).run()
    assert serve.answer("app") == "version 1"


def test_secrets_of_the_previous_version_are_not_stored(serve: Serve) -> None:
    secret = "the-secret-of-version-1"
    deploy(serve.config(serve.application("guarded", "1", API_TOKEN=secret)))
    broken = serve.config(serve.application("guarded", "2", mode="raises", API_TOKEN="another-secret-2"))
    failing = deployment(broken, deferrable=True)
    with pytest.raises(RayServeDeployError, match="back to the previous config") as caught:
        failing.run()
    assert "Waiting on this worker" in failing.log
    assert not failing.stored
    assert "another-secret-2" not in f"{caught.value}{failing.log}"
    assert serve.answer("guarded") == "version 1"


def test_others_are_removed_only_if_that_is_wanted(serve: Serve) -> None:
    deploy(serve.config(serve.application("one", "1"), serve.application("two", "1")))
    done = deploy(serve.config(serve.application("one", "2")), remove_others=True)
    assert "REMOVES" in done.log
    assert "two" in done.log
    assert serve.answer("one") == "version 2"
    deadline = time.monotonic() + 30
    while set(statuses()) != {"one"}:
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_serve_tells_what_is_wrong_with_a_config(serve: Serve) -> None:
    wrong = {**serve.application("app", "1"), "deployments": [{"name": "Hello", "num_replicas": -1}]}
    with pytest.raises(AirflowFailException, match=r"Ray Serve refused the config.*num_replicas") as caught:
        deployment(serve.config(wrong)).run()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
def test_the_sensor_waits_for_an_application(serve: Serve, deferrable: bool) -> None:
    with contextlib.closing(RayJobHook()) as hook:
        there = [one.config for one in hook.get_serve_details().applications.values() if one.config]
        name = f"awaited-{deferrable}"
        hook.deploy_applications(serve.config(*there, serve.application(name, "1")))
    sensor = {"task_id": "wait", "application": name, "poke_interval": 1, "timeout": 60, "deferrable": deferrable}
    Deployment(lambda: RayServeSensor(**sensor)).run()
    assert serve.answer(name) == "version 1"

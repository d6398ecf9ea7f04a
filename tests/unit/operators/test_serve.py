"""Deployments to Ray Serve: what is sent, what is kept, what is rolled back, and what Airflow's database holds."""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout, redact

from airflow_provider_rayjobs import hooks
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError, RayServeDeployError, RayServeTimeoutError
from airflow_provider_rayjobs.following import serving
from airflow_provider_rayjobs.operators import RayServeDeployOperator
from tests.support import answers
from tests.support.deployments import Deployment
from tests.support.rendering import BOTH as NATIVE
from tests.support.rendering import rendered
from tests.support.scripted_serve import ROUTE, ScriptedServe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BOTH = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServe]:
    monkeypatch.setattr(serving, "FIRST_PAUSE", 0.01)
    with ScriptedServe() as server:
        server.course = {"m:broken": ["DEPLOYING", "DEPLOY_FAILED"], "m:slow": ["DEPLOYING"] * 1000}
        connection = {"conn_type": "ray_jobs", "host": server.url, "extra": {"unreachable_timeout": 30}}
        monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(connection))
        yield server


def app(name: str = "text", path: str = "m:ok", **fields: Any) -> dict[str, Any]:
    return {"name": name, "import_path": path, **fields}


def task(*applications: Any, **kwargs: Any) -> Deployment:
    given = {"task_id": "deploy", "applications": list(applications), "poll_interval": 0.02, **kwargs}
    return Deployment(lambda: RayServeDeployOperator(**given))


def sent(server: ScriptedServe) -> list[dict[str, str]]:
    """Return the import paths of each config that was sent, by the names of the applications."""
    return [{one["name"]: one["import_path"] for one in config["applications"]} for config in server.deployed]


@BOTH
def test_the_applications_are_deployed_and_others_stay(server: ScriptedServe, deferrable: bool) -> None:
    other = server.add("other", import_path="m:other", runtime_env={"working_dir": "s3://b/c.zip"})
    server.add("notebook", source="imperative")
    server.target_capacity = 50.0
    done = task(app(), deferrable=deferrable)
    assert done.run() == {"text": "RUNNING"}
    (config,) = server.deployed
    assert config == {"applications": [app(), other], "target_capacity": 50.0}
    assert "deploys text; keeps other; does not touch (deployed with serve.run) notebook" in done.log
    assert "Application 'text' is DEPLOYING; deployment 'Model' is UPDATING, 1 of 2 replicas" in done.log
    assert len(done.stored) == deferrable


@BOTH
def test_a_broken_version_is_rolled_back(server: ScriptedServe, deferrable: bool) -> None:
    before = server.add("text", import_path="m:old")
    server.add("other")
    failing = task(app(path="m:broken"), deferrable=deferrable)
    with pytest.raises(RayServeDeployError) as caught:
        failing.run()
    assert sent(server) == [{"text": "m:broken", "other": "m:ok"}, {"text": "m:old", "other": "m:ok"}]
    assert server.applications["text"]["deployed_app_config"] == before
    said = str(caught.value)
    assert said.startswith(f"{server.url}: application 'text' is DEPLOY_FAILED; Failed to update")
    assert r"the model is not there {}\x1b[0m" in said
    assert said.endswith("Rolled back: text: back to the previous config; text: healthy after 0 s")
    assert (caught.value.rolled_back, caught.value.statuses) == (True, {"text": "DEPLOY_FAILED"})
    assert type(caught.value) is RayServeDeployError


@BOTH
def test_what_was_not_there_is_removed(server: ScriptedServe, deferrable: bool) -> None:
    server.add("other")
    with pytest.raises(RayServeDeployError, match=r"text: removed, because it was not there before$"):
        task(app(path="m:broken"), deferrable=deferrable).run()
    assert sent(server)[-1] == {"other": "m:ok"}


def test_nothing_is_rolled_back_if_that_is_not_wanted(server: ScriptedServe) -> None:
    server.add("text", import_path="m:old")
    with pytest.raises(RayServeDeployError, match="Nothing was rolled back") as caught:
        task(app(path="m:broken"), roll_back=False).run()
    assert (len(server.deployed), caught.value.rolled_back) == (1, False)


@BOTH
def test_a_deployment_that_takes_too_long_is_rolled_back(server: ScriptedServe, deferrable: bool) -> None:
    server.add("text", import_path="m:old")
    with pytest.raises(RayServeTimeoutError, match="gave up after 0 s: application 'text' is DEPLOYING"):
        task(app(path="m:slow"), deploy_timeout=0.2, deferrable=deferrable).run()
    assert sent(server)[-1] == {"text": "m:old"}


def test_an_execution_timeout_is_rolled_back(server: ScriptedServe, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add("text", import_path="m:old")

    def alarm(*_: Any) -> None:
        raise AirflowTaskTimeout

    monkeypatch.setattr(serving.ServeWaiter, "pause", alarm)
    with pytest.raises(AirflowTaskTimeout):
        task(app(path="m:slow")).run()
    assert sent(server) == [{"text": "m:slow"}, {"text": "m:old"}]


def test_a_retry_goes_on_with_what_is_being_deployed(server: ScriptedServe) -> None:
    server.add("text", "DEPLOYING")
    server.ahead["text"] = deque(["DEPLOYING", "DEPLOYING", "RUNNING"])
    retried = task(app())
    assert retried.run() == {"text": "RUNNING"}
    assert server.deployed == []
    assert "leaves as deployed text" in retried.log


def test_a_retry_after_a_failure_deploys_again(server: ScriptedServe) -> None:
    server.add("text", "DEPLOY_FAILED")
    retried = task(app())
    assert retried.run() == {"text": "RUNNING"}
    assert sent(server) == [{"text": "m:ok"}]
    assert "deploys again text" in retried.log


def test_a_failure_without_a_known_config_says_so(server: ScriptedServe) -> None:
    server.add("text", "DEPLOY_FAILED", import_path="m:broken")
    with pytest.raises(RayServeDeployError, match="the config that was there before is not known") as caught:
        task(app(path="m:broken")).run()
    assert not caught.value.rolled_back


def test_others_are_removed_if_that_is_wanted_and_come_back_with_a_rollback(server: ScriptedServe) -> None:
    server.add("other", import_path="m:other")
    failing = task(app(path="m:broken"), remove_others=True)
    with pytest.raises(RayServeDeployError, match=r"other: back to the previous config; text: removed"):
        failing.run()
    assert "REMOVES other" in failing.log
    assert sent(server) == [{"text": "m:broken"}, {"other": "m:other"}]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"deployed_app_config": None}, "Ray does not tell its config"),
        (
            {"deployed_app_config": {"name": "o", "runtime_env": {"env_vars": {"A": "<redacted>"}}}},
            "Ray hides its environment variables",
        ),
    ],
)
def test_what_can_not_be_kept_is_not_removed_silently(server: ScriptedServe, fields: dict[str, Any], said: str) -> None:
    server.add("other")
    server.applications["other"].update(fields)
    with pytest.raises(AirflowFailException, match=f"Nothing was deployed: application 'other' .*{said}"):
        task(app()).run()
    assert server.deployed == []
    assert task(app(), remove_others=True).run() == {"text": "RUNNING"}


@BOTH
def test_what_somebody_else_has_changed_is_left_alone(
    server: ScriptedServe, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    server.add("text", import_path="m:old")
    looks = []

    def look(self: ScriptedServe, received: Any) -> Any:
        looks.append(received.method)
        if looks[-3:] == ["GET", "GET", "GET"]:
            self.add("text", "DEPLOYING", import_path="m:theirs")
        return original(self, received)

    original = ScriptedServe.default_answer
    monkeypatch.setattr(ScriptedServe, "default_answer", look)
    with pytest.raises(RayServeDeployError, match=r"'text' has another config now.*Nothing was rolled back"):
        task(app(path="m:slow"), deferrable=deferrable).run()
    assert sent(server) == [{"text": "m:slow"}]


def test_an_application_that_is_gone_ends_the_wait(server: ScriptedServe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.ServeWaiter, "pause", lambda _: server.applications.clear() or 0.0)
    with pytest.raises(RayServeDeployError, match="'text' was removed: somebody else has deployed"):
        task(app(path="m:slow")).run()


@BOTH
def test_an_absent_cluster_is_waited_for(server: ScriptedServe, deferrable: bool) -> None:
    server.script("(GET|PUT)", ROUTE, answers.drop(), answers.default(), answers.lost(), answers.drop())
    assert task(app(), deferrable=deferrable).run() == {"text": "RUNNING"}


@BOTH
def test_a_cluster_that_stays_away_is_no_failed_deployment(
    server: ScriptedServe, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    connection = {"conn_type": "ray_jobs", "host": server.url, "extra": {"unreachable_timeout": 0.5}}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(connection))
    server.add("text", import_path="m:old")
    server.script("GET", ROUTE, answers.default(), answers.default(), answers.bad_gateway(), forever=True)
    with pytest.raises(RayClusterUnreachableError, match="the cluster was unreachable for"):
        task(app(path="m:slow"), deferrable=deferrable).run()
    assert len(server.deployed) == 1


@BOTH
def test_refused_credentials_are_no_failed_deployment(server: ScriptedServe, deferrable: bool) -> None:
    server.add("text", import_path="m:old")
    server.script("GET", ROUTE, answers.default(), answers.default(), answers.forbidden(), forever=True)
    said = r"(?s)The deployment goes on, but can't be followed: .*HTTP 403.*Could not be rolled back: .*HTTP 403"
    with pytest.raises(AirflowFailException, match=said):
        task(app(path="m:slow"), deferrable=deferrable).run()
    assert len(server.deployed) == 1


@BOTH
def test_a_controller_that_answers_errors_for_good_has_not_deployed(
    server: ScriptedServe, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    connection = {"conn_type": "ray_jobs", "host": server.url, "extra": {"unreachable_timeout": 0.3}}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(connection))
    server.add("text", import_path="m:old")
    dead = answers.internal_error("RuntimeError: the controller is dead")
    server.script("GET", ROUTE, answers.default(), answers.default(), dead, forever=True)
    said = r"(?s)answered with errors for .*the controller is dead.*Could not be rolled back: .*the controller is dead"
    with pytest.raises(RayServeDeployError, match=said) as caught:
        task(app(path="m:slow"), deferrable=deferrable).run()
    assert not caught.value.rolled_back


# Requests that are lost, refused or interrupted


class Meanwhile:
    """Lets somebody else deploy when a request of a number has been received."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str, number: int, act: Callable[[], object]) -> None:
        count = 0
        scripted = ScriptedServe._scripted

        def received(server: ScriptedServe, request: Any) -> Any:
            nonlocal count
            count += request.method == method
            answer = scripted(server, request)
            if request.method == method and count == number:
                act()
            return answer

        monkeypatch.setattr(ScriptedServe, "_scripted", received)


def test_a_lost_deployment_is_planned_again(server: ScriptedServe, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add("text", import_path="m:old")
    server.add("other", import_path="m:first")
    server.script("PUT", ROUTE, answers.drop(), answers.drop())

    def act() -> None:
        server.add("other", import_path="m:second")
        server.add("new")

    Meanwhile(monkeypatch, "PUT", 1, act)
    done = task(app())
    assert done.run() == {"text": "RUNNING"}
    assert sent(server) == [{"text": "m:ok", "other": "m:second", "new": "m:ok"}]
    assert "changes text; keeps other, new" in done.log


def test_a_deployment_whose_answer_is_lost_is_not_sent_again(server: ScriptedServe) -> None:
    before = server.add("text", import_path="m:old")
    server.script("PUT", ROUTE, answers.lost())
    failing = task(app(path="m:broken"))
    with pytest.raises(RayServeDeployError, match="text: back to the previous config; text: healthy"):
        failing.run()
    assert sent(server) == [{"text": "m:broken"}, {"text": "m:old"}]
    assert server.applications["text"]["deployed_app_config"] == before
    assert "The cluster has got what was sent" in failing.log


def test_a_rollback_whose_request_is_lost_is_planned_again(
    server: ScriptedServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add("text", import_path="m:old")
    server.add("other", import_path="m:first")
    server.script("PUT", ROUTE, answers.default(), answers.drop())
    Meanwhile(monkeypatch, "PUT", 2, lambda: server.add("other", import_path="m:second"))
    with pytest.raises(RayServeDeployError, match="text: back to the previous config; text: healthy"):
        task(app(path="m:broken")).run()
    assert sent(server)[1:] == [{"text": "m:old", "other": "m:second"}]


def test_a_cluster_that_loses_every_deployment_is_given_up(
    server: ScriptedServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = {"conn_type": "ray_jobs", "host": server.url, "extra": {"unreachable_timeout": 0.3}}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(connection))
    server.script("PUT", ROUTE, answers.bad_gateway(), forever=True)
    with pytest.raises(RayClusterUnreachableError, match="the cluster was unreachable for"):
        task(app()).run()


@pytest.mark.parametrize(
    ("put", "kind"),
    [
        (answers.internal_error("RuntimeError: oops").but(applies=True), RayServeDeployError),
        (None, AirflowFailException),
    ],
    ids=["500 after it took effect", "refused credentials when it is read again"],
)
def test_an_error_after_the_deployment_is_rolled_back(server: ScriptedServe, put: Any, kind: type[Exception]) -> None:
    server.add("text", import_path="m:old")
    if put is None:
        server.script("GET", ROUTE, answers.default(), answers.unauthorized())
    else:
        server.script("PUT", ROUTE, put)
    with pytest.raises(kind, match="text: back to the previous config; text: healthy"):
        task(app(path="m:broken")).run()
    assert sent(server) == [{"text": "m:broken"}, {"text": "m:old"}]


@pytest.mark.parametrize("name", ["deploy_applications", "get_serve_details"])
def test_an_execution_timeout_while_it_is_sent_is_rolled_back(
    server: ScriptedServe, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    server.add("text", import_path="m:old")
    calls = []
    original = getattr(hooks.RayJobHook, name)

    def alarm(*args: Any) -> Any:
        calls.append(name)
        done = original(*args)
        if len(calls) == (1 if name == "deploy_applications" else 2):
            raise AirflowTaskTimeout
        return done

    monkeypatch.setattr(hooks.RayJobHook, name, alarm)
    operators: list[RayServeDeployOperator] = []
    failing = task(app(path="m:broken"))
    make = failing.make
    failing.make = lambda: operators.append(make()) or operators[-1]
    with pytest.raises(AirflowTaskTimeout):
        failing.run()
    assert sent(server) == [{"text": "m:broken"}, {"text": "m:old"}]
    with caplog_of(operators[0]) as lines:
        operators[0].on_kill()  # Airflow calls this after a timeout, too
    assert not lines


def test_a_kill_during_the_wait_is_told(server: ScriptedServe, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = task(app()).make()
    with caplog_of(operator) as lines:
        operator.on_kill()
        operator._is_sent = True
        operator.on_kill()
    assert lines == ["The deployment goes on without this task, and is not rolled back"]


@contextlib.contextmanager
def caplog_of(operator: RayServeDeployOperator) -> Iterator[list[str]]:
    """Yield what an operator logs."""
    lines: list[str] = []
    with patch.object(RayServeDeployOperator, "log") as log:
        log.warning.side_effect = lambda text, *args: lines.append(text % args)
        yield lines


def test_a_deferred_task_keeps_time_for_a_rollback(server: ScriptedServe) -> None:
    """Airflow 2 counts execution_timeout from the task's start, and raises before it resumes the task."""
    fields: dict[str, Any] = {"deferrable": True, "deploy_timeout": 5000}
    for seconds, kept in ((3600, 120), (60, 15)):
        deferred = task(app(name=f"text-{seconds}"), execution_timeout=timedelta(seconds=seconds), **fields)
        deferred.context["ti"].start_date = datetime.now(UTC)
        began = time.time()
        deferred.run()
        assert deferred.stored[0][0]["deadline"] - began == pytest.approx(seconds - kept, abs=3)


# What is put back, and what others have done


@pytest.mark.parametrize("looks", [2, 3])
@BOTH
def test_a_secret_that_somebody_else_has_changed_is_left_alone(
    server: ScriptedServe, monkeypatch: pytest.MonkeyPatch, deferrable: bool, looks: int
) -> None:
    """At the second look, between the deployment and its reading; at the third, during the wait."""
    server.add("text", import_path="m:slow", runtime_env={"env_vars": {"MODEL": "old"}})
    theirs = {"env_vars": {"MODEL": "theirs"}}
    Meanwhile(
        monkeypatch, "GET", looks, lambda: server.add("text", "DEPLOYING", import_path="m:slow", runtime_env=theirs)
    )
    deploy = task(app(path="m:slow", runtime_env={"env_vars": {"MODEL": "mine"}}), deferrable=deferrable)
    with pytest.raises(RayServeDeployError, match=r"'text' has another config now.*Nothing was rolled back"):
        deploy.run()
    assert len(server.deployed) == 1
    assert server.applications["text"]["deployed_app_config"]["runtime_env"] == theirs


@BOTH
def test_the_capacity_is_put_back(server: ScriptedServe, monkeypatch: pytest.MonkeyPatch, deferrable: bool) -> None:
    server.add("other")
    server.target_capacity = 60.0
    original = ScriptedServe._deploy

    def deploy(self: ScriptedServe, config: dict[str, Any]) -> None:
        original(self, config)
        self.target_capacity = config.get("target_capacity")

    monkeypatch.setattr(ScriptedServe, "_deploy", deploy)
    config = {"target_capacity": 10, "applications": [app(path="m:broken")]}
    with pytest.raises(RayServeDeployError, match="text: removed"):
        task(applications=None, config=config, deferrable=deferrable).run()
    assert [one.get("target_capacity") for one in server.deployed] == [10, 60.0]


def test_what_can_not_be_put_back_is_told(server: ScriptedServe) -> None:
    server.add("text", import_path="m:old")
    server.add("other")
    server.applications["other"].update(deployed_app_config=None)
    failing = task(app(path="m:broken"), remove_others=True)
    with pytest.raises(RayServeDeployError, match=r"other: not put back \(Ray does not tell its config\)"):
        failing.run()
    assert "Application 'other' can't be put back: Ray does not tell its config" in failing.log


def test_a_retry_does_not_take_its_own_config_for_the_previous_one(server: ScriptedServe) -> None:
    """Serve stores numbers as numbers, and drops fields that it does not know."""
    for sent_fields, stored in (({"num_replicas": "2"}, {"num_replicas": 2}), ({"later_field": 5}, {})):
        server.deployed.clear()
        server.add("text", "DEPLOYING", import_path="m:broken", deployments=[{"name": "M", **stored}])
        server.ahead["text"] = deque(["DEPLOYING", "DEPLOYING", "DEPLOY_FAILED"])
        retried = task(app(path="m:broken", deployments=[{"name": "M", **sent_fields}]))
        with pytest.raises(RayServeDeployError, match="the config that was there before is not known"):
            retried.run()
        assert len(server.deployed) == (not stored)


def test_a_rollback_that_fails_is_told(server: ScriptedServe) -> None:
    server.add("text", import_path="m:old")
    server.script("PUT", ROUTE, answers.default(), answers.text(400, "1 validation error\nnope"))
    with pytest.raises(RayServeDeployError, match=r"Could not be rolled back: .*nope") as caught:
        task(app(path="m:broken")).run()
    assert not caught.value.rolled_back


def test_a_rollback_to_what_is_broken_is_told(server: ScriptedServe) -> None:
    server.add("text", import_path="m:broken", args={"old": True})
    with pytest.raises(RayServeDeployError, match="text: NOT healthy: application 'text' is DEPLOY_FAILED") as caught:
        task(app(path="m:broken")).run()
    assert caught.value.rolled_back


# Secrets

SECRET = "a-secret-of-the-model"


@BOTH
def test_secrets_stay_out_of_the_log_and_the_database(server: ScriptedServe, deferrable: bool) -> None:
    server.add("text", import_path="m:old", runtime_env={"env_vars": {"HF_TOKEN": SECRET}})
    new = app(path="m:broken", runtime_env={"env_vars": {"HF_TOKEN": f"{SECRET}-2", "MODE": "visible"}})
    failing = task(new, deferrable=deferrable)
    with pytest.raises(RayServeDeployError, match="back to the previous config") as caught:
        failing.run()
    everything = f"{caught.value}{failing.log}{failing.stored}"
    assert "visible" in everything
    assert SECRET not in everything
    assert not failing.stored
    assert ("Waiting on this worker" in failing.log) is deferrable
    assert server.applications["text"]["deployed_app_config"]["runtime_env"]["env_vars"] == {"HF_TOKEN": SECRET}


def test_the_database_holds_a_previous_config_without_secrets(server: ScriptedServe) -> None:
    before = server.add("text", import_path="m:old", runtime_env={"env_vars": {"MODE": "fast"}})
    deferred = task(app(runtime_env={"env_vars": {"HF_TOKEN": SECRET}}), deferrable=True)
    assert deferred.run() == {"text": "RUNNING"}
    ((trigger, kwargs),) = deferred.stored
    assert kwargs["rollback"]["before"] == {"text": before}
    assert trigger["applications"] == ["text"]
    assert SECRET not in json.dumps(deferred.stored)


def test_a_refused_config_is_told_without_its_values(server: ScriptedServe) -> None:
    text = (
        "1 validation error for ServeDeploySchema\napplications.0.runtime_env\n  Value error, only remote URIs "
        f"[type=value_error, input_value={{'env_vars': {{'A': '{SECRET[:9]}...]\n"
        "    For further information visit https://errors.example.com/v/value_error"
    )
    server.script("PUT", ROUTE, answers.text(400, text))
    with pytest.raises(AirflowFailException) as caught:
        task(app(runtime_env={"env_vars": {"A": SECRET}})).run()
    assert str(caught.value) == (
        f"{server.url}: Ray Serve refused the config: 1 validation error for ServeDeploySchema; "
        "applications.0.runtime_env; Value error, only remote URIs"
    )


@pytest.mark.parametrize("end", ["", "  import_path: [\n"], ids=["no import_path", "not valid YAML"])
def test_secrets_of_a_config_that_is_refused_are_masked(end: str) -> None:
    """Airflow stores the rendered config before the task runs."""
    secret = f"{SECRET}-{len(end)}"
    operator = RayServeDeployOperator(task_id="t", config="{{ text }}")
    text = f"applications:\n- name: t\n  runtime_env:\n    env_vars:\n      HF_TOKEN: {secret}\n{end}"
    operator.render_template_fields({"text": text})
    assert secret in operator.config
    assert secret not in str(redact(operator.config))


# Arguments


def test_a_config_may_be_yaml(server: ScriptedServe) -> None:
    text = "http_options: {port: 8001}\napplications:\n- name: text\n  import_path: m:ok\n"
    deploy = Deployment(lambda: RayServeDeployOperator(task_id="t", config=text, poll_interval=0.02))
    assert deploy.run() == {"text": "RUNNING"}
    assert server.deployed == [{"http_options": {"port": 8001}, "applications": [app()]}]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give one of applications and config"),
        ({"applications": [app()], "config": {"applications": [app()]}}, "give one of applications and config"),
        ({"applications": []}, "at least one application"),
        ({"applications": [{"name": "a"}]}, r"applications\[0\]: import_path must be a string"),
        ({"applications": [app(), app()]}, "the name 'text' twice"),
        ({"config": {"import_path": "m:app"}}, "config has no applications"),
        ({"config": "a: ["}, r"config is not valid YAML \(line 1\)"),
        ({"applications": [app(runtime_env={"env_vars": {"A": 1}})]}, r"applications\[0\]: runtime_env\['env_vars'\]"),
    ],
)
def test_what_is_wrong_is_told_when_the_dag_is_parsed(given: dict[str, Any], said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        RayServeDeployOperator(task_id="t", **given)


@NATIVE
def test_templates_are_rendered_and_texts_stay_texts(server: ScriptedServe, native: bool) -> None:
    applications = [app("{{ half }}", runtime_env={"env_vars": {"PORT": "8080", "N": "{{ n }}"}}, args={"a": 1})]
    made = rendered(lambda: RayServeDeployOperator(task_id="t", applications=applications), native=native)
    (checked,) = made._checked_config()["applications"]
    assert checked["runtime_env"] == {"env_vars": {"PORT": "8080", "N": "3"}}
    assert (checked["name"], checked["args"]) == ("0.5", {"a": 1})


@pytest.mark.parametrize("timeout", ["soon", 0, None])
def test_a_wrong_limit_is_told_before_anything_is_sent(server: ScriptedServe, timeout: Any) -> None:
    with pytest.raises(AirflowFailException, match="deploy_timeout"):
        task(app(), deploy_timeout=timeout).run()
    assert server.received == []


def test_local_code_needs_a_folder_that_lasts(
    server: ScriptedServe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "m.py").write_text("ok = 1")
    local = app(runtime_env={"working_dir": str(tmp_path / "code")})
    with pytest.raises(AirflowFailException, match=r"Nothing was deployed: .*set the package_folder of connection"):
        task(local).run()
    (tmp_path / "packages").mkdir()
    extra = {"package_folder": f"file://{tmp_path}/packages"}
    connection = {"conn_type": "ray_jobs", "host": server.url, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(connection))
    assert task(local).run() == {"text": "RUNNING"}
    uri = server.deployed[0]["applications"][0]["runtime_env"]["working_dir"]
    assert uri.startswith(f"file://{tmp_path}/packages/")

"""What a task's rendered fields, events and errors show of secret environment variables: nothing."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, redact

from airflow_provider_rayjobs.compat import connections, masking
from airflow_provider_rayjobs.following.events import Outcome
from airflow_provider_rayjobs.jobs import JobDetails, JobStatus
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.sensors import RayJobSensor
from airflow_provider_rayjobs.text.job_secrets import WITHHELD
from airflow_provider_rayjobs.triggers import RayConditionTrigger, RayJobTrigger
from tests.support.connections import read

if TYPE_CHECKING:
    from tests.support.scripted_server import ScriptedRay

LISTED = "airflow_secret_env_vars"


@pytest.fixture
def conn_id(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url}))
    return "ray_x"


def render(operator: Any, **context: Any) -> Any:
    """Render as a worker does before it stores the rendered fields; return the operator that runs."""
    context = {"ti": type("Instance", (), {"map_index": 0})(), **context}
    operator.render_template_fields(context)
    return operator


def test_rendered_variables_are_masked_before_airflow_stores_them() -> None:
    with DAG("masking", schedule=None):
        operator = RaySubmitJobOperator(
            task_id="job",
            entrypoint="run {{ plain }}",
            runtime_env={"env_vars": {"MY_PASSWORD": "{{ one }}", "LITERAL_TOKEN": "lit-71bd05", "SIZE": "big-71bd05"}},
            secret_env_vars={"DSN": "{{ two }}"},
        )
    render(operator, one="one-71bd05", two="two-71bd05", plain="plain-71bd05")
    assert operator.runtime_env["env_vars"]["MY_PASSWORD"] == "one-71bd05"
    assert operator.secret_env_vars == {"DSN": "two-71bd05"}
    assert redact("one-71bd05 two-71bd05 lit-71bd05") == "*** *** ***"
    assert redact("big-71bd05 plain-71bd05") == "big-71bd05 plain-71bd05"
    # Where Airflow cuts a long field, it knows no keys, or (3.0) masks by the field's name only.
    assert "71bd05" not in str(redact(operator.secret_env_vars, "secret_env_vars"))


def test_a_template_that_fails_shows_no_literal_secret(caplog: pytest.LogCaptureFixture) -> None:
    with DAG("masking_failure", schedule=None):
        operator = RaySubmitJobOperator(
            task_id="job",
            entrypoint="x",
            runtime_env={"env_vars": {"A_TOKEN": "lit-c0ffee", "B": "{{ 1 / 0 }}"}},
        )
    with pytest.raises(ZeroDivisionError):
        render(operator)
    assert redact("lit-c0ffee") == "***"


def test_printed_fields_hide_what_is_secret() -> None:
    with DAG("printing", schedule=None):
        operator = RaySubmitJobOperator(
            task_id="job",
            entrypoint="x",
            runtime_env={"env_vars": {"A_TOKEN": "{{ one }}", "SIZE": "large"}},
            secret_env_vars={"DSN": "{{ two }}"},
        )
    render(operator, one="one-4d1e", two="two-4d1e")
    # As `airflow tasks render` prints them.
    assert str(operator.secret_env_vars) == "{'DSN': '***'}"
    assert f"{operator.runtime_env}" == "{'env_vars': {'A_TOKEN': '***', 'SIZE': 'large'}}"
    assert json.loads(json.dumps(operator.runtime_env)) == {"env_vars": {"A_TOKEN": "one-4d1e", "SIZE": "large"}}
    assert copy.deepcopy(operator.secret_env_vars) == {"DSN": "two-4d1e"}
    assert str(copy.deepcopy(operator.secret_env_vars)) == "{'DSN': '***'}"


@pytest.mark.parametrize("field", ["entrypoint", "runtime_env", "metadata", "secret_env_vars"])
@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_a_rendered_field_that_no_database_takes_is_refused_by_name(field: str, text: str) -> None:
    values = {
        "entrypoint": "echo {{ text }}",
        "runtime_env": {"env_vars": {"A": "{{ text }}"}},
        "metadata": {"a": "{{ text }}"},
        "secret_env_vars": {"A": "{{ text }}"},
    }
    with DAG("unsafe", schedule=None):
        operator = RaySubmitJobOperator(task_id="job", **{"entrypoint": "true", field: values[field]})
    with pytest.raises(AirflowFailException, match=f"Template field '{field}' of task .* holds a NUL"):
        render(operator, text=text)


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


def test_a_sensor_registers_the_secrets_of_the_job_whose_error_it_tells(
    conn_id: str, scripted_ray: ScriptedRay
) -> None:
    scripted_ray.add_job(
        "j3", "FAILED", message="it said sec-90de12", runtime_env={"env_vars": {"API_TOKEN": "sec-90de12"}}
    )
    sensor = RayJobSensor(task_id="s", submission_id="j3", ray_conn_id=conn_id)
    with pytest.raises(AirflowFailException) as caught:
        sensor.poke({})
    assert "it said ***" in str(caught.value)


def test_a_jobs_secrets_are_masked_in_its_own_text_and_in_no_other() -> None:
    job = JobDetails(
        "SUBMISSION",
        JobStatus.FAILED,
        metadata={LISTED: "DSN"},
        runtime_env={"env_vars": {"A_PASSWORD": "Traceback", "DSN": "dsn-3c9d", "SIZE": "large-one"}},
    )
    public = masking.public_for(job)
    assert public("Traceback: dsn-3c9d large-one") == "***: *** large-one"
    assert redact("Traceback dsn-3c9d") == "Traceback dsn-3c9d"
    assert masking.public_for(None)("Traceback") == "Traceback"


def test_airflow_is_asked_to_mask_what_is_sensitive_in_a_connection_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Airflow 3.1 and newer warn of each short value that they are asked to mask, under whatever name."""
    masked: list[Any] = []
    monkeypatch.setattr(masking, "mask_secret", masked.append)
    extra = {
        "unreachable_timeout": 30,
        "max_upload_size": 5,
        "verify": False,
        "token": "tok-8e21",
        "headers": {"X-Secret": "key-8e21", "X-Team": "a"},
        "metadata": {"password": "meta-8e21", "n": "1"},
        "cookies": {"session": "c-8e21"},
    }
    fields = {"host": "http://head:8265", "port": None, "schema": None, "login": None, "password": None}
    connection: Any = SimpleNamespace(conn_type="ray_jobs", extra=json.dumps(extra), **fields)
    cluster = connections.load_cluster("ray_x", connection)
    assert masked == ["tok-8e21", "key-8e21", "meta-8e21"]
    masking.register_cluster(cluster)
    assert "meta-8e21" in masked
    assert not {"30", "5", "False", "a", "1"}.intersection(masked)
    assert all(isinstance(secret, str) and len(secret) > 5 for secret in masked)


def test_what_airflow_masks_is_masked_in_a_jobs_text_too() -> None:
    masking.register_env_vars({"PEM": "known-secret-7b1"}, ["PEM", "MISSING"])
    assert masking.public_for(JobDetails("SUBMISSION", JobStatus.RUNNING))("a known-secret-7b1") == "a ***"


def test_a_job_with_thousands_of_variables_is_judged_at_once() -> None:
    env_vars = {f"V{n}": f"value-{n:06}" for n in range(30_000)}
    began = time.process_time()
    public = masking.public_for(JobDetails("SUBMISSION", JobStatus.RUNNING, runtime_env={"env_vars": env_vars}))
    assert public("text") == WITHHELD
    assert time.process_time() - began < 1


def test_the_secrets_of_many_jobs_leave_airflows_masker_as_it_is(conn_id: str, scripted_ray: ScriptedRay) -> None:
    for number in range(20):
        secret = f"own-secret-{number}"
        scripted_ray.add_job(f"m{number}", "FAILED", message=secret, runtime_env={"env_vars": {"API_TOKEN": secret}})
        trigger = RayJobTrigger(ray_conn_id=conn_id, submission_id=f"m{number}", submitted_at=1.0, stream_logs=False)
        assert event_of(trigger)["message"] == "***"
    assert redact("own-secret-0 own-secret-19") == "own-secret-0 own-secret-19"


def test_secrets_are_masked_and_harmless_headers_are_not() -> None:
    headers = {
        "X-Api-Key": "key-5af1c2",
        "X-Gateway-Auth": "gate-5af1c2",
        "Accept": "text/plain",
        "X-Team": "analytics",
        "X-Pass": "abc",  # too short to be one
    }
    extra = {"headers": headers, "cookies": {"session": "cookie-5af1c2"}, "token": "token-5af1c2"}
    cluster = read(extra, host="head", login="me", password="word-5af1c2")
    masking.register_cluster(cluster)
    basic = base64.b64encode(b"me:word-5af1c2").decode()
    for secret in ("key-5af1c2", "gate-5af1c2", "cookie-5af1c2", "token-5af1c2", basic):
        assert redact(f"x {secret} y") == "x *** y"
    harmless = "Accept: text/plain from analytics, abc"
    assert redact(harmless) == harmless

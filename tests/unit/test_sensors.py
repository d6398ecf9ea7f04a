"""Sensors: what they wait for, what ends the wait, and what is left behind."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_rayjobs.client import contact
from airflow_provider_rayjobs.diagnosis import pending
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError, RayJobInterruptedError
from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.jobs import JobStatus
from airflow_provider_rayjobs.sensors import RESOURCE_FIELDS, RayClusterSensor, RayJobSensor, RayServeSensor
from airflow_provider_rayjobs.tasks import arguments
from airflow_provider_rayjobs.tasks.context import DEFERRAL_MARGIN
from airflow_provider_rayjobs.triggers import RayConditionTrigger
from tests.support import answers
from tests.support.deployments import Deployment
from tests.support.rendering import BOTH, Instance, rendered

if TYPE_CHECKING:
    from tests.support.scripted_server import ScriptedRay
    from tests.support.stats import KeptStats


@BOTH
def test_the_cluster_sensor_takes_templates_as_the_operator_does(native: bool) -> None:
    assert set(RESOURCE_FIELDS) < set(RayClusterSensor.template_fields)
    sensor = rendered(
        lambda: RayClusterSensor(
            task_id="t",
            entrypoint_num_cpus="{{ n }}",
            entrypoint_num_gpus="{{ nothing }}",
            entrypoint_memory="{{ half * 1024 }}",
            entrypoint_resources={"TPU": "{{ half }}"},
        ),
        native=native,
    )
    assert arguments.checked(sensor._resources()) == {
        "entrypoint_num_cpus": 3,
        "entrypoint_memory": 512,
        "entrypoint_resources": {"TPU": 0.5},
    }


def test_a_wrong_amount_of_the_sensor_is_named_when_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", '{"conn_type": "ray_jobs", "host": "127.0.0.1", "port": 1}')
    with pytest.raises(TypeError, match="entrypoint_num_cpus must be a number, not 'many'"):
        RayClusterSensor(task_id="t", entrypoint_num_cpus="many")
    sensor = rendered(lambda: RayClusterSensor(task_id="t", entrypoint_num_cpus="{{ version }}x"), native=False)
    dag_run = SimpleNamespace(start_date=None)
    with pytest.raises(AirflowFailException, match=r"entrypoint_num_cpus must be a number, not '3\.10x'"):
        sensor.execute({"ti": Instance(), "dag_run": dag_run})


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


# What is waited for


def test_the_statuses_are_rays() -> None:
    assert RayJobSensor(task_id="t", submission_id="a").target_statuses == ["SUCCEEDED"]
    assert RayJobSensor(task_id="t", submission_id="a", target_statuses="RUNNING").target_statuses == ["RUNNING"]
    given = [JobStatus.FAILED, "{{ params.status }}"]
    assert RayJobSensor(task_id="t", submission_id="a", target_statuses=given).target_statuses == [
        "FAILED",
        "{{ params.status }}",
    ]
    with pytest.raises(ValueError, match="target_statuses is empty"):
        RayJobSensor(task_id="t", submission_id="a", target_statuses=[])
    with pytest.raises(ValueError, match="target_statuses: 'DONE' must be one of FAILED, PENDING"):
        RayJobSensor(task_id="t", submission_id="a", target_statuses=["FAILED", "DONE"])


@pytest.mark.parametrize("missing", [None, "", "None"])
def test_a_sensor_needs_a_job(missing: Any, scripted_ray: ScriptedRay, conn_id: str) -> None:
    sensor = RayJobSensor(task_id="t", submission_id=missing, ray_conn_id=conn_id)
    with pytest.raises(AirflowFailException, match="it must be the id of a Ray job"):
        sensor.poke({})
    assert not scripted_ray.received


def test_a_job_is_waited_for_until_it_is_there_and_has_the_status(
    scripted_ray: ScriptedRay, conn_id: str, stats: KeptStats
) -> None:
    sensor = RayJobSensor(task_id="t", submission_id="a", ray_conn_id=conn_id)
    found = [sensor.poke({})]
    scripted_ray.add_job("a").reads.extend(["RUNNING", "SUCCEEDED"])
    found += [sensor.poke({}), sensor.poke({})]
    assert found == [False, False, True]
    assert stats.sent == [("counter", "ray_jobs.head_requests", 1, {"conn_id": conn_id})] * 3


# What ends the wait


def test_a_job_that_ended_otherwise_fails_the_task_for_good(scripted_ray: ScriptedRay, conn_id: str) -> None:
    scripted_ray.add_job("a", "STOPPED")
    with pytest.raises(AirflowFailException, match="Ray job a ended STOPPED instead of SUCCEEDED"):
        RayJobSensor(task_id="t", submission_id="a", ray_conn_id=conn_id).poke({})


def test_lost_contact_is_no_answer_until_its_time_is_over(
    scripted_ray: ScriptedRay, conn_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(contact, "time", SimpleNamespace(monotonic=lambda: now[0]))
    scripted_ray.add_job("a")
    sensor = RayJobSensor(task_id="t", submission_id="a", ray_conn_id=conn_id)

    def poke(after: float) -> bool:
        now[0] += after
        return sensor.poke({})

    scripted_ray.script("GET", ".*", *[answers.internal_error()] * 2)
    assert [poke(0), poke(599), poke(60)] == [False, False, False]  # the third has contact
    scripted_ray.script("GET", ".*", answers.internal_error(), forever=True)
    assert [poke(60), poke(599)] == [False, False]
    with pytest.raises(RayClusterUnreachableError, match="the cluster was unreachable for 601 s"):
        poke(2)


def event(outcome: Outcome, detail: str = "why") -> dict[str, Any]:
    return JobEvent("a", "http://ray:8265", outcome, detail=detail).to_json()


@pytest.mark.parametrize(
    ("outcome", "kind", "said"),
    [
        (Outcome.TIMEOUT, AirflowSensorTimeout, "http://ray:8265: why"),
        (Outcome.UNREACHABLE, RayClusterUnreachableError, "http://ray:8265: why"),
        (Outcome.FAILED, AirflowFailException, "why"),
        (Outcome.LOST, AirflowFailException, "why"),
    ],
)
def test_a_deferred_wait_ends_as_its_event_says(outcome: Outcome, kind: type[Exception], said: str) -> None:
    sensor = RayJobSensor(task_id="t", submission_id="a")
    with pytest.raises(kind) as caught:
        sensor.execute_complete({}, event(outcome))
    assert (type(caught.value), str(caught.value)) == (kind, said)
    sensor.execute_complete({}, event(Outcome.SUCCEEDED))


def test_lost_contact_skips_a_deferred_sensor_that_never_fails() -> None:
    sensor = RayJobSensor(task_id="t", submission_id="a", never_fail=True)
    with pytest.raises(AirflowSkipException, match="Skipping instead of failing: http://ray:8265: why"):
        sensor.execute_complete({}, event(Outcome.UNREACHABLE))


@pytest.mark.parametrize(("soft_fail", "kind"), [(True, AirflowSkipException), (False, AirflowFailException)])
def test_a_first_look_that_fails_defers_nothing(
    scripted_ray: ScriptedRay, conn_id: str, soft_fail: bool, kind: type[Exception]
) -> None:
    scripted_ray.add_job("a", "FAILED")
    sensor = RayJobSensor(task_id="t", submission_id="a", ray_conn_id=conn_id, deferrable=True, soft_fail=soft_fail)
    with pytest.raises(kind, match="Ray job a ended FAILED"):
        sensor.execute({})


def test_a_wait_that_is_not_over_is_deferred_until_the_nearer_limit(scripted_ray: ScriptedRay, conn_id: str) -> None:
    scripted_ray.add_job("a")
    sensor = RayJobSensor(
        task_id="t",
        submission_id="a",
        ray_conn_id=conn_id,
        deferrable=True,
        poke_interval=7,
        timeout=100,
        execution_timeout=timedelta(seconds=50),
    )
    ti = Instance()
    with pytest.raises(TaskDeferred) as caught:
        sensor.execute({"ti": ti})
    trigger: Any = caught.value.trigger
    assert isinstance(trigger, RayConditionTrigger)
    limit = ti.start_date.timestamp() + 50
    _, arguments = trigger.serialize()
    assert (arguments["kind"], arguments["poke_interval"], arguments["ray_conn_id"]) == ("job", 7, conn_id)
    assert arguments["deadline"] == limit
    assert arguments["condition"] == {"submission_id": "a", "targets": ["SUCCEEDED"]}
    assert ti.xcoms["submission_id"] == "a"
    assert caught.value.timeout == timedelta(seconds=100 + DEFERRAL_MARGIN)
    scripted_ray.set_status("a", "SUCCEEDED")
    assert sensor.execute({"ti": ti}) is None


# The trivial job


def context_of_a_try() -> Any:
    return {"ti": Instance(), "dag_run": SimpleNamespace(start_date=None)}


def test_the_trivial_job_does_not_outlive_a_wait_in_vain(scripted_ray: ScriptedRay, conn_id: str) -> None:
    scripted_ray.new_job_reads = ("PENDING",)
    sensor = RayClusterSensor(task_id="t", ray_conn_id=conn_id, timeout=0, poke_interval=0)
    with pytest.raises(AirflowSensorTimeout):
        sensor.execute(context_of_a_try())
    (name,) = scripted_ray.jobs
    assert len(scripted_ray.received_on("POST", f"/api/jobs/{name}/stop")) == 1


@pytest.mark.parametrize("outcome", [Outcome.TIMEOUT, Outcome.FAILED])
def test_the_trivial_job_of_a_deferred_wait_is_stopped(
    scripted_ray: ScriptedRay, conn_id: str, outcome: Outcome
) -> None:
    scripted_ray.add_job("a", "PENDING")
    with pytest.raises((AirflowSensorTimeout, AirflowFailException)):
        RayClusterSensor(task_id="t", ray_conn_id=conn_id).execute_complete({}, event(outcome))
    assert len(scripted_ray.received_on("POST", "/api/jobs/a/stop")) == 1


def test_a_kill_stops_the_trivial_job_and_makes_no_other(scripted_ray: ScriptedRay, conn_id: str) -> None:
    scripted_ray.new_job_reads = ("PENDING",)
    sensor = RayClusterSensor(task_id="t", ray_conn_id=conn_id)
    assert sensor.poke(context_of_a_try()) is False
    sensor.on_kill()
    (name,) = scripted_ray.jobs
    assert len(scripted_ray.received_on("POST", f"/api/jobs/{name}/stop")) == 1
    with pytest.raises(RayJobInterruptedError):
        sensor.poke(context_of_a_try())
    assert list(scripted_ray.jobs) == [name]


def test_a_kill_before_the_first_look_asks_nothing(scripted_ray: ScriptedRay, conn_id: str) -> None:
    RayClusterSensor(task_id="t", ray_conn_id=conn_id).on_kill()
    assert not scripted_ray.received


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_a_cluster_that_can_not_run_the_trivial_job_is_explained(
    scripted_ray: ScriptedRay, conn_id: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "EXPLAIN_AFTER", (0.0, 100.0))
    usage = {"data": {"clusterStatus": {"loadMetricsReport": {"usageByNode": {"ab": {"GPU": [0.0, 1.0]}}}}}}
    scripted_ray.script("GET", "/api/cluster_status", answers.as_json(usage), forever=True)
    scripted_ray.new_job_reads = ("PENDING",)
    sensor = RayClusterSensor(task_id="t", ray_conn_id=conn_id, entrypoint_num_gpus=4, mode=mode)
    said: list[str] = []
    monkeypatch.setattr(sensor.log, "info", lambda text, *args: said.append(text % args))
    for _ in range(4):
        assert sensor.poke(context_of_a_try()) is False
    reasons = [text for text in said if text.startswith("PENDING")]
    assert len(reasons) == (1 if mode == "poke" else 3), "in reschedule mode each poke has a log of its own"
    assert "needs 4 GPU on one node, but no node has 4 GPU (at most 1 GPU)" in reasons[0]


# Applications of Ray Serve


def serve_sensor(scripted_ray: ScriptedRay, conn_id: str, *statuses: str, **kwargs: Any) -> Deployment:
    """Return a task that waits for an application, which has these statuses; without a status, it is not there."""
    details = [{"a": {"status": one, "deployments": {"M": {"message": "why"}}}} if one else {} for one in statuses]
    given = [answers.as_json({"applications": one}) for one in details]
    scripted_ray.script("GET", "/api/serve/applications/", *given, forever=True)
    fields = {
        "task_id": "t",
        "ray_conn_id": conn_id,
        "application": "a",
        "poke_interval": 0.02,
        "timeout": 20,
        **kwargs,
    }
    return Deployment(lambda: RayServeSensor(**fields))


DEFERRABLE = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])


@DEFERRABLE
def test_the_serve_sensor_waits_for_a_status(scripted_ray: ScriptedRay, conn_id: str, deferrable: bool) -> None:
    task = serve_sensor(scripted_ray, conn_id, "", "DEPLOYING", "UNHEALTHY", "RUNNING", deferrable=deferrable)
    assert task.run() is None
    assert len(task.stored) == deferrable
    assert len(scripted_ray.received) == 4


@DEFERRABLE
def test_the_serve_sensor_fails_with_the_deployment(scripted_ray: ScriptedRay, conn_id: str, deferrable: bool) -> None:
    task = serve_sensor(scripted_ray, conn_id, "DEPLOYING", "DEPLOY_FAILED", deferrable=deferrable)
    with pytest.raises(AirflowFailException, match=r"application 'a' is DEPLOY_FAILED.*why"):
        task.run()


@DEFERRABLE
def test_the_serve_sensor_tells_why_without_secrets(scripted_ray: ScriptedRay, conn_id: str, deferrable: bool) -> None:
    secret = "hf_secret_of_the_application"
    config = {"name": "a", "import_path": "m:a", "runtime_env": {"env_vars": {"HF_TOKEN": secret}}}
    message = f"\x1b[31m{'e' * 9000} login with {secret} failed"
    application = {
        "status": "DEPLOY_FAILED",
        "deployed_app_config": config,
        "message": message,
        "deployments": {f"M{n}": {"status": "DEPLOY_FAILED", "message": message} for n in range(50)},
    }
    answer = answers.as_json({"applications": {"a": application}})
    scripted_ray.script("GET", "/api/serve/applications/", answer)
    task = serve_sensor(scripted_ray, conn_id, "", deferrable=deferrable)
    with pytest.raises(AirflowFailException, match=r"login with \*\*\* failed.*and 40 more") as caught:
        task.run()
    everything = f"{caught.value}{task.log}{task.stored}"
    assert secret not in everything
    assert "\x1b" not in everything
    assert len(str(caught.value)) < 5000


@DEFERRABLE
def test_the_serve_sensor_may_wait_for_any_status(scripted_ray: ScriptedRay, conn_id: str, deferrable: bool) -> None:
    statuses = ("UNHEALTHY", "DEPLOY_FAILED")
    serve_sensor(scripted_ray, conn_id, "", statuses[1], target_statuses=statuses, deferrable=deferrable).run()


@DEFERRABLE
def test_the_serve_sensor_keeps_its_timeout(scripted_ray: ScriptedRay, conn_id: str, deferrable: bool) -> None:
    with pytest.raises(AirflowSensorTimeout):
        serve_sensor(scripted_ray, conn_id, "DEPLOYING", timeout=0.1, deferrable=deferrable).run()


def test_the_serve_sensor_refuses_what_names_nothing(scripted_ray: ScriptedRay, conn_id: str) -> None:
    with pytest.raises(AirflowFailException, match="application is ''"):
        serve_sensor(scripted_ray, conn_id, "", application="").run()
    with pytest.raises(ValueError, match="target_statuses is empty"):
        RayServeSensor(task_id="t", application="a", target_statuses=[])

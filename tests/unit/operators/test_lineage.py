"""The operator's part in lineage: without OpenLineage nothing changes, and with it a try is told of its own run."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_rayjobs.exceptions import RayJobFailedError
from airflow_provider_rayjobs.observability import lineage
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.operators.lineage import OPTIONS
from airflow_provider_rayjobs.tasks.context import RAY_VERSION_XCOM
from tests.support.tries import TaskInstance, Tries

if TYPE_CHECKING:
    from tests.support.scripted_server import ScriptedRay

PARENT = "openlineage_inject_parent_job_info"
BOTH = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])


@pytest.fixture(autouse=True)
def _connection(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "ray_jobs", "host": scripted_ray.url, "extra": {"unreachable_timeout": 1}}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(connection))
    scripted_ray.new_job_reads = ["SUCCEEDED"]


class Task:
    """A task whose operators are kept; each process of Airflow makes its own."""

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.operators: list[RaySubmitJobOperator] = []

    def __call__(self) -> RaySubmitJobOperator:
        operator = RaySubmitJobOperator(**{"task_id": "task", "entrypoint": "true", **self.arguments})
        self.operators.append(operator)
        return operator


def env_vars(server: ScriptedRay) -> list[dict[str, str]]:
    bodies = [json.loads(received.body) for received in server.received_on("POST", "/api/jobs/")]
    return [(body.get("runtime_env") or {}).get("env_vars", {}) for body in bodies]


@pytest.fixture
def without_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "is_installed", lambda: False)
    for name in [name for name in sys.modules if name.startswith("airflow.providers.openlineage")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, str], dict[str, Any] | None]]:
    """What was told to OpenLineage's listener, which is played."""
    told: list[tuple[dict[str, str], dict[str, Any] | None]] = []
    conf: Any = ModuleType("conf")
    conf.is_disabled = lambda: False
    monkeypatch.setitem(sys.modules, "airflow.providers.openlineage.conf", conf)
    monkeypatch.setattr(lineage, "operator_lineage", lambda *facets: told.append(facets))
    return told


@pytest.fixture
def parents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids as OpenLineage's: each try has its own run."""
    monkeypatch.setattr(lineage, "is_installed", lambda: True)
    monkeypatch.setattr(lineage, "_of_parent_run", lambda ti: {lineage.PARENT: f"ns/dag.task/{ti.try_number}"})


@pytest.mark.usefixtures("without_provider")
@BOTH
def test_without_the_provider_nothing_is_imported_and_nothing_changes(
    scripted_ray: ScriptedRay, deferrable: bool
) -> None:
    tries = Tries(Task(deferrable=deferrable), "run")
    tries.run()
    assert env_vars(scripted_ray) == [{}]
    assert RAY_VERSION_XCOM not in tries.ti.xcoms
    assert not [name for name in sys.modules if name.startswith("airflow.providers.openlineage")]


@pytest.mark.usefixtures("without_provider")
@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_without_the_provider_is_refused_before_anything_is_sent(
    scripted_ray: ScriptedRay, name: str
) -> None:
    arguments: Any = {name: True}
    with pytest.raises(
        AirflowFailException, match=rf"^Nothing was submitted: {name}=True needs .*rayjobs\[openlineage\]"
    ):
        Tries(Task(**arguments), "run").run()
    assert not scripted_ray.received


@pytest.mark.usefixtures("without_provider")
def test_a_setting_of_airflow_without_the_provider_is_told_and_the_job_runs(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__SPARK_INJECT_PARENT_JOB_INFO", "True")
    tries = Tries(Task(), "run")
    tries.run()
    assert env_vars(scripted_ray) == [{}]
    assert any("provider is not installed" in line for line in tries.lines)


@pytest.mark.usefixtures("parents")
@pytest.mark.parametrize(
    ("given", "setting", "expected"),
    [(None, "True", True), (None, "False", False), (False, "True", False), (True, "False", True)],
)
def test_the_setting_of_airflow_is_the_default(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch, given: bool | None, setting: str, expected: bool
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__SPARK_INJECT_PARENT_JOB_INFO", setting)
    Tries(Task(openlineage_inject_parent_job_info=given), "run").run()
    assert env_vars(scripted_ray) == [{lineage.PARENT: "ns/dag.task/1"} if expected else {}]


@pytest.mark.usefixtures("parents")
def test_the_parent_run_of_a_try_does_not_change_which_job_the_next_try_follows(scripted_ray: ScriptedRay) -> None:
    task = Task(openlineage_inject_parent_job_info=True, deferrable=False)
    tries = Tries(task, "run")
    context = tries.context()
    operator = task()
    operator._submit(context, operator._identity_of(context), None)  # and then the worker is lost
    tries.run()
    assert env_vars(scripted_ray) == [{lineage.PARENT: "ns/dag.task/1"}]
    assert any(line.startswith("Reattached") for line in tries.lines)


def test_the_parent_run_of_a_try_does_not_make_it_submit_twice(
    scripted_ray: ScriptedRay, parents: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that repeats the submission of its own try, here with another run's id, finds the job that is there."""
    task = Task(openlineage_inject_parent_job_info=True, deferrable=False)
    tries = Tries(task, "run")
    context = tries.context()
    first, second = task(), task()
    watch = first._submit(context, first._identity_of(context), None)
    monkeypatch.setattr(lineage, "_of_parent_run", lambda _: {lineage.PARENT: "ns/dag.task/other"})
    assert second._submit(context, second._identity_of(context), None).submission_id == watch.submission_id
    assert len(scripted_ray.jobs) == 1


@pytest.mark.usefixtures("parents")
def test_an_error_of_openlineage_does_not_keep_the_job_from_running(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Any) -> Any:
        raise RuntimeError("no transport")

    monkeypatch.setattr(lineage, "_of_parent_run", fails)
    tries = Tries(Task(openlineage_inject_parent_job_info=True), "run")
    tries.run()
    assert env_vars(scripted_ray) == [{}]
    assert any("no transport" in line for line in tries.lines)


@BOTH
@pytest.mark.usefixtures("listening")
def test_a_wrong_configuration_of_openlineage_fails_no_task(
    deferrable: bool, scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> bool:
        raise ValueError("transport is not valid JSON")

    monkeypatch.setattr(sys.modules["airflow.providers.openlineage.conf"], "is_disabled", fails)
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__SPARK_INJECT_PARENT_JOB_INFO", "maybe")
    Tries(Task(deferrable=deferrable), "run").run()
    assert len(scripted_ray.received_on("POST", "/api/jobs/")) == 1


def test_the_start_tells_what_will_be_submitted(listening: list[Any]) -> None:
    Task()().get_openlineage_facets_on_start()
    [(submission, outcome)] = listening
    assert submission == {"entrypointDigest": lineage.entrypoint_digest("true"), "connection": "ray_default"}
    assert outcome is None


@BOTH
def test_the_end_tells_of_the_job(listening: list[Any], scripted_ray: ScriptedRay, deferrable: bool) -> None:
    task = Task(deferrable=deferrable)
    tries = Tries(task, "run")
    submission_id = tries.run()
    assert len(task.operators) == (2 if deferrable else 1)
    task.operators[-1].get_openlineage_facets_on_complete(tries.ti)
    [(submission, outcome)] = listening
    assert submission == {
        "entrypointDigest": lineage.entrypoint_digest("true"),
        "submissionId": submission_id,
        "connection": "ray_default",
        "address": scripted_ray.url,
        "rayVersion": "2.60.0",
    }
    assert outcome == {"submissionId": submission_id, "status": "SUCCEEDED", "exitCode": 0}


@BOTH
def test_a_failure_tells_its_exit_code_and_cause(
    listening: list[Any], scripted_ray: ScriptedRay, deferrable: bool
) -> None:
    scripted_ray.new_job_reads = ["FAILED"]
    task = Task(deferrable=deferrable)
    tries = Tries(task, "run")
    with pytest.raises(RayJobFailedError) as caught:
        tries.run()
    task.operators[-1].get_openlineage_facets_on_failure(tries.ti)
    [(_, outcome)] = listening
    assert outcome["status"] == "FAILED"
    assert outcome["message"] == str(caught.value)


def test_a_task_that_does_not_wait_tells_its_job_without_an_outcome(listening: list[Any]) -> None:
    task = Task(wait_for_completion=False)
    tries = Tries(task, "run")
    submission_id = tries.run()
    task.operators[-1].get_openlineage_facets_on_complete(tries.ti)
    assert listening[0][0]["submissionId"] == submission_id
    assert listening[0][1] is None


def test_a_deferral_that_airflow_ended_tells_which_job_it_was(listening: list[Any]) -> None:
    """Airflow resumes it in a new process, without an event."""
    ti = TaskInstance("run", 1, 0)
    ti.xcoms = {"submission_id": "raysubmit_1", RAY_VERSION_XCOM: "2.60.0"}
    Task(deferrable=True)().get_openlineage_facets_on_failure(ti)
    [(submission, outcome)] = listening
    assert (submission["submissionId"], submission["rayVersion"]) == ("raysubmit_1", "2.60.0")
    assert outcome is None


def test_facts_that_can_not_be_read_are_left_out(listening: list[Any]) -> None:
    Task()().get_openlineage_facets_on_failure(SimpleNamespace())
    assert listening[0][0].keys() == {"entrypointDigest", "connection"}

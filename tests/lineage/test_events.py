"""Airflow's events of real jobs, checked by all schemas; and the parent run as jobs read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.lineage.conftest import KEY
from tests.lineage.dags.lineage import BACKEND, SECRET
from tests.support import lineage_schemas
from tests.support.airflow_records import wait

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lineage.conftest import Backend
    from tests.support.airflow_env import AirflowEnv
    from tests.support.ray_head import RayHead

RUN = "lineage"
ENDS = {
    "succeeds_here": "success",
    "succeeds_deferred": "success",
    "fails_here": "failed",
    "fails_deferred": "failed",
    "function": "success",
    "own_parent": "success",
    "mapped": "success",
    "transport": "success",
}


class Events:
    """The events of the tasks of one DAG run."""

    def __init__(self, airflow: AirflowEnv, file: Path) -> None:
        self.airflow = airflow
        self.file = file

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []

    def of(self, task_id: str, kind: str) -> list[dict[str, Any]]:
        """Return the events of a task, of this kind."""
        return [
            event for event in self.all() if event["job"]["name"] == f"lineage.{task_id}" and event["eventType"] == kind
        ]


@pytest.fixture(scope="session")
def events(airflow_env: AirflowEnv, events_file: Path) -> Events:
    """Those of a DAG run that has ended."""
    airflow_env.wait_dag("lineage")
    airflow_env.trigger("lineage", RUN)
    for task_id, state in ENDS.items():
        airflow_env.wait_task("lineage", RUN, task_id, state, map_index=map_index(task_id))
    found = Events(airflow_env, events_file)

    def ended() -> bool:
        return all(found.of(task_id, end_of(task_id)) for task_id in ENDS)

    wait(ended, 60, lambda: f"events: {[(e['job']['name'], e['eventType']) for e in found.all()]}")
    return found


def map_index(task_id: str) -> int:
    return 0 if task_id == "mapped" else -1


def end_of(task_id: str) -> str:
    return "COMPLETE" if ENDS[task_id] == "success" else "FAIL"


def checked(event: dict[str, Any], *facets: str) -> None:
    known = lineage_schemas.check_event(event)
    assert {"airflow", "parent", "jobType", *facets} <= known, f"{event['_id']}: only {known}"


@pytest.mark.parametrize("task_id", ENDS)
def test_the_start_is_told(events: Events, task_id: str) -> None:
    first = events.of(task_id, "START")[0]
    checked(first, "rayjobs_submission")
    facet = first["job"]["facets"]["rayjobs_submission"]
    assert facet["connection"] == "ray_default"
    assert "submissionId" not in facet


@pytest.mark.parametrize("task_id", ENDS)
def test_the_end_is_told_once_with_its_job(events: Events, ray_head: RayHead, task_id: str) -> None:
    [event] = events.of(task_id, end_of(task_id))
    checked(event, "rayjobs_submission", "rayjobs_outcome", *(["errorMessage"] if end_of(task_id) == "FAIL" else []))
    submission = event["job"]["facets"]["rayjobs_submission"]
    outcome = event["run"]["facets"]["rayjobs_outcome"]
    job = events.airflow.xcom("lineage", RUN, task_id, "submission_id", map_index(task_id))
    details = ray_head.job(job)
    assert details is not None
    assert submission["submissionId"] == outcome["submissionId"] == job
    assert submission["address"] == ray_head.url
    assert submission["rayVersion"] == ".".join(map(str, ray_head.version))
    assert (
        submission["entrypointDigest"]
        == events.of(task_id, "START")[0]["job"]["facets"]["rayjobs_submission"]["entrypointDigest"]
    )
    assert outcome["status"] == details["status"]
    assert outcome["exitCode"] == details["driver_exit_code"]


@pytest.mark.parametrize("task_id", ["fails_here", "fails_deferred"])
def test_why_it_failed_is_told_without_secrets(events: Events, task_id: str) -> None:
    [event] = events.of(task_id, "FAIL")
    outcome = event["run"]["facets"]["rayjobs_outcome"]
    assert (outcome["exitCode"], outcome["cause"]) == (3, "JOB_ENTRYPOINT_COMMAND_ERROR")
    assert outcome["message"].startswith("Ray job FAILED: exit code 3")
    assert "***" in outcome["message"]
    assert event["run"]["facets"]["errorMessage"]["message"].endswith(outcome["message"])


def test_no_event_has_a_secret(events: Events, ray_head: RayHead) -> None:
    text = events.file.read_text()
    assert "rayjobs_outcome" in text
    assert "echo parent" not in text
    assert SECRET not in text
    assert KEY not in text
    assert not ray_head.token or ray_head.token not in text


def test_a_backend_gets_the_same_events(events: Events, backend: Backend) -> None:
    def told(all_of_them: list[dict[str, Any]]) -> list[tuple[str, str]]:
        return sorted((event["run"]["runId"], event["eventType"]) for event in all_of_them)

    assert set(told(events.all())) <= set(told(backend.events))


def test_a_job_is_told_of_the_backend_and_its_key_is_masked(
    events: Events, backend: Backend, ray_head: RayHead
) -> None:
    log = events.airflow.task_log("lineage", RUN, "transport")
    assert f"url={backend.url} key=***" in log
    assert KEY not in log
    job = ray_head.job(events.airflow.xcom("lineage", RUN, "transport", "submission_id"))
    assert job is not None
    env_vars = job["runtime_env"]["env_vars"]
    assert env_vars[f"{BACKEND}__AUTH__API_KEY"] == KEY
    assert "OPENLINEAGE_PARENT_ID" not in env_vars


@pytest.mark.parametrize("task_id", ["succeeds_here", "succeeds_deferred", "fails_here", "fails_deferred"])
def test_a_job_reads_the_run_of_its_task(events: Events, task_id: str) -> None:
    [event] = events.of(task_id, end_of(task_id))
    parent = event["run"]["facets"]["parent"]
    run = f"tests/lineage.{task_id}/{event['run']['runId']}"
    root = f"tests/lineage/{parent['run']['runId']}"
    assert f"parent={run} root={root}" in events.airflow.task_log("lineage", RUN, task_id)


def test_a_function_reads_the_run_of_its_task(events: Events) -> None:
    [event] = events.of("function", "COMPLETE")
    assert events.airflow.xcom("lineage", RUN, "function") == f"tests/lineage.function/{event['run']['runId']}"


def test_what_the_author_has_set_stays(events: Events) -> None:
    assert events.airflow.xcom("lineage", RUN, "own_parent") == "mine"

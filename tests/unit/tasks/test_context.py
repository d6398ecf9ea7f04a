"""Which try a deferred task resumes in: Airflow 3.0 begins a retry where the try before it ended."""

from __future__ import annotations

import gc
import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.compat.connections import derived_deployment
from airflow_provider_rayjobs.compat.versions import AIRFLOW_V_3_0_PLUS
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.sensors import RayJobSensor
from airflow_provider_rayjobs.tasks import context as task_context
from airflow_provider_rayjobs.tasks.identity import TaskIdentity

DAG_FILE = """
from airflow.sdk import DAG
from airflow_provider_rayjobs.operators import RaySubmitJobOperator

with DAG("in_bundle", schedule=None):
    RaySubmitJobOperator(task_id="t", entrypoint="true", runtime_env={"working_dir": "code"})
"""


class TaskInstance:
    """A task instance that keeps XComs from try to try, as Airflow 3.0 does for one that it resumes."""

    task_id, map_index, max_tries = "task", -1, 3

    def __init__(self) -> None:
        self.try_number = 1
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep a value."""
        self.xcoms[key] = value

    def xcom_pull(self, *, task_ids: str, key: str, map_indexes: int) -> Any:
        """Return a value."""
        assert (task_ids, map_indexes) == (self.task_id, self.map_index)
        return self.xcoms.get(key)


@pytest.mark.parametrize("kind", [RaySubmitJobOperator, RayJobSensor])
@pytest.mark.parametrize("method", ["execute_complete", "__fail__"])
def test_a_retry_that_is_resumed_begins(monkeypatch: pytest.MonkeyPatch, kind: Any, method: str) -> None:
    monkeypatch.setattr(task_context, "RESUMES_IN_RETRIES", True)
    monkeypatch.setattr(kind, "execute", lambda _self, _context: "begun")
    base = next(parent for parent in kind.__mro__[1:] if not parent.__module__.startswith("airflow_provider_rayjobs"))
    monkeypatch.setattr(base, "resume_execution", lambda *_: "resumed")
    made = kind(task_id="task", **({"entrypoint": "true"} if kind is RaySubmitJobOperator else {"submission_id": "j1"}))
    ti = TaskInstance()
    context: Any = {"ti": ti}

    def resume() -> Any:
        return made.resume_execution(method, {"event": {}}, context)

    task_context.note_deferral(context)
    assert resume() == "resumed"
    ti.try_number = 2
    assert resume() == "begun"
    task_context.note_deferral(context)
    assert resume() == "resumed"


def test_a_deferral_of_which_nothing_is_known_is_resumed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was begun by an Airflow or a provider that did not note it."""
    monkeypatch.setattr(task_context, "RESUMES_IN_RETRIES", True)
    context: Any = {"ti": TaskInstance()}
    assert not task_context.resumes_earlier_try(context)


# Who a task is, and what it keeps


def context_of(**fields: Any) -> Any:
    ti = TaskInstance()
    vars(ti).update(fields)
    return {
        "ti": ti,
        "dag_run": SimpleNamespace(start_date=datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
    }


def test_a_task_says_who_it_is() -> None:
    context = context_of(dag_id="d", run_id="r", map_index=None)
    identity = task_context.task_identity(context, "prod", number=2)
    assert identity == TaskIdentity(
        deployment="prod",
        dag_id="d",
        run_id="r",
        task_id="task",
        map_index=-1,
        try_number=1,
        max_tries=3,
        run_started="2026-01-01T00:00:00+00:00",
        number=2,
    )
    context["dag_run"] = SimpleNamespace()
    derived = task_context.task_identity(context, "")
    assert (derived.deployment, derived.run_started, derived.number) == (derived_deployment(), "", 1)


def test_the_submissions_of_a_try_are_counted_and_forgotten_with_it() -> None:
    context, other = context_of(), context_of()
    assert [task_context.next_submission(context) for _ in range(3)] == [1, 2, 3]
    assert task_context.next_submission(other) == 1
    context["ti"].try_number = 2
    assert task_context.next_submission(context) == 1
    gc.collect()  # what other tests have left
    before = len(task_context._submissions)
    del context
    gc.collect()
    assert len(task_context._submissions) == before - 2
    assert task_context.next_submission(other) == 2


@pytest.mark.parametrize(("kept", "known"), [("a", "a"), (None, ""), (5, ""), (["a"], "")])
def test_the_submission_id_that_a_task_has_kept_is_a_text(kept: Any, known: str) -> None:
    context = context_of()
    context["ti"].xcoms["submission_id"] = kept
    assert task_context.own_submission_id(context) == known


def test_what_is_kept_is_what_every_database_takes() -> None:
    context = context_of()
    task_context.push_xcom(context, "key", {"a\0": ["\ud800", 1]})
    assert context["ti"].xcoms == {"key": {r"a\x00": [r"\ud800", 1]}}


def test_only_an_airflow_that_mixes_tries_up_has_them_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_context, "RESUMES_IN_RETRIES", False)
    context = context_of()
    task_context.note_deferral(context)
    assert context["ti"].xcoms == {}
    context["ti"].xcoms["deferred_try"] = 7
    assert not task_context.resumes_earlier_try(context)


def test_the_folder_of_the_dag_file(tmp_path: Path) -> None:
    assert task_context.dag_folder(RaySubmitJobOperator(task_id="t", entrypoint="true")) is None
    with DAG("d", schedule=None):
        operator = RaySubmitJobOperator(task_id="t", entrypoint="true")
    assert task_context.dag_folder(operator) == str(Path(__file__).parent)
    operator.dag.fileloc = str(tmp_path / "bundle/etl/dag.py")
    assert task_context.dag_folder(operator) == f"{tmp_path}/bundle/etl"


@pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="Airflow 2 has no bundles")
@pytest.mark.parametrize(("version", "folder"), [("v1", "v1/etl"), (None, "v2/etl")])
def test_the_folder_of_a_file_in_a_bundle_is_that_of_the_runs_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, folder: str
) -> None:
    """As a worker of this Airflow reads the file."""
    from airflow.sdk.execution_time import task_runner

    for name in ("v1", "v2"):
        (tmp_path / name / "etl").mkdir(parents=True)
        (tmp_path / name / "etl/dag.py").write_text(DAG_FILE)
    bundle = {"name": "b", "classpath": "tests.support.bundles.Versions", "kwargs": {"root": str(tmp_path)}}
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
    what = MagicMock(bundle_info=SimpleNamespace(name="b", version=version), dag_rel_path="etl/dag.py")
    what.ti.configure_mock(dag_id="in_bundle", task_id="t", model_dump=lambda **_: {})
    task = task_runner.parse(what, MagicMock()).task
    assert task_context.dag_folder(task) == str(tmp_path / folder)

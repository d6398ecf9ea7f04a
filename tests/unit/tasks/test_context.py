"""Which try a deferred task resumes in: Airflow 3.0 begins a retry where the try before it ended."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.sensors import RayJobSensor
from airflow_provider_rayjobs.tasks import context as task_context


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

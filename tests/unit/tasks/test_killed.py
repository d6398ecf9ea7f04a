"""Why a task's process is asked to end, by what Airflow says of the task."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_rayjobs.tasks import killed as killed_module
from airflow_provider_rayjobs.tasks.killed import Reason, TaskProcess, was_killed
from airflow_provider_rayjobs.tasks.shared_questions import SharedQuestions

ALIVE = ["running", "deferred", "queued", "scheduled", "up_for_retry", None]  # None: its scheduler died
OVER = ["failed", "success", "skipped", "removed", "absent"]


def instance(**fields: Any) -> Any:
    task = SimpleNamespace(retries=fields.get("max_tries", 3))
    fields = {"try_number": 2, "max_tries": 3, "hostname": "here", "pid": 7, "task": task, **fields}
    return SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=-1, id="an id", **fields)


@pytest.fixture
def airflow_3(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What an API server says."""
    says = SimpleNamespace(state="running", current=True, xcom="j1")
    monkeypatch.setattr(killed_module, "AIRFLOW_V_3_0_PLUS", True)

    def states(_dag_id: str, _run_id: str, task_ids: list[str], _map_index: int | None) -> dict[str, str | None]:
        return {} if says.state == "absent" else dict.fromkeys(task_ids, says.state)

    monkeypatch.setattr(killed_module, "_states_3", states)
    monkeypatch.setattr(killed_module, "_STATES_3", SharedQuestions(states))
    monkeypatch.setattr(killed_module, "_is_current_try_3", lambda _: says.current)
    monkeypatch.setattr(killed_module, "XCom", SimpleNamespace(get_one=lambda **_: says.xcom))
    monkeypatch.setattr(killed_module.versions, "triggerer_ends", lambda: False)
    return says


@pytest.fixture
def airflow_2(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the database says."""
    row = SimpleNamespace(state="running", try_number=2, max_tries=3, hostname="here", pid=7)
    monkeypatch.setattr(killed_module, "AIRFLOW_V_3_0_PLUS", False)

    def rows(_dag_id: str, _run_id: str, task_ids: list[str], _map_index: int | None) -> dict[str, Any]:
        return dict.fromkeys(task_ids, row) if row.pid else {}

    monkeypatch.setattr(killed_module, "_rows_2", rows)
    monkeypatch.setattr(killed_module, "_ROWS_2", SharedQuestions(rows))
    monkeypatch.setattr(killed_module, "XCom", SimpleNamespace(get_one=lambda **_: "j1"))
    monkeypatch.setattr(killed_module.versions, "triggerer_ends", lambda: False)
    return row


@pytest.mark.parametrize("state", ALIVE)
@pytest.mark.parametrize("current", [True, False])
def test_a_task_that_lives_is_this_process_s_or_another_s(
    airflow_3: SimpleNamespace, state: str | None, current: bool
) -> None:
    airflow_3.state, airflow_3.current = state, current
    assert TaskProcess(instance()).reason("j1") is (Reason.PROCESS_ENDS if current else Reason.REPLACED)
    # Nobody follows a job that another process of the task does not know as its own.
    assert TaskProcess(instance()).reason("j0") is (Reason.PROCESS_ENDS if current else Reason.TASK_ENDED)
    assert TaskProcess(instance()).reason(None) is (Reason.PROCESS_ENDS if current else Reason.REPLACED)


@pytest.mark.parametrize("state", OVER)
def test_a_task_that_is_over_was_ended(airflow_3: SimpleNamespace, state: str | None) -> None:
    airflow_3.state = state
    assert TaskProcess(instance()).reason("j1") is Reason.TASK_ENDED


def test_a_task_that_was_cleared_while_it_ran_is_to_run_anew(airflow_3: SimpleNamespace) -> None:
    airflow_3.state, airflow_3.current = "restarting", False
    assert TaskProcess(instance()).reason("j1") is Reason.TASK_CLEARED


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        ({}, Reason.PROCESS_ENDS),
        ({"state": "up_for_retry"}, Reason.PROCESS_ENDS),
        ({"state": "failed"}, Reason.TASK_ENDED),
        ({"state": "restarting"}, Reason.TASK_CLEARED),
        ({"state": None}, Reason.PROCESS_ENDS),
        ({"pid": None}, Reason.TASK_ENDED),  # the row is gone
        ({"max_tries": 5}, Reason.TASK_ENDED),  # cleared
        ({"try_number": 3}, Reason.REPLACED),
        ({"hostname": "other"}, Reason.REPLACED),
        ({"pid": 1}, Reason.REPLACED),
        ({"pid": 1, "state": "queued"}, Reason.PROCESS_ENDS),
    ],
)
def test_airflow_2_is_asked_by_its_database(airflow_2: SimpleNamespace, now: dict[str, Any], reason: Reason) -> None:
    vars(airflow_2).update(now)
    assert TaskProcess(instance()).reason("j1") is reason


def test_no_answer_is_waited_for_a_short_time_only(airflow_3: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(killed_module, "_state_3", lambda _: gate.wait(30))
    monkeypatch.setattr(killed_module, "ANSWER_TIMEOUT", 0.2)
    began = time.monotonic()
    assert TaskProcess(instance()).reason("j1") is Reason.UNKNOWN
    assert time.monotonic() - began < 5
    gate.set()


def test_an_error_is_no_answer(airflow_3: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: Any) -> str:
        raise ConnectionError("the API server is away")

    monkeypatch.setattr(killed_module, "_state_3", away)
    assert TaskProcess(instance()).reason("j1") is Reason.UNKNOWN


@pytest.mark.parametrize(("try_number", "max_tries", "follows"), [(1, 0, False), (1, 1, True), (2, 1, False)])
def test_another_try_follows_while_there_are_retries(try_number: int, max_tries: int, follows: bool) -> None:
    assert TaskProcess(instance(try_number=try_number, max_tries=max_tries)).has_next_try is follows


def test_only_a_process_that_is_old_asks_whether_it_was_replaced(
    airflow_3: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow_3.current = False
    process = TaskProcess(instance())
    assert not process.is_replaced()
    monkeypatch.setattr(killed_module, "RECHECK_AFTER", 0.0)
    assert process.is_replaced()
    assert not TaskProcess(instance(test_mode=True)).is_replaced()  # `airflow tasks test` keeps no state
    airflow_3.current = True
    assert not process.is_replaced()
    monkeypatch.setattr(killed_module, "RECHECK_AFTER", 60.0)
    airflow_3.current = False
    assert not process.is_replaced()  # it was asked just now


# A cancelled trigger


def test_a_trigger_s_job_is_stopped_on_a_certain_wish_only(airflow_3: SimpleNamespace) -> None:
    for state, xcom, killed in [
        ("deferred", "j1", False),  # another triggerer has it
        ("deferred", "j2", True),  # cleared, and it follows a new job
        ("running", "j1", False),  # the next try, or the same one after its event
        ("running", None, False),  # a try that begins will find the job
        ("up_for_retry", "j1", False),
        ("queued", "j1", False),
        ("failed", "j1", True),
        ("success", "j1", True),
        ("absent", "j1", True),
        (None, "j1", True),
    ]:
        airflow_3.state, airflow_3.xcom = state, xcom
        assert asyncio.run(was_killed(instance(), "j1")) is killed, (state, xcom)


def test_a_task_that_is_missing_in_an_answer_about_many_is_asked_for_alone(
    airflow_3: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow_3.state = "deferred"
    monkeypatch.setattr(killed_module, "_STATES_3", SharedQuestions(lambda *_: {}))
    assert not asyncio.run(was_killed(instance(), "j1"))


def test_five_hundred_killed_tasks_take_one_question(
    airflow_3: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def states(_dag_id: str, _run_id: str, task_ids: list[str], _map_index: int | None) -> dict[str, str]:
        time.sleep(0.03)  # as long as Airflow takes
        asked.append(task_ids)
        return {f"t_{number}": "deferred" if number == 7 else "failed" for number in range(500)}

    monkeypatch.setattr(killed_module, "_STATES_3", SharedQuestions(states))
    tasks = [instance() for _ in range(500)]
    for number, task in enumerate(tasks):
        task.map_index = number

    async def all_of_them() -> list[bool]:
        return await asyncio.gather(*(was_killed(task, "j1") for task in tasks))

    began = time.monotonic()
    assert asyncio.run(all_of_them()) == [number != 7 for number in range(500)]
    assert asked == [["t"]]
    assert time.monotonic() - began < 5


def test_a_trigger_of_airflow_2_as_well(airflow_2: SimpleNamespace) -> None:
    for now, killed in [
        ({"state": "deferred"}, False),
        ({"state": "running", "try_number": 3}, False),
        ({"state": "up_for_retry"}, False),
        ({"state": "deferred", "max_tries": 5}, True),  # cleared, and deferred anew
        ({"state": "failed", "max_tries": 3}, True),
        ({"pid": None}, True),
    ]:
        vars(airflow_2).update(now)
        assert asyncio.run(was_killed(instance(), "j1")) is killed, now


def test_only_airflows_word_makes_it_certain_that_a_process_runs_its_task(
    airflow_3: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert TaskProcess(instance()).still_runs_task()
    airflow_3.current = False
    assert not TaskProcess(instance()).still_runs_task(), "it is asked at once, also in a young process"
    assert TaskProcess(instance(test_mode=True)).still_runs_task()
    monkeypatch.setattr(killed_module, "_state_3", lambda _: 1 / 0)
    assert not TaskProcess(instance()).still_runs_task()

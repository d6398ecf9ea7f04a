"""
Finds out from Airflow why a task's process is asked to end, or why its trigger is cancelled.

A user may have ended the task, which ends the job, too. All other reasons concern the process only: its worker or
triggerer shuts down, its heartbeats got no answer, or another process runs the task.
"""

from __future__ import annotations

import threading
import time
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import XCom
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_rayjobs.client.threads import in_airflows_thread
from airflow_provider_rayjobs.compat import versions
from airflow_provider_rayjobs.tasks import context as task_context
from airflow_provider_rayjobs.tasks.shared_questions import SharedQuestions, name_of

if TYPE_CHECKING:
    from collections.abc import Callable

#: Maximum seconds to wait for Airflow's answer on a worker. Airflow 3 sends SIGKILL 5 s after SIGTERM, and the job must
#: be stopped before that.
ANSWER_TIMEOUT = 2.5

#: Seconds for which a process need not check again that it still runs its task. Airflow starts another try only after
#: heartbeats have been missing for longer.
RECHECK_AFTER = 5.0

#: States of a task that a process runs, or that Airflow will run.
_ALIVE = frozenset(
    {"running", "deferred", "queued", "scheduled", "up_for_retry", "up_for_reschedule", "awaiting_input"}
)

#: The state of a task that was cleared while running, until its process has ended.
_CLEARED = "restarting"

#: The state of a task that will run again because its scheduler died and no executor knew the task. (A clear also sets
#: it, but only for a task that is not running.)
_RESET = None

#: Stands for a task instance that an answer does not have; None is a state.
_MISSING = object()


class Reason(Enum):
    """Why a task's process is asked to end."""

    #: The task has ended: a user marked or deleted it, or Airflow failed it for good. Or another process runs it now,
    #: with another job.
    TASK_ENDED = auto()
    #: A user cleared the task while it was running, so it will run again.
    TASK_CLEARED = auto()
    #: Only this process ends; the task has not ended.
    PROCESS_ENDS = auto()
    #: Another process runs the task now, and follows the job.
    REPLACED = auto()
    #: Airflow did not answer.
    UNKNOWN = auto()


class TaskProcess:
    """
    The try that this process runs, and its state in Airflow.

    :param ti: the task instance from the context.
    """

    def __init__(self, ti: Any) -> None:
        self._ti = ti
        self._try_number, self._max_tries = ti.try_number, ti.max_tries
        self._retries = self._max_tries if AIRFLOW_V_3_0_PLUS else ti.task.retries
        self._host_and_pid = None if AIRFLOW_V_3_0_PLUS else (ti.hostname, ti.pid)
        self._checked_at = time.time()  # the monotonic clock may stop while a virtual machine is paused

    def is_of(self, ti: Any) -> bool:
        """Whether this is about a task instance's object."""
        return self._ti is ti

    @property
    def has_next_try(self) -> bool:
        """Whether Airflow starts another try if this one fails."""
        return bool(self._retries) and bool(self._try_number <= self._max_tries)

    def is_replaced(self) -> bool:
        """
        Return whether the task has ended, or another process runs it. Asks Airflow at most every few seconds.

        A process that was paused, or waited long for the cluster, must not submit a job after another process has taken
        over.
        """
        if time.time() - self._checked_at < RECHECK_AFTER or getattr(self._ti, "test_mode", False):
            return False
        asked_at, reason = time.time(), self._ask("")
        if reason is Reason.PROCESS_ENDS:
            self._checked_at = asked_at
        return reason not in (Reason.PROCESS_ENDS, Reason.UNKNOWN)

    def still_runs_task(self) -> bool:
        """Return whether Airflow says, asked now, that this process runs the task; no answer is no."""
        return getattr(self._ti, "test_mode", False) or self._ask(None) is Reason.PROCESS_ENDS

    def reason(self, submission_id: str | None) -> Reason:
        """
        Return why this process must end, or UNKNOWN if Airflow does not answer within :data:`ANSWER_TIMEOUT` seconds.

        :param submission_id: the job that this process follows, if any.
        """
        found = [Reason.UNKNOWN]

        def ask() -> None:
            found[0] = self._ask(submission_id)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(ANSWER_TIMEOUT)
        return found[0]

    def _ask(self, submission_id: str | None) -> Reason:
        try:
            reason = self._reason_3() if AIRFLOW_V_3_0_PLUS else self._reason_2()
            if reason is Reason.REPLACED and submission_id and _follows_another_job(self._ti, submission_id):
                return Reason.TASK_ENDED
        except Exception:  # noqa: BLE001 - any error of the database or API server means that there is no answer
            return Reason.UNKNOWN
        return reason

    def _reason_3(self) -> Reason:
        state = _state_3(self._ti)
        if state == _CLEARED:
            return Reason.TASK_CLEARED
        if state not in {*_ALIVE, _RESET}:
            return Reason.TASK_ENDED
        return Reason.PROCESS_ENDS if _is_current_try_3(self._ti) else Reason.REPLACED

    def _reason_2(self) -> Reason:
        now = _row_2(self._ti)
        if now is not None and now.state == _CLEARED:
            return Reason.TASK_CLEARED
        if now is None or now.state not in {*_ALIVE, _RESET} or now.max_tries != self._max_tries:
            return Reason.TASK_ENDED
        elsewhere = now.state == "running" and (now.hostname, now.pid) != self._host_and_pid
        return Reason.REPLACED if now.try_number != self._try_number or elsewhere else Reason.PROCESS_ENDS


async def was_killed(task_instance: Any, submission_id: str) -> bool:
    """
    Return whether a user ended the task of a cancelled trigger, and no other process follows the job.

    Airflow does not tell a trigger why it is cancelled. A user may have marked or cleared the task; only then must the
    job be stopped. Or the triggerer shuts down, or another triggerer has taken the trigger over.

    :param task_instance: the trigger's task instance.
    :param submission_id: the job that the trigger follows.
    """
    if versions.triggerer_ends():
        return False
    ti = task_instance
    if not AIRFLOW_V_3_0_PLUS:
        now = await _now(_ROWS_2, _row_2, ti)
        return now is None or now.state not in _ALIVE or bool(now.max_tries != ti.max_tries)  # which a clear changes
    if await _now(_STATES_3, _state_3, ti) not in _ALIVE:
        return True
    # The task waits to run, runs, or is deferred again. After a clear, it stops this job and follows a new one. A retry
    # or another triggerer follows this job.
    return await in_airflows_thread(_follows_another_job, ti, submission_id)


async def _now(shared: SharedQuestions, alone: Callable[[Any], Any], ti: Any) -> Any:
    """Return what Airflow says of a task instance; one that is missing in an answer about many is asked for alone."""
    found = await shared.about((ti.dag_id, ti.run_id), (ti.task_id, _map_index(ti)), absent=_MISSING)
    return await in_airflows_thread(alone, ti) if found is _MISSING else found


def _follows_another_job(ti: Any, submission_id: str) -> bool:
    """Return whether the task, in any try, has stored another submission id than this one."""
    current = XCom.get_one(
        key=task_context.SUBMISSION_ID_XCOM,
        dag_id=ti.dag_id,
        task_id=ti.task_id,
        run_id=ti.run_id,
        map_index=_map_index(ti),
    )
    return current is not None and current != submission_id


def _map_index(ti: Any) -> int:
    return -1 if ti.map_index is None else int(ti.map_index)


def _state_3(ti: Any) -> str | None:
    """Return the state of the task instance, in any try; ``absent`` if it no longer exists."""
    map_index = _map_index(ti)
    states = _states_3(ti.dag_id, ti.run_id, [ti.task_id], map_index)
    return states.get(name_of(ti.task_id, map_index), "absent")


def _states_3(dag_id: str, run_id: str, task_ids: list[str], map_index: int | None) -> dict[str, str | None]:
    """Return the states of task instances (``GET /execution/task-instances/states``)."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states = RuntimeTaskInstance.get_task_states(
        dag_id=dag_id, task_ids=task_ids, run_ids=[run_id], map_index=map_index
    )
    return {
        name: None if state is None else str(getattr(state, "value", state))
        for name, state in (states.get(run_id) or {}).items()
    }


def _is_current_try_3(ti: Any) -> bool:
    """
    Return whether the task instance's id, which differs for each try, is that of the current try.

    From Airflow 3.0 on, ``GET /execution/task-instances/{id}/validate-inlets-and-outlets`` answers 404 for the id of an
    earlier try. No route returns the number of the current try.
    """
    from airflow.sdk.exceptions import AirflowRuntimeError
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.comms import ValidateInletsAndOutlets

    try:
        task_runner.SUPERVISOR_COMMS.send(ValidateInletsAndOutlets(ti_id=ti.id))
    except AirflowRuntimeError as e:
        if (e.error.detail or {}).get("status_code") == 404:
            return False
        raise
    return True


def _row_2(ti: Any) -> Any:
    map_index = _map_index(ti)
    rows = _rows_2(ti.dag_id, ti.run_id, [ti.task_id], map_index)
    return rows.get(name_of(ti.task_id, map_index))


def _rows_2(dag_id: str, run_id: str, task_ids: list[str], map_index: int | None) -> dict[str, Any]:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    table: Any = TaskInstance
    columns = (table.state, table.try_number, table.max_tries, table.hostname, table.pid)
    with create_session() as session:
        query = session.query(table.task_id, table.map_index, *columns).filter_by(dag_id=dag_id, run_id=run_id)
        query = query.filter(table.task_id.in_(task_ids))
        if map_index is not None:
            query = query.filter_by(map_index=map_index)
        return {name_of(row.task_id, row.map_index): row for row in query}


_STATES_3 = SharedQuestions(_states_3)
_ROWS_2 = SharedQuestions(_rows_2)

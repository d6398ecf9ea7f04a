"""
Finds out from Airflow why a task's process is asked to end, or why its trigger is cancelled.

A user may have ended the task, which ends the job, too. All other reasons concern the process only: its worker or
triggerer shuts down, its heartbeats got no answer, or another process runs the task.
"""

from __future__ import annotations

import threading
import time
from enum import Enum, auto
from typing import Any

from airflow.providers.common.compat.sdk import XCom
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_rayjobs.client.threads import in_airflows_thread
from airflow_provider_rayjobs.compat import versions
from airflow_provider_rayjobs.tasks import context as task_context

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
    check = _was_killed_3 if AIRFLOW_V_3_0_PLUS else _was_killed_2
    return await in_airflows_thread(check, task_instance, submission_id)


def _was_killed_3(ti: Any, submission_id: str) -> bool:
    if _state_3(ti) not in _ALIVE:
        return True
    # The task waits to run, runs, or is deferred again. After a clear, it stops this job and follows a new one. A retry
    # or another triggerer follows this job.
    return _follows_another_job(ti, submission_id)


def _was_killed_2(ti: Any, _submission_id: str) -> bool:
    now = _row_2(ti)
    return now is None or now.state not in _ALIVE or bool(now.max_tries != ti.max_tries)  # which a clear changes


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
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    map_index = _map_index(ti)
    states = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=map_index
    )
    # The key of a mapped task instance has its index.
    name = ti.task_id if map_index < 0 else f"{ti.task_id}_{map_index}"
    state = (states.get(ti.run_id) or {}).get(name, "absent")
    return None if state is None else str(getattr(state, "value", state))


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
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    table: Any = TaskInstance
    columns = (table.state, table.try_number, table.max_tries, table.hostname, table.pid)
    with create_session() as session:
        return (
            session.query(*columns)
            .filter_by(dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index)
            .one_or_none()
        )

"""Runs one try of a task on Airflow 2.11, like its scheduler, worker and triggerer."""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import timedelta
from typing import Any

from airflow import settings
from airflow.models.dag import DAG
from airflow.models.dagbag import DagBag
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.models.trigger import Trigger
from airflow.utils import timezone
from airflow.utils.module_loading import import_string
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunType
from sqlalchemy import select

from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from tests.faults.names import DAG_ID, RETRIES, TASK_ID

START = timezone.datetime(2026, 1, 1)


def _dag(args: dict[str, Any]) -> DAG:
    with DAG(DAG_ID, schedule=None, start_date=START) as dag:
        RaySubmitJobOperator(task_id=TASK_ID, retry_delay=timedelta(0), **{"retries": RETRIES, **args})
    return dag


def prepare() -> None:
    """Create the database, and import the modules that each try needs."""
    from airflow.utils.db import initdb

    import airflow_provider_rayjobs.client.requests_transport
    import airflow_provider_rayjobs.triggers  # noqa: F401

    for name in ("aiohttp", "requests", "tenacity"):
        __import__(name)
    initdb(load_connections=False)
    DagBag(include_examples=False).sync_to_db()
    settings.dispose_orm()


def run(request: dict[str, Any]) -> None:
    """Run one request."""
    settings.configure_orm()
    # By default a task logs to one file per try, which the tests don't read.
    logging.getLogger("airflow.task").addHandler(logging.StreamHandler(sys.stdout))
    operations = {"task": _run_task, "trigger": _run_trigger, "clear": _clear, "lost": _lose, "forget": _forget}
    operations[request["op"]](request)


def _run_task(request: dict[str, Any]) -> None:
    """Schedule the next try, or resume this one after a deferral, and run it."""
    session = settings.Session()
    dag = _dag(request["args"])
    ti = _instance(session, request["run_id"]) or _create(session, request["run_id"], dag)
    if ti.state in (TaskInstanceState.RUNNING, TaskInstanceState.QUEUED, TaskInstanceState.RESTARTING):
        ti = _lose(request)
    if ti.state not in (None, TaskInstanceState.UP_FOR_RETRY, TaskInstanceState.SCHEDULED):
        raise RuntimeError(f"a task that is {ti.state} is not scheduled")
    if ti.state != TaskInstanceState.SCHEDULED:  # otherwise it resumes
        ti.try_number += 1
    ti.state = TaskInstanceState.QUEUED
    session.commit()
    ti.task = dag.get_task(TASK_ID)
    print(f"TRY {ti.try_number} of {ti.max_tries}, {ti.next_method=}")
    if not ti.check_and_change_state_before_execution(ignore_all_deps=True, session=session):
        raise RuntimeError("Airflow does not run the task")
    ti._run_raw_task(session=session)


def _instance(session: Any, run_id: str) -> Any:
    return session.scalar(select(TaskInstance).where(TaskInstance.dag_id == DAG_ID, TaskInstance.run_id == run_id))


def _create(session: Any, run_id: str, dag: DAG) -> Any:
    now = timezone.utcnow()
    dag.create_dagrun(
        run_id=run_id,
        execution_date=now,
        data_interval=(now, now),
        start_date=now,
        run_type=DagRunType.MANUAL,
        state=DagRunState.RUNNING,
        session=session,
    )
    session.commit()
    return _instance(session, run_id)


def _lose(request: dict[str, Any]) -> Any:
    """Handle the missing heartbeat of a task whose process has ended, like the scheduler."""
    session = settings.Session()
    ti = _instance(session, request["run_id"])
    ti.task = _dag(request["args"]).get_task(TASK_ID)
    ti.handle_failure("the task's process has died", session=session)
    session.commit()
    return _instance(session, request["run_id"])


def _run_trigger(request: dict[str, Any]) -> None:
    """Run the trigger of a deferred task, and submit its event, like the triggerer."""
    session = settings.Session()
    ti = _instance(session, request["run_id"])
    if ti.state != TaskInstanceState.DEFERRED:
        raise RuntimeError(f"a task that is {ti.state} has no trigger to run")
    row = session.get(Trigger, ti.trigger_id)
    trigger, trigger_id = import_string(row.classpath)(**row.kwargs), row.id
    session.commit()

    async def first() -> Any:
        return await anext(trigger.run())

    event = asyncio.run(first())
    print(f"EVENT {event.payload}")
    Trigger.submit_event(trigger_id, event, session=session)
    session.commit()


def _clear(request: dict[str, Any]) -> None:
    """Clear the task, like a user; the run goes on."""
    session = settings.Session()
    ti = _instance(session, request["run_id"])
    clear_task_instances([ti], session, dag=_dag(request["args"]), dag_run_state=DagRunState.RUNNING)
    session.commit()


def _forget(request: dict[str, Any]) -> None:
    """Delete the DAG run, like a user."""
    session = settings.Session()
    session.delete(session.scalar(select(DagRun).where(DagRun.dag_id == DAG_ID, DagRun.run_id == request["run_id"])))
    session.commit()

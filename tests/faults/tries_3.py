"""Runs one try of a task on Airflow 3, like its scheduler, worker and triggerer.

The task runs with the task runner of the Task SDK and the Execution API, both in this process, on database rows like
the scheduler's (see ``airflow.sdk.definitions.dag._run_task``). Between two tries, this module calls the same functions
as the scheduler.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import structlog
from airflow import settings
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.models.trigger import Trigger
from airflow.sdk import DAG, timezone
from airflow.sdk._shared.module_loading import import_string
from airflow.sdk.api.datamodels._generated import TaskInstance as TaskInstanceOfSDK
from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor, in_process_api_server, run_task_in_process
from airflow.triggers.base import TriggerEvent
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select

from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from tests.faults.names import DAG_ID, RETRIES, TASK_ID

log = structlog.get_logger("faults")


def _dag(args: dict[str, Any]) -> DAG:
    kind: Any = RaySubmitJobOperator
    if args.pop("on_mixin", False):
        from tests.faults.on_the_mixin import JobOnMixinOperator

        kind = JobOnMixinOperator
        args = {name: args[name] for name in ("entrypoint", "poll_interval")}
    with DAG(DAG_ID, schedule=None) as dag:
        kind(task_id=TASK_ID, retry_delay=timedelta(0), **{"retries": RETRIES, **args})
    return dag


def prepare() -> None:
    """Create the database, and import the modules that each try needs."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
    from airflow.utils.db import initdb

    import airflow_provider_rayjobs.client.requests_transport
    import airflow_provider_rayjobs.triggers  # noqa: F401

    for name in ("aiohttp", "requests", "tenacity", "a2wsgi", "airflow.sdk.serde"):
        __import__(name)
    initdb()
    manager = DagBundlesManager()  # type: ignore[no-untyped-call]  # of Airflow
    manager.sync_bundles_to_db()
    for bundle in manager.get_all_dag_bundles():
        bundle.initialize()
        bag = BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
        sync_bag_to_db(bag, bundle.name, bundle.version)
    asyncio.run(_warm_up())
    settings.dispose_orm(do_log=False)


async def _warm_up() -> None:
    """Make the first request to the Execution API, which creates its routes; this takes seconds."""
    app = in_process_api_server().app
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        answer = await client.patch(f"http://in-process.invalid/task-instances/{uuid4()}/run", json={})
        assert answer.status_code == 422, answer.text


def run(request: dict[str, Any]) -> None:
    """Run one request."""
    settings.configure_orm()  # type: ignore[no-untyped-call]  # of Airflow
    operations = {"task": _run_task, "trigger": _run_trigger, "clear": _clear, "lost": _lose, "forget": _forget}
    operations[request["op"]](request)


def _session() -> Any:
    assert settings.Session is not None
    return settings.Session()


def _scheduler_dag(session: Any) -> Any:
    """Return the scheduler's version of the DAG."""
    return DBDagBag().get_latest_version_of_dag(DAG_ID, session=session)


def _run_task(request: dict[str, Any]) -> None:
    """Schedule the next try, or resume this one after a deferral, and run it."""
    session = _session()
    ti = _instance(session, request["run_id"]) or _create(session, request["run_id"])
    if ti.state in (TaskInstanceState.RUNNING, TaskInstanceState.QUEUED, TaskInstanceState.RESTARTING):
        ti = _lose(request)
    if ti.state not in (None, TaskInstanceState.UP_FOR_RETRY, TaskInstanceState.SCHEDULED):
        raise RuntimeError(f"a task that is {ti.state} is not scheduled")
    if ti.state != TaskInstanceState.SCHEDULED:  # otherwise it resumes
        ti.try_number += 1
    ti.state = TaskInstanceState.QUEUED
    session.commit()
    log.info("TRY", try_number=ti.try_number, max_tries=ti.max_tries, next_method=ti.next_method)
    task = _dag(request["args"]).get_task(TASK_ID)
    outcome = run_task_in_process(ti=_for_sdk(ti), task=task)
    log.info("END OF TRY", state=str(outcome.state))


def _lose(request: dict[str, Any]) -> Any:
    """Handle the missing heartbeat of a task whose process has ended, like the scheduler."""
    session = _session()
    ti = _instance(session, request["run_id"])
    ti.task = _scheduler_dag(session).get_task(TASK_ID)
    ti.handle_failure("the task's process has died", session=session)
    session.commit()
    return _instance(session, request["run_id"])


def _instance(session: Any, run_id: str) -> Any:
    return session.scalar(select(TaskInstance).where(TaskInstance.dag_id == DAG_ID, TaskInstance.run_id == run_id))


def _create(session: Any, run_id: str) -> Any:
    now = timezone.utcnow()
    _scheduler_dag(session).create_dagrun(
        run_id=run_id,
        run_after=now,
        start_date=now,
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        state=DagRunState.RUNNING,
        session=session,
    )
    session.commit()
    return _instance(session, run_id)


def _for_sdk(ti: Any) -> TaskInstanceOfSDK:
    return TaskInstanceOfSDK(
        id=UUID(str(ti.id)),
        task_id=ti.task_id,
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        try_number=ti.try_number,
        map_index=ti.map_index,
        dag_version_id=UUID(str(ti.dag_version_id)),
    )


def _run_trigger(request: dict[str, Any]) -> None:
    """Run the trigger of a deferred task, and submit its event, like the triggerer."""
    session = _session()
    ti = _instance(session, request["run_id"])
    if ti.state != TaskInstanceState.DEFERRED:
        raise RuntimeError(f"a task that is {ti.state} has no trigger to run")
    row = session.get(Trigger, ti.trigger_id)
    trigger = import_string(row.classpath)(**row.kwargs)
    trigger_id, about = row.id, _for_sdk(ti)
    session.commit()
    log.info("TRIGGER", kwargs=row.kwargs)
    event = InProcessTestSupervisor.run_trigger_in_process(trigger=trigger, ti=about)  # type: ignore[no-untyped-call]
    assert isinstance(event, TriggerEvent)
    log.info("EVENT", payload=event.payload)
    Trigger.submit_event(trigger_id, event, session=session)
    session.commit()


def _clear(request: dict[str, Any]) -> None:
    """Clear the task, like a user; the run goes on."""
    session = _session()
    clear_task_instances([_instance(session, request["run_id"])], session, dag_run_state=DagRunState.RUNNING)
    session.commit()


def _forget(request: dict[str, Any]) -> None:
    """Delete the DAG run, like a user."""
    session = _session()
    session.delete(session.scalar(select(DagRun).where(DagRun.dag_id == DAG_ID, DagRun.run_id == request["run_id"])))
    session.commit()

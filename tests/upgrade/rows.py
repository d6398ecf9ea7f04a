"""
Writes and reads trigger rows like the Airflow of this interpreter.

``python -m tests.upgrade.rows write FILE`` defers on the triggers in the file. ``python -m tests.upgrade.rows read``
creates the triggers of all rows, like a triggerer. Both print ``serialize()`` of each row's trigger, by id.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow.models.trigger import Trigger
from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS
from airflow.utils.session import create_session

from airflow_provider_rayjobs import triggers as ours
from tests.upgrade import MARK

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger


def write(file: Path) -> dict[int, Any]:
    """Write a row for each trigger in a file of samples, without tasks."""
    samples = json.loads(file.read_text())
    triggers = [getattr(ours, sample["classpath"].rpartition(".")[2])(**sample["kwargs"]) for sample in samples]
    with create_session() as session:
        rows = [_row(trigger) for trigger in triggers]
        session.add_all(rows)
        session.flush()
        return {row.id: trigger.serialize() for row, trigger in zip(rows, triggers, strict=True)}


def _row(trigger: BaseTrigger) -> Trigger:
    if not AIRFLOW_V_3_0_PLUS:
        return Trigger.from_object(trigger)
    from airflow.api_fastapi.execution_api.datamodels.taskinstance import TIDeferredStatePayload
    from airflow.sdk.api.client import TaskInstanceOperations
    from airflow.sdk.execution_time.task_runner import _defer_task

    # A worker sends the trigger to the API server, which stores its arguments unchanged. This does the same with the
    # request's body as its route `ti_update_state`.
    requests: list[str] = []
    client: Any = SimpleNamespace(patch=lambda _path, content: requests.append(content))
    task: Any = SimpleNamespace(dag_id="d", task_id="t", run_id="r")
    deferred: Any = TaskDeferred(trigger=trigger, method_name="execute_complete")
    message: Any = _defer_task(deferred, task, SimpleNamespace(info=logging.debug))[0]  # type: ignore[arg-type]  # only used for logging
    TaskInstanceOperations(client).defer(uuid4(), message)
    body = TIDeferredStatePayload.model_validate_json(requests[0])
    row = Trigger(classpath=body.classpath, kwargs={})
    row.encrypted_kwargs = json.dumps(body.trigger_kwargs)
    return row


def read() -> dict[int, Any]:
    """Create the triggers of all rows."""
    with create_session() as session:
        rows = session.query(Trigger).all()
        if AIRFLOW_V_3_0_PLUS:
            return asyncio.run(_read_by_triggerer(rows))
        from airflow.utils.module_loading import import_string

        return {row.id: import_string(row.classpath)(**row.kwargs).serialize() for row in rows}


async def _read_by_triggerer(rows: list[Trigger]) -> dict[int, Any]:
    from airflow.executors.workloads import RunTrigger
    from airflow.jobs.triggerer_job_runner import TriggerRunner

    read: dict[int, Any] = {}

    class Reader(TriggerRunner):
        """Airflow's trigger runner, which creates the triggers of rows; here they do not run."""

        async def run_trigger(self, trigger_id: int, trigger: BaseTrigger, *_: object) -> None:
            read[trigger_id] = trigger.serialize()

    reader = Reader()
    for row in rows:
        work = RunTrigger(id=row.id, ti=None, classpath=row.classpath, encrypted_kwargs=row.encrypted_kwargs)
        reader.to_create.append(work)
    await reader.create_triggers()
    await asyncio.gather(*(details["task"] for details in reader.triggers.values()))
    return read | {trigger_id: repr(error) for trigger_id, error in reader.failed_triggers}


if __name__ == "__main__":
    found = read() if sys.argv[1] == "read" else write(Path(sys.argv[2]))
    print(MARK + json.dumps(found))

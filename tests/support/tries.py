"""Runs tries of a task in this process: with a real operator, trigger and cluster, but without a scheduler."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.triggers import RayClusterStartTrigger, RayJobTrigger

if TYPE_CHECKING:
    from collections.abc import Callable


class TaskInstance:
    """The part of a task instance that operators use; it stores XComs."""

    def __init__(self, run_id: str, try_number: int, retries: int) -> None:
        self.dag_id, self.task_id, self.run_id = "dag", "task", run_id
        self.map_index, self.try_number, self.max_tries = -1, try_number, retries
        self.task = SimpleNamespace(retries=retries)
        self.start_date = datetime.now(UTC)
        self.hostname, self.pid = "here", 1
        self.test_mode = True  # there is no Airflow that can be asked who runs the task
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Store a value."""
        self.xcoms[key] = value

    def xcom_pull(self, *, key: str, **_: Any) -> Any:
        """Return a value, or None."""
        return self.xcoms.get(key)


class Tries:
    """The tries of one task instance.

    :param make: creates the operator, once for each process that Airflow would use.
    :param run_id: a unique id, because tests share the cluster.
    """

    def __init__(self, make: Callable[[], RaySubmitJobOperator], run_id: str, retries: int = 3) -> None:
        self.make = make
        self.run_id = run_id
        self._retries = retries
        self._number = 0
        self.events: list[dict[str, Any]] = []
        self.lines: Any = []
        self.count = 0  # number of all lines

    def context(self, **more: Any) -> Any:
        """Return the context of the next try."""
        self._number += 1
        self.ti = TaskInstance(self.run_id, self._number, self._retries)
        dag_run = SimpleNamespace(start_date=datetime(2026, 1, 1, tzinfo=UTC))
        return {"ti": self.ti, "dag_run": dag_run, "ds": "2026-01-01", **more}

    def run(self, **more: Any) -> Any:
        """Run the next try, and resume it after each deferral; return the task's return value."""
        full = self.context(**more)
        logger = logging.Logger("tries", logging.INFO)  # noqa: LOG001  a separate logger
        logger.addHandler(_Lines(self))
        # The loggers of Airflow 3 are structlog's.
        with (
            patch.object(RaySubmitJobOperator, "log", logger),
            patch.object(RayJobTrigger, "log", logger),
            patch.object(RayClusterStartTrigger, "log", logger),
        ):
            return self._run(full)

    def _run(self, context: dict[str, Any]) -> Any:
        try:
            return self.make().execute(context)
        except TaskDeferred as deferred:
            trigger, method = deferred.trigger, deferred.method_name
        while True:
            event = asyncio.run(self._event(trigger))
            self.events.append(event)
            try:
                return getattr(self.make(), method)(context, event)
            except TaskDeferred as deferred:
                trigger, method = deferred.trigger, deferred.method_name

    async def _event(self, deferred: Any) -> Any:
        trigger = type(deferred)(**json.loads(json.dumps(deferred.serialize()[1])))
        events = trigger.run()
        try:
            return json.loads(json.dumps((await anext(events)).payload))
        finally:
            await events.aclose()


class _Lines(logging.Handler):
    def __init__(self, tries: Tries) -> None:
        super().__init__()
        self._tries = tries

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        self._tries.count += 1 + message.count("\n")  # a log that outruns Airflow has many lines in a record
        self._tries.lines.append(message)

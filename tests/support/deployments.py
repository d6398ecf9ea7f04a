"""Runs a task that deploys or waits for applications of Ray Serve in this process, without a scheduler."""

from __future__ import annotations

import asyncio
import json
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_rayjobs.operators import RayServeDeployOperator
from airflow_provider_rayjobs.sensors import RayServeSensor
from airflow_provider_rayjobs.triggers import RayServeTrigger
from tests.support.tries import TaskInstance

if TYPE_CHECKING:
    from collections.abc import Callable


class Deployment:
    """
    One try of a task.

    :param make: creates the operator or sensor, once for each process that Airflow would use.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
        self.lines: list[str] = []
        #: What Airflow's database holds while the task is deferred: the trigger's arguments, and those of its method.
        self.stored: list[Any] = []
        self.context: Any = {"ti": TaskInstance("run", 1, 3), "dag_run": SimpleNamespace(start_date=None)}

    @property
    def log(self) -> str:
        """All of the task log."""
        return "\n".join(self.lines)

    def run(self) -> Any:
        """Run the task, and resume it after its deferral; return what it returns."""
        logger = logging.Logger("deployment", logging.INFO)  # noqa: LOG001  a separate logger
        logger.addHandler(_Lines(self.lines))
        kinds = (RayServeDeployOperator, RayServeSensor, RayServeTrigger)
        patches = [patch.object(kind, "log", logger) for kind in kinds]
        for one in patches:
            one.start()
        try:
            return self._run()
        finally:
            for one in patches:
                one.stop()

    def _run(self) -> Any:
        try:
            return self.make().execute(self.context)
        except TaskDeferred as deferred:
            trigger, method, kwargs = deferred.trigger, deferred.method_name, deferred.kwargs
        path, arguments = trigger.serialize()
        assert path == f"{RayServeTrigger.__module__}.{RayServeTrigger.__name__}"
        stored = json.loads(json.dumps([arguments, kwargs or {}]))
        self.stored.append(stored)
        event = asyncio.run(self._event(RayServeTrigger(**stored[0])))
        return getattr(self.make(), method)(self.context, event=event, **stored[1])

    async def _event(self, trigger: RayServeTrigger) -> Any:
        trigger.least_time = 0.0
        events: Any = trigger.run()
        try:
            return json.loads(json.dumps((await anext(events)).payload))
        finally:
            await events.aclose()


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())

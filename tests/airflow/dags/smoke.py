"""Tasks without Ray, for the tests of the harness."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, BaseOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger


class Quick(BaseOperator):
    """Return the value from the run's conf."""

    template_fields = ("value", "host")

    def __init__(self, *, value: str, host: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.value = value
        self.host = host

    def execute(self, context: Any) -> dict[str, str]:
        if not self.value:
            raise ValueError("no value")
        self.log.info("quick says %s", self.value)
        return {"value": self.value}


class Sleep(BaseOperator):
    """Sleep for a long time in the first try."""

    def execute(self, context: Any) -> int:
        try_number: int = context["ti"].try_number
        self.log.info("sleep is at try %d", try_number)
        if try_number == 1:
            time.sleep(600)
        return try_number


class Defer(BaseOperator):
    """Wait in the triggerer."""

    def execute(self, context: Any) -> None:
        seconds = context["dag_run"].conf["seconds"]
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=seconds)), method_name="resume")

    def resume(self, context: Any, event: Any) -> str:
        self.log.info("defer resumes")
        return "resumed"


with DAG("smoke_quick", schedule=None):
    Quick(task_id="quick", value="{{ dag_run.conf['value'] }}", host="{{ conn.smoke.host }}")

with DAG("smoke_mapped", schedule=None):
    Quick.partial(task_id="mapped").expand(value=["a", ""])

with DAG("smoke_sleep", schedule=None):
    Sleep(task_id="sleep", retries=1, retry_delay=timedelta(seconds=1))

with DAG("smoke_defer", schedule=None):
    Defer(task_id="defer")

"""An operator on Airflow's own ``ResumableJobMixin``, as its documentation shows one; only on Airflow 3.3 and later."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, ResumableJobMixin
from airflow.state.metastore import MetastoreBackend

from airflow_provider_rayjobs.hooks import RayJobHook

if TYPE_CHECKING:
    from airflow.sdk import Context


class JobOnMixinOperator(ResumableJobMixin, BaseOperator):
    """Submits a job with the provider's hook, and follows it."""

    external_id_key = "ray_job_id"

    def __init__(self, *, entrypoint: str, poll_interval: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.entrypoint = entrypoint
        self.poll_interval = poll_interval

    def execute(self, context: Context) -> Any:
        return self.execute_resumable(context)

    def submit_job(self, context: Context) -> str:
        return RayJobHook().submit_job(entrypoint=self.entrypoint)

    def get_job_status(self, external_id: Any, context: Context) -> str:
        return str(RayJobHook().get_job_status(external_id).value)

    def is_job_active(self, status: str) -> bool:
        return status in ("PENDING", "RUNNING")

    def is_job_succeeded(self, status: str) -> bool:
        return status == "SUCCEEDED"

    def poll_until_complete(self, external_id: Any, context: Context) -> None:
        while self.is_job_active(status := self.get_job_status(external_id, context)):
            time.sleep(self.poll_interval)
        if not self.is_job_succeeded(status):
            raise RuntimeError(f"the job {external_id} ended {status}")

    def get_job_result(self, external_id: Any, context: Context) -> Any:
        return external_id


class FullStore(MetastoreBackend):
    """A store that takes nothing, like one whose disk is full."""

    def set(self, *_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

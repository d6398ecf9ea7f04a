"""Operators that stop a Ray job, and that delete the record of one; ``operators`` gives them to DAG authors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
    XComNotFound,
)

from airflow_provider_rayjobs.client import checks
from airflow_provider_rayjobs.client.ids import check_submission_id, names_no_job
from airflow_provider_rayjobs.exceptions import RayJobNotFoundError
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.tasks import arguments
from airflow_provider_rayjobs.tasks import context as task_context
from airflow_provider_rayjobs.tasks.guard import refused_for_good
from airflow_provider_rayjobs.tasks.rendering import RendersTexts
from airflow_provider_rayjobs.tasks.stopping import stop_job_and_wait, wait_until_ended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

#: Seconds between a job's end and its deletion: Ray 2.60 looks at a job once a second until it sees the end, and puts
#: a failed job of the same id on record when it finds none.
DELETE_DELAY = 3.0


class _JobOperator(RendersTexts, BaseOperator):
    """What the operators share that have one job to look after, which may never have been submitted."""

    template_fields: Sequence[str] = ("submission_id", "ray_conn_id")
    ui_color = "#dcebff"

    #: What is done to the job, for messages.
    verb: str

    def __init__(self, *, submission_id: str, ray_conn_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.submission_id = submission_id
        self.ray_conn_id = ray_conn_id
        if not task_context.is_mapped(self):  # else the id may come from a task, as when it is rendered
            arguments.check_known_id(submission_id)

    def render_template(self, *args: Any, **kwargs: Any) -> Any:
        """Render; a task that was to submit the job, and did not come so far, has left no id."""
        try:
            return super().render_template(*args, **kwargs)
        except XComNotFound:
            return None

    def _hook(self) -> RayJobHook:
        """
        Return a hook to ask about the job.

        :raises AirflowSkipException: there never was a job.
        :raises AirflowFailException: the id is wrong.
        """
        if names_no_job(self.submission_id):
            raise AirflowSkipException(f"There is no Ray job to {self.verb}: submission_id is {self.submission_id!r}")
        try:
            check_submission_id(self.submission_id)
        except (TypeError, ValueError) as e:
            raise AirflowFailException(str(e)) from e
        return RayJobHook(self.ray_conn_id)


class RayStopJobOperator(_JobOperator):
    """
    Stops a Ray job and waits until it has ended; a job that had ended before is left as it is.

    :param submission_id: the job (templated). When a template or an XCom gives none, because nothing was submitted, the
        task is skipped.
    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :param stop_timeout: seconds to wait for the job's end after the request.
    :return: the job's last status, as XCom.
    """

    verb = "stop"

    def __init__(
        self,
        *,
        submission_id: str,
        ray_conn_id: str = RayJobHook.default_conn_name,
        stop_timeout: float = 60.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(submission_id=submission_id, ray_conn_id=ray_conn_id, **kwargs)
        self.stop_timeout = stop_timeout
        checks.check_duration("stop_timeout", stop_timeout)

    def execute(self, context: Context) -> str:
        """
        Stop the job.

        :raises AirflowSkipException: there never was a job.
        :raises AirflowFailException: the cluster knows no such job, or refused the request.
        :raises RayJobTimeoutError: the job has not ended within ``stop_timeout``.
        """
        with refused_for_good():
            hook = self._hook()
            with hook.get_conn().waiting_for_cluster(self.log):
                status = stop_job_and_wait(hook, self.submission_id, patience=self.stop_timeout)
            if status is None:
                raise AirflowFailException(f"{hook.get_address()}: there is no Ray job {self.submission_id} to stop")
        self.log.info("Ray job %s is %s", self.submission_id, status)
        return str(status)


class RayDeleteJobOperator(_JobOperator):
    """
    Deletes the record of a Ray job, when the job has ended; a record that is not there is not missed.

    :param submission_id: the job (templated). When a template or an XCom gives none, because nothing was submitted, the
        task is skipped.
    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :param end_timeout: seconds to wait for the job's end, which Ray demands; the job is not stopped.
    """

    verb = "delete"

    def __init__(
        self,
        *,
        submission_id: str,
        ray_conn_id: str = RayJobHook.default_conn_name,
        end_timeout: float = 60.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(submission_id=submission_id, ray_conn_id=ray_conn_id, **kwargs)
        self.end_timeout = end_timeout
        checks.check_duration("end_timeout", end_timeout)

    def execute(self, context: Context) -> None:
        """
        Delete the job's record.

        :raises AirflowSkipException: there never was a job.
        :raises RayJobTimeoutError: the job is still live after ``end_timeout``.
        """
        with refused_for_good():
            hook = self._hook()
            try:
                with hook.get_conn().waiting_for_cluster(self.log):
                    wait_until_ended(hook, self.submission_id, patience=self.end_timeout)
                    time.sleep(DELETE_DELAY)
                    hook.delete_job(self.submission_id)
            except RayJobNotFoundError:
                self.log.info("Ray job %s is not on record", self.submission_id)
                return
        self.log.info("Ray job %s is deleted", self.submission_id)

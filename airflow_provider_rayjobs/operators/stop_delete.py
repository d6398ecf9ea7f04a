"""
The operators that stop a Ray job and delete its record.

DAG files import this module, so it loads only what the class bodies need; methods import the rest.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
    XComNotFound,
)

from airflow_provider_rayjobs.cluster.fields import DEFAULT_CONN_ID
from airflow_provider_rayjobs.compat import versions
from airflow_provider_rayjobs.exceptions import RayJobNotFoundError
from airflow_provider_rayjobs.kubernetes.given import check_makes_none, known_cluster
from airflow_provider_rayjobs.tasks.rendering import RendersTexts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_rayjobs.hooks import RayJobHook

__all__ = ["RayDeleteJobOperator", "RayStopJobOperator"]


class _JobOperator(RendersTexts, BaseOperator):
    """Base of the operators that act on an existing job, which may never have been submitted."""

    template_fields: Sequence[str] = ("submission_id", "ray_conn_id", "cluster")
    ui_color = "#dcebff"

    #: What the operator does to the job, for messages.
    _verb: str

    def __init__(self, *, submission_id: str, ray_conn_id: str, cluster: Any, **kwargs: Any) -> None:
        from airflow_provider_rayjobs.tasks import arguments

        super().__init__(**kwargs)
        check_makes_none(ray_conn_id, cluster)
        self.submission_id = submission_id
        self.ray_conn_id = ray_conn_id
        self.cluster = cluster
        self._cluster_is_given = cluster is not None
        if not versions.is_mapped(self):  # the id of a mapped task may come from another task
            arguments.check_known_id(submission_id)

    def render_template(self, *args: Any, **kwargs: Any) -> Any:
        """Render a template; return None if it needs the XCom of a task that submitted no job."""
        try:
            return super().render_template(*args, **kwargs)
        except XComNotFound:
            return None

    def _hook(self) -> RayJobHook:
        """
        Check the submission id, and return a hook.

        :raises AirflowSkipException: if there is no submission id.
        :raises AirflowFailException: if the submission id is invalid.
        :raises RayKubernetesRefusedError: if the cluster is not known.
        """
        from airflow_provider_rayjobs.client.ids import check_submission_id, is_not_given
        from airflow_provider_rayjobs.hooks import RayJobHook

        if is_not_given(self.submission_id):
            raise AirflowSkipException(f"There is no Ray job to {self._verb}: submission_id is {self.submission_id!r}")
        try:
            check_submission_id(self.submission_id)
        except (TypeError, ValueError) as e:
            raise AirflowFailException(str(e)) from None
        return RayJobHook(self.ray_conn_id, cluster=known_cluster(self.cluster, is_given=self._cluster_is_given))


def _check_duration(name: str, value: float) -> None:
    from airflow_provider_rayjobs.client.checks import check_duration

    check_duration(name, value)


class RayStopJobOperator(_JobOperator):
    """
    Stops a Ray job and waits until it has ended. A job that has already ended is not changed.

    Example::

        RayStopJobOperator(
            task_id="stop",
            submission_id="{{ ti.xcom_pull(task_ids='serve', key='submission_id') }}",
            trigger_rule="all_done",
        )

    :param submission_id: the job (templated). If it renders to nothing, because no job was submitted, the task is
        skipped.
    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :param cluster: instead of ``ray_conn_id``: the cluster of ``with ray_cluster(…) as cluster`` (templated).
    :param stop_timeout: seconds to wait for the job's end after the request.
    :return: the job's last status, as XCom.
    """

    _verb = "stop"

    def __init__(
        self,
        *,
        submission_id: str,
        ray_conn_id: str = DEFAULT_CONN_ID,
        cluster: Any = None,
        stop_timeout: float = 60.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(submission_id=submission_id, ray_conn_id=ray_conn_id, cluster=cluster, **kwargs)
        self.stop_timeout = stop_timeout
        _check_duration("stop_timeout", stop_timeout)

    def execute(self, context: Context) -> str:
        """
        Stop the job.

        :raises AirflowSkipException: if there is no submission id.
        :raises AirflowFailException: if the cluster has no such job, or refuses the request.
        :raises RayJobTimeoutError: if the job has not ended within ``stop_timeout``.
        """
        from airflow_provider_rayjobs.observability.report import telling_requests
        from airflow_provider_rayjobs.tasks.guard import refused_for_good
        from airflow_provider_rayjobs.tasks.stopping import stop_job_and_wait

        with refused_for_good():
            hook = self._hook()
            with telling_requests(hook.get_conn()), hook.get_conn().waiting_for_cluster(self.log):
                status = stop_job_and_wait(hook, self.submission_id, patience=self.stop_timeout)
            if status is None:
                raise AirflowFailException(
                    f"Ray job {self.submission_id} not found at {hook.get_address()}: there is nothing to stop"
                )
        self.log.info("Ray job %s is %s", self.submission_id, status)
        return str(status)


class RayDeleteJobOperator(_JobOperator):
    """
    Waits until a Ray job has ended, and deletes its record. Succeeds if there is no such record.

    Example::

        RayDeleteJobOperator(
            task_id="delete",
            submission_id="{{ ti.xcom_pull(task_ids='train', key='submission_id') }}",
        )

    :param submission_id: the job (templated). If it renders to nothing, because no job was submitted, the task is
        skipped.
    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :param cluster: instead of ``ray_conn_id``: the cluster of ``with ray_cluster(…) as cluster`` (templated).
    :param end_timeout: seconds to wait for the job's end, without which Ray refuses the deletion. The job is not
        stopped.
    """

    _verb = "delete"

    def __init__(
        self,
        *,
        submission_id: str,
        ray_conn_id: str = DEFAULT_CONN_ID,
        cluster: Any = None,
        end_timeout: float = 60.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(submission_id=submission_id, ray_conn_id=ray_conn_id, cluster=cluster, **kwargs)
        self.end_timeout = end_timeout
        _check_duration("end_timeout", end_timeout)

    def execute(self, context: Context) -> None:
        """
        Delete the job's record.

        :raises AirflowSkipException: if there is no submission id.
        :raises RayJobTimeoutError: if the job has not ended within ``end_timeout``.
        """
        from airflow_provider_rayjobs.observability.report import telling_requests
        from airflow_provider_rayjobs.tasks.guard import refused_for_good
        from airflow_provider_rayjobs.tasks.stopping import DELETE_DELAY, wait_until_ended

        with refused_for_good():
            hook = self._hook()
            try:
                with telling_requests(hook.get_conn()), hook.get_conn().waiting_for_cluster(self.log):
                    wait_until_ended(hook, self.submission_id, patience=self.end_timeout)
                    time.sleep(DELETE_DELAY)
                    hook.delete_job(self.submission_id)
            except RayJobNotFoundError:
                self.log.info("Ray job %s not found: there is nothing to delete", self.submission_id)
                return
        self.log.info("Deleted Ray job %s", self.submission_id)

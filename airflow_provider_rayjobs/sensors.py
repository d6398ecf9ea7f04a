"""Sensors that wait for a Ray job's status, or for a cluster that can run jobs."""

from __future__ import annotations

import time
from abc import abstractmethod
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    conf,
)

from airflow_provider_rayjobs.client.contact import Contact
from airflow_provider_rayjobs.client.ids import names_no_job
from airflow_provider_rayjobs.compat import masking
from airflow_provider_rayjobs.exceptions import (
    RayClusterUnreachableError,
    RayConnectionConfigError,
    RayJobError,
    RayJobInterruptedError,
    RayJobsError,
    RayRequestRefusedError,
)
from airflow_provider_rayjobs.following.conditions import ClusterRunsJobs, JobReaches
from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.jobs import JobStatus
from airflow_provider_rayjobs.tasks import arguments
from airflow_provider_rayjobs.tasks import context as task_context
from airflow_provider_rayjobs.tasks.context import DEFERRAL_MARGIN
from airflow_provider_rayjobs.tasks.guard import ask_to_stop
from airflow_provider_rayjobs.tasks.rendering import RendersTexts
from airflow_provider_rayjobs.tasks.stopping import stop_job_and_wait
from airflow_provider_rayjobs.text.safe_text import without_logins

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow.providers.common.compat.sdk import Context

#: What the trivial job reserves.
RESOURCE_FIELDS = ("entrypoint_num_cpus", "entrypoint_num_gpus", "entrypoint_memory", "entrypoint_resources")


class _RaySensor(RendersTexts, BaseSensorOperator):
    """What both sensors share: the modes, the timeout, and losing contact, which is no answer."""

    def __init__(self, *, ray_conn_id: str, deferrable: bool | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ray_conn_id = ray_conn_id
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self._waited_for: JobReaches | ClusterRunsJobs | None = None

    #: Names the condition to the trigger.
    kind: str

    @abstractmethod
    def condition(self, context: Context) -> JobReaches | ClusterRunsJobs:
        """Return what is waited for."""

    @cached_property
    def hook(self) -> RayJobHook:
        """The hook over the task's connection."""
        return RayJobHook(self.ray_conn_id)

    @cached_property
    def _contact(self) -> Contact:
        return Contact(self.hook.cluster.unreachable_timeout, self.log)

    def execute(self, context: Context) -> Any:
        """Wait in this process, or defer to the triggerer when the first look does not suffice."""
        if not self.deferrable:
            return super().execute(context)
        deadline = time.time() + self.timeout
        try:
            if self.poke(context):
                return None
        except AirflowFailException as e:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(f"Skipping instead of failing: {e}") from e
            raise
        return self._defer(context, deadline)

    def _defer(self, context: Context, deadline: float) -> Any:
        from airflow_provider_rayjobs.triggers import RayConditionTrigger

        started = context["ti"].start_date
        if self.execution_timeout is not None and started is not None:
            # Airflow 3 does not enforce it while the task is deferred.
            deadline = min(deadline, started.timestamp() + self.execution_timeout.total_seconds())
        condition = self._waited_for or self.condition(context)
        task_context.push_xcom(context, task_context.SUBMISSION_ID_XCOM, condition.submission_id)
        trigger = RayConditionTrigger(
            ray_conn_id=self.ray_conn_id,
            kind=self.kind,
            condition=condition.to_json(),
            poke_interval=self.poke_interval,
            deadline=deadline,
        )
        timeout = timedelta(seconds=self.timeout + DEFERRAL_MARGIN)
        task_context.note_deferral(context)
        return self.defer(trigger=trigger, method_name="execute_complete", timeout=timeout)

    def execute_complete(self, context: Context, event: Any = None) -> None:
        """
        End the task as the event of its trigger says.

        :param event: a :class:`~airflow_provider_rayjobs.following.events.JobEvent` as JSON.
        """
        checked = JobEvent.from_json(event)
        if checked.outcome is Outcome.SUCCEEDED:
            return
        if checked.outcome is Outcome.TIMEOUT:
            raise AirflowSensorTimeout(f"{checked.address}: {checked.detail}")
        if checked.outcome is Outcome.UNREACHABLE:
            unreachable = RayClusterUnreachableError(f"{checked.address}: {checked.detail}")
            if self.never_fail:  # of errors that are none of its own, Airflow skips only those of a poke
                raise AirflowSkipException(f"Skipping instead of failing: {unreachable}") from unreachable
            raise unreachable
        raise AirflowFailException(checked.detail)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral of this try."""
        if task_context.resumes_earlier_try(context):
            return self.execute(context)
        return super().resume_execution(next_method, next_kwargs, context)

    def poke(self, context: Context) -> bool:
        """
        Look once.

        :raises AirflowFailException: what is waited for can't come any more; a retry would not help.
        :raises RayClusterUnreachableError: no contact for the connection's ``unreachable_timeout``.
        """
        try:
            if self._waited_for is None:
                self._waited_for = self.condition(context)  # which may read the connection
            reached = self.hook.get_conn().run(self._waited_for.look())
        except (RayJobError, RayRequestRefusedError, RayConnectionConfigError) as e:
            job = self._waited_for.job if self._waited_for else None  # the error quotes what it said
            public = masking.public_for(job)
            raise AirflowFailException(without_logins(public(str(e)))) from None
        except RayJobsError as e:
            if detail := self._contact.failed(e):
                raise RayClusterUnreachableError(f"{self.hook.get_address()}: {detail}") from e
            return False
        self._contact.back()
        return reached


class RayJobSensor(_RaySensor):
    """
    Waits until a Ray job has one of some statuses.

    A job that ended otherwise never reaches them: the task then fails at once, or is skipped with ``soft_fail``. A job
    that the cluster does not know yet is waited for.

    :param submission_id: the job.
    :param target_statuses: the statuses, as texts or :class:`~airflow_provider_rayjobs.jobs.JobStatus`.
    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :param deferrable: whether to wait in the triggerer; ``mode`` (``poke``, ``reschedule``) has no effect then.
    """

    kind = "job"
    template_fields: Sequence[str] = ("submission_id", "target_statuses", "ray_conn_id")
    ui_color = "#dcebff"

    def __init__(
        self,
        *,
        submission_id: str,
        target_statuses: Iterable[str] = (JobStatus.SUCCEEDED,),
        ray_conn_id: str = RayJobHook.default_conn_name,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(ray_conn_id=ray_conn_id, deferrable=deferrable, **kwargs)
        self.submission_id = submission_id
        statuses = [target_statuses] if isinstance(target_statuses, str) else list(target_statuses)
        self.target_statuses = [str(status) for status in statuses]
        if not statuses:
            raise ValueError("target_statuses is empty; name the statuses to wait for, such as SUCCEEDED")
        known = {status.value for status in JobStatus}
        if wrong := [status for status in self.target_statuses if status not in known and "{" not in status]:
            raise ValueError(f"target_statuses holds {wrong[0]!r}; Ray's statuses are {', '.join(sorted(known))}")

    def condition(self, context: Context) -> JobReaches:
        """Return what is waited for."""
        if names_no_job(self.submission_id):
            raise AirflowFailException(f"submission_id is {self.submission_id!r}; name the job to wait for")
        return JobReaches(self.submission_id, self.target_statuses)


class RayClusterSensor(_RaySensor):
    """
    Waits until a Ray cluster can run jobs: a trivial job ran to its end there.

    The trivial job reserves the resources that are named, so the sensor also waits for these, and an autoscaler sees
    the demand. It stays on the cluster's record.

    Each may be a template, as in :class:`~airflow_provider_rayjobs.operators.RaySubmitJobOperator`.

    :param entrypoint_num_cpus: CPU cores that the cluster must be able to give.
    :param entrypoint_num_gpus: GPUs that the cluster must be able to give.
    :param entrypoint_memory: memory that the cluster must be able to give, in bytes.
    :param entrypoint_resources: custom resources that the cluster must be able to give.
    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :param deferrable: whether to wait in the triggerer; ``mode`` (``poke``, ``reschedule``) has no effect then.
    """

    kind = "cluster"
    template_fields: Sequence[str] = ("ray_conn_id", *RESOURCE_FIELDS)
    ui_color = "#dcebff"

    def __init__(
        self,
        *,
        entrypoint_num_cpus: float | str | None = None,
        entrypoint_num_gpus: float | str | None = None,
        entrypoint_memory: int | str | None = None,
        entrypoint_resources: dict[str, float] | dict[str, str] | str | None = None,
        ray_conn_id: str = RayJobHook.default_conn_name,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(ray_conn_id=ray_conn_id, deferrable=deferrable, **kwargs)
        self.entrypoint_num_cpus = entrypoint_num_cpus
        self.entrypoint_num_gpus = entrypoint_num_gpus
        self.entrypoint_memory = entrypoint_memory
        self.entrypoint_resources = entrypoint_resources
        arguments.check_known(self._resources())
        self._killed = False

    def _resources(self) -> dict[str, Any]:
        return {
            "entrypoint_num_cpus": self.entrypoint_num_cpus,
            "entrypoint_num_gpus": self.entrypoint_num_gpus,
            "entrypoint_memory": self.entrypoint_memory,
            "entrypoint_resources": self.entrypoint_resources,
        }

    def condition(self, context: Context) -> ClusterRunsJobs:
        """Return what is waited for."""
        number = task_context.next_submission(context)
        identity = task_context.task_identity(context, self.hook.cluster.deployment, number)
        try:
            resources = arguments.checked(self._resources())
        except (TypeError, ValueError) as e:
            raise AirflowFailException(str(e)) from e
        return ClusterRunsJobs(f"probe-{identity.submission_id()}", resources, identity.metadata())

    def execute(self, context: Context) -> Any:
        """Wait; the trivial job does not outlive a wait that was in vain."""
        try:
            return super().execute(context)
        except (AirflowSensorTimeout, AirflowSkipException, AirflowFailException, AirflowTaskTimeout):
            self._clean_up()
            raise

    def execute_complete(self, context: Context, event: Any = None) -> None:
        """End the task as the event of its trigger says."""
        try:
            super().execute_complete(context, event)
        except (AirflowSensorTimeout, AirflowFailException):
            self._stop(JobEvent.from_json(event).submission_id)
            raise

    def on_kill(self) -> None:
        """Stop the trivial job: one request, short enough for a signal handler, and no other job after it."""
        waited_for, self._killed = self._waited_for, True
        if isinstance(waited_for, ClusterRunsJobs):
            ask_to_stop(self.hook, waited_for.current_id)

    def poke(self, context: Context) -> bool:
        """
        Look once, as the base class does.

        :raises RayJobInterruptedError: the process was asked to end; a retry waits on.
        """
        if self._killed:
            raise RayJobInterruptedError("The process of the task was asked to end")
        return super().poke(context)

    def _clean_up(self) -> None:
        if isinstance(self._waited_for, ClusterRunsJobs):
            self._stop(self._waited_for.current_id)

    def _stop(self, submission_id: str) -> None:
        try:
            stop_job_and_wait(self.hook, submission_id, patience=0.0)
        except RayJobsError as e:
            self.log.debug("The trivial job was not seen to stop: %s", e)

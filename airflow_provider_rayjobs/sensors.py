"""
Sensors that wait until a Ray job or an application of Ray Serve has a status, or until a cluster can run jobs.

DAG files import this module, so it loads only what the class bodies need; methods import the rest.
"""

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

from airflow_provider_rayjobs.cluster.fields import DEFAULT_CONN_ID
from airflow_provider_rayjobs.exceptions import (
    RayClusterUnreachableError,
    RayConnectionConfigError,
    RayJobError,
    RayJobInterruptedError,
    RayJobsError,
    RayKubernetesRefusedError,
    RayRequestRefusedError,
    RayServeDeployError,
)
from airflow_provider_rayjobs.kubernetes.given import check_makes_none, known_cluster
from airflow_provider_rayjobs.tasks.rendering import RendersTexts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_rayjobs.client.contact import Contact
    from airflow_provider_rayjobs.diagnosis.pending import ExplainTimes
    from airflow_provider_rayjobs.following.conditions import ClusterRunsJobs, JobReaches, ServeReaches
    from airflow_provider_rayjobs.following.events import Outcome
    from airflow_provider_rayjobs.hooks import RayJobHook

__all__ = ["RayClusterSensor", "RayJobSensor", "RayServeSensor"]

#: The resources that the trivial job of a :class:`RayClusterSensor` can reserve.
RESOURCE_FIELDS = ("entrypoint_num_cpus", "entrypoint_num_gpus", "entrypoint_memory", "entrypoint_resources")


#: The members of :class:`~airflow_provider_rayjobs.jobs.JobStatus`, whose module no DAG file needs.
STATUSES = ("PENDING", "RUNNING", "STOPPED", "SUCCEEDED", "FAILED")


class _RaySensor(RendersTexts, BaseSensorOperator):
    """Base of both sensors: the modes, the timeouts, and the handling of lost contact."""

    def __init__(self, *, ray_conn_id: str, cluster: Any, deferrable: bool | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_makes_none(ray_conn_id, cluster)
        self.ray_conn_id = ray_conn_id
        self.cluster = cluster
        self._cluster_is_given = cluster is not None
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self._condition: JobReaches | ClusterRunsJobs | ServeReaches | None = None

    #: Tells a :class:`~airflow_provider_rayjobs.triggers.RayConditionTrigger` the class of the condition.
    kind = ""

    @abstractmethod
    def _make_condition(self, context: Context) -> JobReaches | ClusterRunsJobs | ServeReaches:
        """Return the condition to wait for."""

    @cached_property
    def hook(self) -> RayJobHook:
        """
        The hook of the task's cluster.

        :raises RayKubernetesRefusedError: the cluster is not known.
        """
        from airflow_provider_rayjobs.hooks import RayJobHook

        return RayJobHook(self.ray_conn_id, cluster=known_cluster(self.cluster, is_given=self._cluster_is_given))

    @cached_property
    def _contact(self) -> Contact:
        from airflow_provider_rayjobs.client.contact import Contact

        return Contact(self.hook.cluster.unreachable_timeout, self.log, self._public)

    def _public(self, text: str) -> str:
        """Remove secrets from an error, which may quote the job's message."""
        from airflow_provider_rayjobs.compat import masking

        return masking.public_for(self._condition.job if self._condition else None)(text)

    def execute(self, context: Context) -> Any:
        """Wait in this process, or, if ``deferrable``, poke once and defer to the triggerer."""
        if not self.deferrable:
            return super().execute(context)
        deadline = time.time() + self.timeout
        try:
            if self.poke(context):
                return None
        except AirflowFailException as e:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(f"Skipping instead of failing: {e}") from None
            raise
        return self._defer(context, deadline)

    def _defer(self, context: Context, deadline: float) -> Any:
        from airflow_provider_rayjobs.tasks import context as task_context
        from airflow_provider_rayjobs.tasks.context import DEFERRAL_MARGIN

        started = context["ti"].start_date
        if self.execution_timeout is not None and started is not None:
            # Airflow 3 does not enforce execution_timeout while the task is deferred.
            deadline = min(deadline, started.timestamp() + self.execution_timeout.total_seconds())
        condition = self._condition or self._make_condition(context)
        if condition.submission_id:
            task_context.push_xcom(context, task_context.SUBMISSION_ID_XCOM, condition.submission_id)
        timeout = timedelta(seconds=self.timeout + DEFERRAL_MARGIN)
        task_context.note_deferral(context)
        trigger = self._make_trigger(condition, deadline)
        return self.defer(trigger=trigger, method_name="execute_complete", timeout=timeout)

    def _make_trigger(self, condition: Any, deadline: float) -> Any:
        """Return the trigger that waits for the condition until a time, in Unix seconds."""
        from airflow_provider_rayjobs.triggers import RayConditionTrigger

        ref = self.hook.cluster_ref
        return RayConditionTrigger(
            ray_conn_id=self.ray_conn_id,
            cluster=None if ref is None else ref.to_json(),
            kind=self.kind,
            condition=condition.to_json(),
            poke_interval=self.poke_interval,
            deadline=deadline,
        )

    def execute_complete(self, context: Context, event: Any = None) -> None:
        """
        End the task according to the trigger's event.

        :param event: a :class:`~airflow_provider_rayjobs.following.events.JobEvent` as JSON.
        """
        from airflow_provider_rayjobs.following.events import JobEvent

        checked = JobEvent.from_json(event)
        self._end(checked.outcome, checked.address, checked.detail)

    def _end(self, outcome: Outcome, address: str, detail: str) -> None:
        """End the task according to an event."""
        from airflow_provider_rayjobs.following.events import Outcome

        if outcome is Outcome.SUCCEEDED:
            return
        if outcome is Outcome.TIMEOUT:
            raise AirflowSensorTimeout(f"{address}: {detail}")
        if outcome is Outcome.UNREACHABLE:
            unreachable = RayClusterUnreachableError(f"{address}: {detail}", address=address)
            if self.never_fail:  # Airflow itself applies never_fail only to errors of poke()
                raise AirflowSkipException(f"Skipping instead of failing: {unreachable}") from None
            raise unreachable
        raise AirflowFailException(detail)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral of this try; start from the beginning if the deferral was of an earlier try."""
        from airflow_provider_rayjobs.tasks import context as task_context

        if task_context.resumes_earlier_try(context):
            return self.execute(context)
        return super().resume_execution(next_method, next_kwargs, context)

    def poke(self, context: Context) -> bool:
        """
        Check the condition once.

        :raises AirflowFailException: if the condition can't be met any more, so a retry would not help.
        :raises RayClusterUnreachableError: if the cluster was unreachable for the connection's ``unreachable_timeout``.
        """
        from airflow_provider_rayjobs.observability.report import telling_requests

        try:
            if self._condition is None:
                self._condition = self._make_condition(context)  # may read the connection, which may raise
            transport = self.hook.get_conn()
            with transport.single_attempts(self._contact), telling_requests(transport):
                reached = transport.run(self._condition.look())
        except (
            RayJobError,
            RayServeDeployError,
            RayRequestRefusedError,
            RayConnectionConfigError,
            RayKubernetesRefusedError,
        ) as e:
            from airflow_provider_rayjobs.text.safe_text import without_logins

            raise AirflowFailException(without_logins(self._public(str(e)))) from None
        except RayJobsError as e:
            if detail := self._contact.failed(e):
                address = self.hook.get_address()
                raise RayClusterUnreachableError(f"{address}: {detail}", address=address) from None
            return False
        self._contact.back()
        return reached


class RayJobSensor(_RaySensor):
    """
    Waits until a Ray job reaches one of the given statuses.

    If the job ends with another status, the task fails at once, or is skipped with ``soft_fail``. If the job does not
    exist yet, the sensor waits for it.

    Example::

        RayJobSensor(
            task_id="wait",
            submission_id="nightly-report",
            target_statuses=["SUCCEEDED"],
            deferrable=True,
        )

    :param submission_id: the job (templated).
    :param target_statuses: one or several statuses, as strings or
        :class:`~airflow_provider_rayjobs.jobs.JobStatus` (templated).
    :param ray_conn_id: Airflow connection of type ``ray_jobs`` (templated).
    :param cluster: instead of ``ray_conn_id``: the cluster of ``with ray_cluster(…) as cluster`` (templated).
    :param deferrable: whether to wait in the triggerer; if so, ``mode`` is ignored.
    """

    kind = "job"
    template_fields: Sequence[str] = ("submission_id", "target_statuses", "ray_conn_id", "cluster")
    ui_color = "#dcebff"

    def __init__(
        self,
        *,
        submission_id: str,
        target_statuses: Iterable[str] = ("SUCCEEDED",),
        ray_conn_id: str = DEFAULT_CONN_ID,
        cluster: Any = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(ray_conn_id=ray_conn_id, cluster=cluster, deferrable=deferrable, **kwargs)
        self.submission_id = submission_id
        statuses = [target_statuses] if isinstance(target_statuses, str) else list(target_statuses)
        self.target_statuses = [str(status) for status in statuses]
        if not statuses:
            raise ValueError("target_statuses is empty: give at least one status, such as SUCCEEDED")
        if wrong := [status for status in self.target_statuses if status not in STATUSES and "{" not in status]:
            raise ValueError(f"target_statuses: {wrong[0]!r} must be one of {', '.join(sorted(STATUSES))}")

    def _make_condition(self, context: Context) -> JobReaches:
        from airflow_provider_rayjobs.client.ids import is_not_given
        from airflow_provider_rayjobs.following.conditions import JobReaches

        if is_not_given(self.submission_id):
            raise AirflowFailException(f"submission_id is {self.submission_id!r}: it must be the id of a Ray job")
        return JobReaches(self.submission_id, self.target_statuses)


class RayServeSensor(_RaySensor):
    """
    Waits until an application of Ray Serve has one of the given statuses.

    If the application can't be deployed (``DEPLOY_FAILED``), the task fails at once, or is skipped with ``soft_fail``.
    If there is no such application yet, the sensor waits for it.

    Example::

        RayServeSensor(task_id="wait_for_app", application="text", deferrable=True)

    :param application: name of the application (templated).
    :param target_statuses: one or several statuses of Serve's applications (templated).
    :param ray_conn_id: Airflow connection of type ``ray_jobs`` (templated).
    :param cluster: instead of ``ray_conn_id``: the cluster of ``with ray_cluster(…) as cluster`` (templated).
    :param deferrable: whether to wait in the triggerer; if so, ``mode`` is ignored.
    """

    template_fields: Sequence[str] = ("application", "target_statuses", "ray_conn_id", "cluster")
    ui_color = "#dcebff"

    def __init__(
        self,
        *,
        application: str,
        target_statuses: Iterable[str] = ("RUNNING",),
        ray_conn_id: str = DEFAULT_CONN_ID,
        cluster: Any = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(ray_conn_id=ray_conn_id, cluster=cluster, deferrable=deferrable, **kwargs)
        self.application = application
        statuses = [target_statuses] if isinstance(target_statuses, str) else list(target_statuses)
        self.target_statuses = [str(status) for status in statuses]
        if not statuses:
            raise ValueError("target_statuses is empty: give at least one status, such as RUNNING")

    def _make_condition(self, context: Context) -> ServeReaches:
        from airflow_provider_rayjobs.compat import masking
        from airflow_provider_rayjobs.following.conditions import ServeReaches

        if not self.application:
            raise AirflowFailException(f"application is {self.application!r}: it must be the name of an application")
        cluster = self.hook.cluster
        return ServeReaches(
            self.application, self.target_statuses, lambda config: masking.public_for_config(config, cluster)
        )

    def _make_trigger(self, condition: Any, deadline: float) -> Any:
        from airflow_provider_rayjobs.triggers import RayServeTrigger

        ref = self.hook.cluster_ref
        return RayServeTrigger(
            ray_conn_id=self.ray_conn_id,
            cluster=None if ref is None else ref.to_json(),
            applications=[self.application],
            target_statuses=self.target_statuses,
            poll_interval=self.poke_interval,
            deadline=deadline,
        )

    def execute_complete(self, context: Context, event: Any = None) -> None:
        """
        End the task according to the trigger's event.

        :param event: a :class:`~airflow_provider_rayjobs.following.serving.ServeEvent` as JSON.
        """
        from airflow_provider_rayjobs.following.serving import ServeEvent

        checked = ServeEvent.from_json(event)
        self._end(checked.outcome, checked.address, checked.detail)


class RayClusterSensor(_RaySensor):
    """
    Waits until a Ray cluster can run jobs, by running a trivial job (``true``) on it.

    The trivial job reserves the given resources. So the sensor also waits for these, and an autoscaler sees the demand.
    The job's record stays on the cluster.

    Example::

        RayClusterSensor(task_id="wait_for_gpu", entrypoint_num_gpus=1, mode="reschedule", timeout=3600)

    All parameters but ``deferrable`` are templated.

    :param entrypoint_num_cpus: CPU cores that must be free.
    :param entrypoint_num_gpus: GPUs that must be free.
    :param entrypoint_memory: memory that must be free, in bytes.
    :param entrypoint_resources: custom resources that must be free, as a dict of names to amounts.
    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :param cluster: instead of ``ray_conn_id``: the cluster of ``with ray_cluster(…) as cluster``.
    :param deferrable: whether to wait in the triggerer; if so, ``mode`` is ignored.
    """

    kind = "cluster"
    template_fields: Sequence[str] = ("ray_conn_id", "cluster", *RESOURCE_FIELDS)
    ui_color = "#dcebff"

    def __init__(
        self,
        *,
        entrypoint_num_cpus: float | str | None = None,
        entrypoint_num_gpus: float | str | None = None,
        entrypoint_memory: int | str | None = None,
        entrypoint_resources: dict[str, float] | dict[str, str] | str | None = None,
        ray_conn_id: str = DEFAULT_CONN_ID,
        cluster: Any = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(ray_conn_id=ray_conn_id, cluster=cluster, deferrable=deferrable, **kwargs)
        self.entrypoint_num_cpus = entrypoint_num_cpus
        self.entrypoint_num_gpus = entrypoint_num_gpus
        self.entrypoint_memory = entrypoint_memory
        self.entrypoint_resources = entrypoint_resources
        from airflow_provider_rayjobs.tasks import arguments

        arguments.check_known(self._resources())
        self._killed = False

    def _resources(self) -> dict[str, Any]:
        return {
            "entrypoint_num_cpus": self.entrypoint_num_cpus,
            "entrypoint_num_gpus": self.entrypoint_num_gpus,
            "entrypoint_memory": self.entrypoint_memory,
            "entrypoint_resources": self.entrypoint_resources,
        }

    def _make_condition(self, context: Context) -> ClusterRunsJobs:
        from airflow_provider_rayjobs.following.conditions import ClusterRunsJobs
        from airflow_provider_rayjobs.tasks import arguments, guard  # noqa: F401 - on_kill must not have to load guard
        from airflow_provider_rayjobs.tasks import context as task_context

        number = task_context.next_submission(context)
        identity = task_context.task_identity(context, self.hook.cluster.deployment, number)
        try:
            resources = arguments.checked(self._resources())
        except (TypeError, ValueError) as e:
            raise AirflowFailException(str(e)) from None
        return ClusterRunsJobs(f"probe-{identity.submission_id()}", resources, identity.metadata())

    def execute(self, context: Context) -> Any:
        """Wait, and stop the trivial job if the wait fails."""
        try:
            return super().execute(context)
        except (AirflowSensorTimeout, AirflowSkipException, AirflowFailException, AirflowTaskTimeout):
            self._clean_up()
            raise

    def execute_complete(self, context: Context, event: Any = None) -> None:
        """End the task according to the trigger's event, and stop the trivial job if the wait failed."""
        from airflow_provider_rayjobs.following.events import JobEvent

        try:
            super().execute_complete(context, event)
        except (AirflowSensorTimeout, AirflowFailException):
            self._stop(JobEvent.from_json(event).submission_id)
            raise

    def on_kill(self) -> None:
        """Stop the trivial job, and submit no other; one short request only, because this runs in a signal handler."""
        condition, self._killed = self._condition, True
        if condition is not None:
            from airflow_provider_rayjobs.tasks.guard import ask_to_stop

            ask_to_stop(self.hook, condition.current_id)

    def poke(self, context: Context) -> bool:
        """
        Check the condition once, as the base class does.

        :raises RayJobInterruptedError: if the task's process was asked to end; a retry waits again.
        """
        if self._killed:
            raise RayJobInterruptedError("The task's process was asked to end (SIGTERM); a retry waits again")
        reached = super().poke(context)
        if not reached:
            self._explain_wait()
        return reached

    @cached_property
    def _explain_times(self) -> ExplainTimes:
        from airflow_provider_rayjobs.diagnosis.pending import ExplainTimes

        return ExplainTimes()

    def _explain_wait(self) -> None:
        """Log why the trivial job is PENDING, now and then."""
        from airflow_provider_rayjobs.client.cluster_status import cluster_resources
        from airflow_provider_rayjobs.compat import masking
        from airflow_provider_rayjobs.diagnosis.pending import why_pending
        from airflow_provider_rayjobs.jobs import JobStatus

        times = self._explain_times  # they count from the first poke
        job = self._condition.job if self._condition else None
        if job is None or job.status is not JobStatus.PENDING:
            return
        if not (self.mode == "reschedule" or times.is_due()):
            return
        try:
            resources = self.hook.get_conn().run(cluster_resources())
        except RayJobsError:
            return
        self.log.info("PENDING: %s", why_pending(job, resources, masking.public_for(job)))

    def _clean_up(self) -> None:
        if self._condition is not None:
            self._stop(self._condition.current_id)

    def _stop(self, submission_id: str) -> None:
        from airflow_provider_rayjobs.tasks.stopping import stop_job_and_wait

        try:
            stop_job_and_wait(self.hook, submission_id, patience=0.0)
        except RayJobsError as e:
            self.log.debug("Could not confirm that the trivial Ray job %s has stopped: %s", submission_id, e)

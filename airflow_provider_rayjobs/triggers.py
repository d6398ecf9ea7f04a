"""Triggers that follow Ray jobs in Airflow's triggerer."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_rayjobs.client import verbs
from airflow_provider_rayjobs.client.contact import Contact
from airflow_provider_rayjobs.client.serve import LARGE_DETAILS, fetch_serve_details, read_serve_details
from airflow_provider_rayjobs.client.threads import in_own_thread
from airflow_provider_rayjobs.compat import masking
from airflow_provider_rayjobs.diagnosis.pending import ExplainTimes
from airflow_provider_rayjobs.exceptions import (
    RayClusterStartError,
    RayClusterUnreachableError,
    RayJobError,
    RayJobLostError,
    RayJobNotFoundError,
    RayJobsError,
    RayKubernetesError,
    RayRequestRefusedError,
)
from airflow_provider_rayjobs.following.conditions import ClusterRunsJobs, JobReaches
from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.following.serving import ServeEvent, ServeWaiter, ServeWatch
from airflow_provider_rayjobs.following.watcher import LIMIT_STOP_TIMEOUT, JobWatcher, Watch
from airflow_provider_rayjobs.jobs import JobDetails
from airflow_provider_rayjobs.kubernetes.api import async_kube_api
from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
from airflow_provider_rayjobs.kubernetes.connect import async_end
from airflow_provider_rayjobs.kubernetes.start_event import StartEvent
from airflow_provider_rayjobs.kubernetes.waiting import WaitLog, until_ready
from airflow_provider_rayjobs.tasks.ended_cluster import follow
from airflow_provider_rayjobs.tasks.killed import was_killed
from airflow_provider_rayjobs.tasks.shared_pollers import cluster_of, poller_of
from airflow_provider_rayjobs.text.safe_text import safe_value, without_logins

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from airflow_provider_rayjobs.client.exchange import Response
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.following.poller import Poller

__all__ = ["RayClusterStartTrigger", "RayConditionTrigger", "RayJobTrigger", "RayServeTrigger"]

#: Seconds within which Airflow must tell whether a user ended the task. It is long because one thread asks, and each
#: task that was cleared needs a question of its own: when a thousand tasks are cleared at once, they queue.
KILL_CHECK_TIMEOUT = 120.0


class _StopsItsJob(BaseTrigger):
    """Base of the triggers: stops the Ray job when a user ends the task, and only then."""

    ray_conn_id: str
    stop_on_kill = True
    #: The cluster that KubeRay made, if it did.
    ref: ClusterRef | None

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of Airflow
        self._cluster: ClusterConnection | None = None
        self._public: Callable[[str], str] = masking.public
        self._ended = False
        self._stopping: asyncio.Task[None] | None = None

    @property
    def _own_job(self) -> str | None:
        """Submission id of the job to stop."""
        raise NotImplementedError

    @property
    def _stored_id(self) -> str:
        """The submission id that the task has stored in its XCom while it is deferred on this trigger."""
        raise NotImplementedError

    @property
    def _target(self) -> dict[str, Any]:
        """The arguments that name the cluster; triggers of older versions know no ``cluster``."""
        cluster = {} if self.ref is None else {"cluster": self.ref.to_json()}
        return {"ray_conn_id": self.ray_conn_id, **cluster}

    @property
    def _ends_cluster(self) -> bool:
        """Whether the cluster is for this task alone, and ends with it."""
        return self.ref is not None and self.ref.owned

    async def on_kill(self) -> None:
        """Stop the job of a task that a user marked or cleared (called by Airflow 3.3; older versions only cancel)."""
        await self._stop_if_killed()

    async def _stop_if_killed(self) -> None:
        """Stop the job once, and ignore further cancellations, which Airflow 3 sends every second."""
        if self._ended or not self.stop_on_kill or self.task_instance is None or self._own_job is None:
            return
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._check_and_stop(self._own_job))
        while not self._stopping.done():
            try:
                await asyncio.shield(self._stopping)
            except asyncio.CancelledError:
                continue

    async def _check_and_stop(self, submission_id: str) -> None:
        try:
            async with asyncio.timeout(KILL_CHECK_TIMEOUT):
                if not await was_killed(self.task_instance, self._stored_id):
                    return
        except Exception as e:  # noqa: BLE001 - a job is stopped only if a user certainly ended its task
            self.log.warning(
                "Ray job %s keeps running: Airflow could not tell whether a user ended its task (%r)", submission_id, e
            )
            return
        self.log.warning("The task has ended in Airflow (marked, cleared, deleted, or its DAG run timed out)")
        await self._stop_job(submission_id)
        if self.ref is not None and self._ends_cluster:
            await self._end_cluster(self.ref)

    async def _stop_job(self, submission_id: str) -> None:
        self.log.warning("Stopping Ray job %s", submission_id)
        try:
            cluster = self._cluster or await cluster_of(self.ray_conn_id, self.ref)
            async with poller_of(cluster) as poller:
                job = await poller.transport.run(verbs.stop_and_wait(submission_id, patience=LIMIT_STOP_TIMEOUT))
            self.log.info("Ray job %s is %s", submission_id, job.status if job else "not found on the cluster")
        except Exception as e:  # noqa: BLE001 - the trigger is cancelled: nothing would handle the exception
            self.log.error("Ray job %s could not be stopped: %s", submission_id, self._public(str(e)))

    async def _end_cluster(self, ref: ClusterRef) -> None:
        try:
            await async_end(ref, self.log)
            self.log.info("Ended the task's cluster: %s", ref)
        except Exception as e:  # noqa: BLE001 - as above; KubeRay ends the cluster when its job or deadline has ended
            self.log.error("%s could not be ended: %s", ref, e)


class RayJobTrigger(_StopsItsJob):
    """
    Follows one Ray job to its end and sends one :class:`~airflow_provider_rayjobs.following.events.JobEvent`.

    Stops the job if the task is marked, cleared or timed out while it is deferred. The job keeps running when the
    triggerer is restarted, or another triggerer takes the trigger over.

    Example::

        # in the execute() of an operator that has submitted a job
        self.defer(
            trigger=RayJobTrigger(ray_conn_id="ray_default", submission_id=submission_id, submitted_at=time.time()),
            method_name="execute_complete",
        )

    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :param submission_id: the job.
    :param submitted_at: time of its submission, in Unix seconds.
    :param session_name: the head's session name at submission.
    :param poll_interval: maximum time between two polls, in seconds.
    :param deadlines: end of each limit (``job_timeout``, ``execution_timeout``) by its name, in Unix seconds.
    :param pending_deadline: time by which the job must have left PENDING, in Unix seconds.
    :param stream_logs: whether to write the job's log lines to the task log.
    :param log_progress: whether the task log tells each minute how many of the job's Ray tasks are done.
    :param reattached_at: time at which a later try took the job over, in Unix seconds.
    :param stop_on_kill: whether to stop the job when a user ends the task.
    :param cluster: instead of ``ray_conn_id``: a cluster that KubeRay made, as
        :class:`~airflow_provider_rayjobs.kubernetes.cluster.ClusterRef` in JSON.
    """

    def __init__(
        self,
        *,
        ray_conn_id: str,
        submission_id: str,
        submitted_at: float,
        session_name: str | None = None,
        poll_interval: float = 30.0,
        deadlines: dict[str, float] | None = None,
        pending_deadline: float | None = None,
        stream_logs: bool = True,
        log_progress: bool = True,
        reattached_at: float | None = None,
        stop_on_kill: bool = True,
        cluster: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.ray_conn_id = ray_conn_id
        self.ref = None if cluster is None else ClusterRef.from_json(cluster)
        self.stop_on_kill = stop_on_kill
        self.watch = Watch(
            submission_id=submission_id,
            submitted_at=submitted_at,
            session_name=session_name,
            poll_interval=poll_interval,
            deadlines=dict(deadlines or {}),
            pending_deadline=pending_deadline,
            stream_logs=stream_logs,
            log_progress=log_progress,
            reattached_at=reattached_at,
        )

    @property
    def _own_job(self) -> str:
        return self.watch.submission_id

    _stored_id = _own_job

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments of the constructor, as JSON values."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            safe_value({**self._target, "stop_on_kill": self.stop_on_kill, **self.watch.to_json()}),
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Follow the job; yield one event when it has ended, is lost, or the cluster stays unreachable."""
        try:
            event = await self._follow()
            self._ended = True
            yield TriggerEvent(event.to_json())  # type: ignore[no-untyped-call]  # of Airflow
        except asyncio.CancelledError:
            await self._stop_if_killed()
            raise

    async def _follow(self) -> JobEvent:
        try:
            self._cluster = await cluster_of(self.ray_conn_id, self.ref)
        except RayKubernetesError as e:
            outcome = Outcome.LOST if isinstance(e, RayClusterStartError) else Outcome.UNREACHABLE
            return JobEvent(self._own_job, str(self.ref), outcome, str(e), may_run=False)
        async with poller_of(self._cluster) as poller:
            watcher = JobWatcher(poller, self.watch, self.log, partial(masking.public_for, cluster=poller.cluster))
            self._public = watcher.public
            return await follow(watcher, self._own_job, self.ref, self.log)


class RayClusterStartTrigger(_StopsItsJob):
    """
    Waits until a cluster that KubeRay makes takes jobs, and says what it waits for.

    Sends one :class:`~airflow_provider_rayjobs.kubernetes.start_event.StartEvent`. Ends the cluster when a user ends
    the task.

    Example::

        # in the execute() of an operator that has created the RayJob
        names = {"namespace": "ray", "name": "etl-1", "uid": "0b5e8d6a"}
        trigger = RayClusterStartTrigger(
            cluster={"kubernetes_conn_id": "kubernetes_default", **names, "access": "service", "owned": True},
            deadlines={"start_timeout": time.time() + 1200},
            submission_id=submission_id,
        )

    :param cluster: a :class:`~airflow_provider_rayjobs.kubernetes.cluster.ClusterRef` as JSON.
    :param deadlines: end of each limit by its name, in Unix seconds.
    :param submission_id: what the task has stored as its submission id, which differs for each try.
    :param number: number of the submission within its try.
    """

    ref: ClusterRef
    ray_conn_id = ""

    #: Seconds before the event. Airflow fails a task whose trigger fires before the scheduler has seen the deferral: it
    #: takes the end of the first process for the end of the second (`process_executor_events` of 2.11 to 3.3).
    least_time = 5.0

    def __init__(
        self, *, cluster: dict[str, Any], deadlines: dict[str, float], submission_id: str, number: int = 1
    ) -> None:
        super().__init__()
        self.ref = ClusterRef.from_json(cluster)
        self.deadlines = dict(deadlines)
        self.submission_id = submission_id
        self.number = number

    @property
    def _own_job(self) -> str:
        return self.submission_id

    _stored_id = _own_job
    #: Also one for several tasks: they have not begun, and the teardown is skipped if the setup task has failed.
    _ends_cluster = True

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments of the constructor, as JSON values."""
        arguments: dict[str, Any] = safe_value(
            {
                "cluster": self.ref.to_json(),
                "deadlines": self.deadlines,
                "submission_id": self.submission_id,
                "number": self.number,
            }
        )
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait; yield one event when the cluster takes jobs, can't start, or a limit has passed."""
        wait_log = WaitLog(self.log, masking.public)
        earliest = time.monotonic() + self.least_time
        try:
            try:
                async with async_kube_api(self.ref.kubernetes_conn_id, self.log) as api:
                    await api.run(until_ready(self.ref, self.deadlines, wait_log))
                event = StartEvent("ready", self.number)
            except RayKubernetesError as e:
                event = StartEvent.of_error(e, number=self.number)
            await asyncio.sleep(max(earliest - time.monotonic(), 0))
            self._ended = True
            yield TriggerEvent(replace(event, waited=tuple(wait_log.lines)).to_json())  # type: ignore[no-untyped-call]
        except asyncio.CancelledError:
            await self._stop_if_killed()
            raise

    async def _stop_job(self, submission_id: str) -> None:
        """Do nothing: there is no job yet."""


class RayServeTrigger(BaseTrigger):
    """
    Waits until applications of Ray Serve have a status.

    Sends one :class:`~airflow_provider_rayjobs.following.serving.ServeEvent`. It changes nothing on the cluster.

    Example::

        # in the execute() of an operator that has deployed
        trigger = RayServeTrigger(
            ray_conn_id="ray_default",
            applications=["text"],
            deadline=time.time() + 1200,
        )

    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :param applications: names of the applications, all of which must have one of the statuses.
    :param deadline: when the wait ends, in Unix seconds.
    :param poll_interval: maximum time between two looks, in seconds.
    :param target_statuses: the statuses to wait for.
    :param deployed: digests of the configs with which they were deployed, by name.
    :param cluster: instead of ``ray_conn_id``: a cluster that KubeRay made, as for :class:`RayJobTrigger`.
    """

    #: Seconds before the event, as in :class:`RayClusterStartTrigger`.
    least_time = 5.0

    def __init__(
        self,
        *,
        ray_conn_id: str,
        applications: list[str],
        deadline: float,
        poll_interval: float = 5.0,
        target_statuses: Sequence[str] = ("RUNNING",),
        deployed: dict[str, str] | None = None,
        cluster: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of Airflow
        self.ray_conn_id = ray_conn_id
        self.ref = None if cluster is None else ClusterRef.from_json(cluster)
        self.watch = ServeWatch(
            tuple(applications), deadline, poll_interval, tuple(target_statuses), dict(deployed or {})
        )

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments of the constructor, as JSON values."""
        cluster = {} if self.ref is None else {"cluster": self.ref.to_json()}
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            safe_value({"ray_conn_id": self.ray_conn_id, **cluster, **self.watch.to_json()}),
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait; yield one event when the applications have a target status, can't get it, or it is too late."""
        earliest = time.monotonic() + self.least_time
        event = await self._found()
        await asyncio.sleep(max(earliest - time.monotonic(), 0))
        yield TriggerEvent(event.to_json())  # type: ignore[no-untyped-call]  # of Airflow

    async def _found(self) -> ServeEvent:
        try:
            cluster = await cluster_of(self.ray_conn_id, self.ref)
        except Exception as e:  # noqa: BLE001 - of Airflow or a secrets backend, too
            kind = Outcome.UNREACHABLE if isinstance(e, RayClusterUnreachableError) else Outcome.STOPPED
            return ServeEvent("", kind, without_logins(masking.public(str(e))))
        async with poller_of(cluster) as poller:
            return await self._wait(poller)

    async def _wait(self, poller: Poller) -> ServeEvent:
        cluster = poller.cluster
        public_for = partial(masking.public_for_config, cluster=cluster)
        waiter = ServeWaiter(self.watch, cluster.address, cluster.unreachable_timeout, self.log, public_for)
        while True:
            try:
                answer = await poller.transport.run(fetch_serve_details())
            except RayJobsError as e:
                event = waiter.failed(e)
            else:
                is_large = len(answer.text) > LARGE_DETAILS
                event = await in_own_thread(_judged, waiter, answer) if is_large else _judged(waiter, answer)
            if event is not None:
                return event
            await asyncio.sleep(waiter.pause())


def _judged(waiter: ServeWaiter, answer: Response) -> ServeEvent | None:
    try:
        details = read_serve_details(answer)
    except RayJobsError as e:
        return waiter.failed(e)
    return waiter.saw(details)


class RayConditionTrigger(_StopsItsJob):
    """
    Waits for a sensor's condition, and sends one :class:`~airflow_provider_rayjobs.following.events.JobEvent`.

    Stops the trivial job of a :class:`~airflow_provider_rayjobs.sensors.RayClusterSensor` when a user ends the sensor.

    Example::

        # in the execute() of a sensor
        trigger = RayConditionTrigger(
            ray_conn_id="ray_default",
            kind="job",
            condition={"submission_id": "nightly-report", "targets": ["SUCCEEDED"]},
            poke_interval=30.0,
            deadline=time.time() + 3600,
        )

    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :param kind: ``job`` or ``cluster``.
    :param condition: for ``job``, the arguments of
        :class:`~airflow_provider_rayjobs.following.conditions.JobReaches`; for ``cluster``, those of
        :class:`~airflow_provider_rayjobs.following.conditions.ClusterRunsJobs`.
    :param poke_interval: time between two checks, in seconds.
    :param deadline: time at which the wait ends, in Unix seconds.
    :param cluster: instead of ``ray_conn_id``: a cluster that KubeRay made, as for :class:`RayJobTrigger`.
    """

    def __init__(
        self,
        *,
        ray_conn_id: str,
        kind: str,
        condition: dict[str, Any],
        poke_interval: float,
        deadline: float,
        cluster: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.ray_conn_id = ray_conn_id
        self.ref = None if cluster is None else ClusterRef.from_json(cluster)
        self.kind = kind
        self.condition = condition
        self.poke_interval = poke_interval
        self.deadline = deadline
        self._probe: ClusterRunsJobs | None = None

    @property
    def _own_job(self) -> str | None:
        return self._probe.current_id if self._probe else None

    @property
    def _stored_id(self) -> str:
        return str(self.condition["submission_id"])

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments of the constructor, as JSON values."""
        names = ("kind", "condition", "poke_interval", "deadline")
        arguments: dict[str, Any] = safe_value({**self._target, **{name: getattr(self, name) for name in names}})
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait; yield one event when the condition is met, can't be met any more, or a timeout has passed."""
        try:
            self._cluster = await cluster_of(self.ray_conn_id, self.ref)
            async with poller_of(self._cluster) as poller:
                event = await (self._wait_for_job(poller) if self.kind == "job" else self._wait_for_cluster(poller))
            self._ended = True
            yield TriggerEvent(event.to_json())  # type: ignore[no-untyped-call]  # of Airflow
        except asyncio.CancelledError:
            await self._stop_if_killed()
            raise

    def _delay(self) -> float:
        return self.poke_interval * (0.9 + 0.1 * random.random())  # noqa: S311 - jitter

    async def _wait_for_job(self, poller: Poller) -> JobEvent:
        condition = JobReaches(**self.condition)
        with poller.subscribe(condition.submission_id, lambda: self.poke_interval) as job:

            async def check(left: float | None) -> bool | None:
                news = await job.news(left)
                if isinstance(news, JobDetails):
                    return condition.reached(news)
                if news is None:
                    return None
                if isinstance(news.error, RayJobNotFoundError):
                    return condition.missing(news.error)
                # The poller hands one error to all subscribers; each must not add to the same traceback.
                raise news.error.with_traceback(None)

            return await self._wait(condition, poller.cluster, check)

    async def _wait_for_cluster(self, poller: Poller) -> JobEvent:
        condition = self._probe = ClusterRunsJobs(**self.condition)
        self.log.info("Waiting for the trivial Ray job %s", condition.current_id)
        explain = ExplainTimes()

        async def check(left: float | None) -> bool:
            if left is not None:
                await asyncio.sleep(min(self._delay(), left))
            reached = await poller.transport.run(condition.look())
            if not reached and explain.is_due():
                public = masking.public_for(condition.job, poller.cluster)
                if reason := await poller.why_pending(condition.current_id, public):
                    self.log.info("PENDING: %s", reason)
            return reached

        return await self._wait(condition, poller.cluster, check)

    async def _wait(
        self,
        condition: JobReaches | ClusterRunsJobs,
        cluster: ClusterConnection,
        check: Callable[[float | None], Awaitable[bool | None]],
    ) -> JobEvent:
        """
        Wait for the condition.

        :param check: waits until the next check is due, but at most for the given seconds, and then checks. Returns
            None if there is no news.
        """
        # An error may quote the job's message, with secrets in it. The job is not known yet.
        self._public = lambda text: masking.public_for(condition.job, cluster)(text)  # noqa: PLW0108
        contact = Contact(cluster.unreachable_timeout, self.log, self._public)

        def event(outcome: Outcome, detail: str = "") -> JobEvent:
            return JobEvent(condition.current_id, cluster.address, outcome, without_logins(self._public(detail)))

        left = None
        while True:
            try:
                reached = await check(left)
            except (RayJobError, RayRequestRefusedError) as e:
                return event(Outcome.LOST if isinstance(e, RayJobLostError) else Outcome.FAILED, str(e))
            except RayJobsError as e:
                contact.failed(e)
            else:
                if reached:
                    return event(Outcome.SUCCEEDED)
                if reached is not None:
                    contact.back()
            if detail := contact.given_up():
                return event(Outcome.UNREACHABLE, detail)
            if (left := self.deadline - time.time()) <= 0:
                return event(
                    Outcome.TIMEOUT, "the condition was not met within the sensor's timeout or execution_timeout"
                )
            left = min(left, contact.left)

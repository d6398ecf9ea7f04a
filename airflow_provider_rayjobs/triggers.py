"""Triggers, which follow Ray jobs in the triggerer."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_rayjobs.client import verbs
from airflow_provider_rayjobs.client.contact import Contact
from airflow_provider_rayjobs.compat import masking
from airflow_provider_rayjobs.exceptions import (
    RayJobError,
    RayJobLostError,
    RayJobNotFoundError,
    RayJobsError,
    RayRequestRefusedError,
)
from airflow_provider_rayjobs.following.conditions import ClusterRunsJobs, JobReaches
from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.following.watcher import LIMIT_STOP_TIMEOUT, JobWatcher, Watch
from airflow_provider_rayjobs.jobs import JobDetails
from airflow_provider_rayjobs.tasks.killed import was_killed
from airflow_provider_rayjobs.tasks.shared_pollers import cluster_of, poller_of
from airflow_provider_rayjobs.text.safe_text import safe_value, without_logins

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.following.poller import Poller

#: Seconds that asking whether the task was killed may take: when a thousand tasks are killed together, their
#: questions queue for one thread.
KILL_CHECK_TIMEOUT = 120.0


class _StopsItsJob(BaseTrigger):
    """A trigger that stops a Ray job when a user ends its task, and on no other occasion."""

    ray_conn_id: str
    stop_on_kill = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of Airflow
        self._cluster: ClusterConnection | None = None
        self._ended = False
        self._stopping: asyncio.Task[None] | None = None

    @property
    def _own_job(self) -> str | None:
        """The job to stop."""
        raise NotImplementedError

    @property
    def _known_as(self) -> str:
        """What the task keeps as its submission id while it is deferred on this trigger."""
        raise NotImplementedError

    async def on_kill(self) -> None:
        """Stop the job of a task that a user marked or cleared (Airflow 3.3 calls this; others cancel only)."""
        await self._stop_if_killed()

    async def _stop_if_killed(self) -> None:
        """Stop the job once, undisturbed by further cancellations, which Airflow 3 sends every second."""
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
                if not await was_killed(self.task_instance, self._known_as):
                    return
        except Exception as e:  # noqa: BLE001 - whatever hinders the check: a job is stopped only when the wish is certain
            self.log.warning("Ray job %s goes on: can't tell whether its task was killed (%r)", submission_id, e)
            return
        self.log.warning("The task was ended from outside; stopping Ray job %s", submission_id)
        try:
            cluster = self._cluster or await cluster_of(self.ray_conn_id)
            async with poller_of(cluster) as poller:
                job = await poller.transport.run(verbs.stop_and_wait(submission_id, patience=LIMIT_STOP_TIMEOUT))
            self.log.info("Ray job %s is %s", submission_id, job.status if job else "not known to the cluster")
        except Exception as e:  # noqa: BLE001 - the last word of a cancelled trigger: there is nobody to raise it to
            self.log.error("Ray job %s could not be stopped: %s", submission_id, e)


class RayJobTrigger(_StopsItsJob):
    """
    Follows one Ray job to its end and sends one :class:`~airflow_provider_rayjobs.following.events.JobEvent`.

    A task that is marked, cleared or timed out while it is deferred takes its Ray job with it; a triggerer that is
    restarted or handed over does not.

    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :param submission_id: the job.
    :param submitted_at: Unix seconds of its submission.
    :param session_name: the head's session at submission.
    :param poll_interval: longest time between two looks, in seconds.
    :param deadlines: name of a limit (``job_timeout``, ``execution_timeout``) to Unix seconds.
    :param pending_deadline: Unix seconds at which the job must have left PENDING.
    :param stream_logs: whether the job's lines are written to the task log.
    :param reattached_at: Unix seconds at which a later try took the job over.
    :param stop_on_kill: whether the job is stopped when a user ends the task.
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
        reattached_at: float | None = None,
        stop_on_kill: bool = True,
    ) -> None:
        super().__init__()
        self.ray_conn_id = ray_conn_id
        self.stop_on_kill = stop_on_kill
        self.watch = Watch(
            submission_id=submission_id,
            submitted_at=submitted_at,
            session_name=session_name,
            poll_interval=poll_interval,
            deadlines=dict(deadlines or {}),
            pending_deadline=pending_deadline,
            stream_logs=stream_logs,
            reattached_at=reattached_at,
        )

    @property
    def _own_job(self) -> str:
        return self.watch.submission_id

    _known_as = _own_job

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments of the constructor, as JSON values."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            safe_value({"ray_conn_id": self.ray_conn_id, "stop_on_kill": self.stop_on_kill, **self.watch.to_json()}),
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Follow the job; yield one event when it has ended, was given up, or is lost."""
        try:
            self._cluster = await cluster_of(self.ray_conn_id)
            async with poller_of(self._cluster) as poller:
                event = await JobWatcher(poller, self.watch, self.log, masking.public_for).run()
            self._ended = True
            yield TriggerEvent(event.to_json())  # type: ignore[no-untyped-call]  # of Airflow
        except asyncio.CancelledError:
            await self._stop_if_killed()
            raise


class RayConditionTrigger(_StopsItsJob):
    """
    Waits for what a sensor waits for, and sends one :class:`~airflow_provider_rayjobs.following.events.JobEvent`.

    The trivial job that waits on a cluster is stopped when a user ends the sensor.

    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :param kind: ``job`` or ``cluster``.
    :param condition: arguments of :class:`~airflow_provider_rayjobs.following.conditions.JobReaches` or
        :class:`~airflow_provider_rayjobs.following.conditions.ClusterRunsJobs`.
    :param poke_interval: time between two looks, in seconds.
    :param deadline: Unix seconds at which the wait is over.
    """

    def __init__(
        self, *, ray_conn_id: str, kind: str, condition: dict[str, Any], poke_interval: float, deadline: float
    ) -> None:
        super().__init__()
        self.ray_conn_id = ray_conn_id
        self.kind = kind
        self.condition = condition
        self.poke_interval = poke_interval
        self.deadline = deadline
        self._probe: ClusterRunsJobs | None = None

    @property
    def _own_job(self) -> str | None:
        return self._probe.current_id if self._probe else None

    @property
    def _known_as(self) -> str:
        return str(self.condition["submission_id"])

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments of the constructor, as JSON values."""
        names = ("ray_conn_id", "kind", "condition", "poke_interval", "deadline")
        arguments: dict[str, Any] = safe_value({name: getattr(self, name) for name in names})
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait; yield one event when the condition holds, can't hold any more, or time or contact is lost."""
        try:
            self._cluster = await cluster_of(self.ray_conn_id)
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

            async def look(left: float | None) -> bool | None:
                news = await job.news(left)
                if isinstance(news, JobDetails):
                    return condition.reached(news)
                if news is None:
                    return None
                if isinstance(news.error, RayJobNotFoundError):
                    return condition.missing(news.error)
                raise news.error.with_traceback(None)  # the poller tells everybody of this one error

            return await self._wait(condition, poller.cluster, look)

    async def _wait_for_cluster(self, poller: Poller) -> JobEvent:
        condition = self._probe = ClusterRunsJobs(**self.condition)
        self.log.info("Waiting for the trivial Ray job %s", condition.current_id)

        async def look(left: float | None) -> bool:
            if left is not None:
                await asyncio.sleep(min(self._delay(), left))
            return await poller.transport.run(condition.look())

        return await self._wait(condition, poller.cluster, look)

    async def _wait(
        self,
        condition: JobReaches | ClusterRunsJobs,
        cluster: ClusterConnection,
        look: Callable[[float | None], Awaitable[bool | None]],
    ) -> JobEvent:
        """
        Wait for the condition.

        :param look: waits some seconds, at most so many as it is given, and looks; None: no news.
        """
        contact = Contact(cluster.unreachable_timeout, self.log)

        def event(outcome: Outcome, detail: str = "") -> JobEvent:
            public = masking.public_for(condition.job)  # an error quotes what the job said
            return JobEvent(condition.current_id, cluster.address, outcome, without_logins(public(detail)))

        left = None
        while True:
            try:
                reached = await look(left)
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
                return event(Outcome.TIMEOUT, "the sensor's timeout, or its execution_timeout, has passed")
            left = min(left, contact.left)

"""Stops or leaves the Ray job when the process of its task is asked to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_rayjobs.client.exchange import Request
from airflow_provider_rayjobs.client.verbs import job_path
from airflow_provider_rayjobs.compat import versions
from airflow_provider_rayjobs.exceptions import (
    RayConnectionConfigError,
    RayJobExistsError,
    RayJobInterruptedError,
    RayJobsError,
    RayJobStoppedError,
    RayKubernetesRefusedError,
    RayPackageTooLargeError,
    RayRequestRefusedError,
)
from airflow_provider_rayjobs.jobs import JobStatus
from airflow_provider_rayjobs.tasks.killed import Reason
from airflow_provider_rayjobs.tasks.stopping import stop_job_and_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from airflow_provider_rayjobs.hooks import RayJobHook
    from airflow_provider_rayjobs.tasks.killed import TaskProcess

T = TypeVar("T")

#: Timeout in seconds of the one request that a signal handler sends: Airflow 3 sends SIGKILL 5 s after SIGTERM.
REQUEST_TIMEOUT = 3.0

#: Seconds to wait until the job has ended, in a process that was asked to end.
KILL_STOP_TIMEOUT = 10.0

#: Seconds within which a job may still appear whose submission was interrupted.
APPEAR_TIMEOUT = 4.0


class Phase(Enum):
    """What the cluster has of this try's job."""

    #: Nothing.
    NO_JOB = auto()
    #: A submission is under way: the cluster may have the job, or get it in a moment.
    SUBMITTING = auto()
    #: The job.
    HAS_JOB = auto()


class Verdict(Enum):
    """What to do with the job of a process that was asked to end."""

    LEAVE = auto()
    STOP = auto()
    #: Stop it. If it has just SUCCEEDED, delete its record: the task is to run again, and must not return this success.
    STOP_AND_FORGET = auto()


class JobGuard:
    """
    Decides what becomes of a job when the process of its task is asked to end (SIGTERM, ``on_kill``).

    The signal handler only notes the signal and interrupts the request or the wait. Then Airflow is asked why. If a
    user ended the task, the job is stopped. If only this process ends (its worker shuts down, Airflow missed its
    heartbeats), the job goes on for the next try; after the last try it is stopped, because no other try follows it.

    :param hook: the cluster.
    :param log: the task's logger.
    :param process: what this process runs, and why it is asked to end.
    :param enabled: whether the job is stopped at all.
    :param enabled_without_job: whether :attr:`stop_earlier` is called, while there is no job, even if jobs are not
        stopped.
    """

    def __init__(
        self, hook: RayJobHook, log: Any, process: TaskProcess, *, enabled: bool, enabled_without_job: bool = False
    ) -> None:
        self._hook = hook
        self._log = log
        self._process = process
        self._enabled = enabled
        self._enabled_without_job = enabled_without_job
        self._phase = Phase.NO_JOB
        #: Interrupts what the process does now; None when a kill must not interrupt it.
        self._interrupt: Callable[[], object] | None = None
        #: Stops what earlier tries left running, for a kill that comes before this try has a job.
        self.stop_earlier: Callable[[], object] = lambda: None
        #: Ends the cluster that was made for this job, instead of a wait until the job has stopped.
        self.end_cluster: Callable[[], object] | None = None
        self.killed = False
        self.submission_id = ""

    @property
    def _may_stop(self) -> bool:
        return self._enabled or (self._enabled_without_job and self._phase is Phase.NO_JOB)

    def announce(self, submission_id: str, *, exists: bool = False) -> None:
        """
        Name the job, before it is submitted or followed.

        :param exists: whether the cluster has the job already, so that a kill has to stop it.
        :raises RayJobInterruptedError: the process is to end; nothing is to be submitted or followed.
        """
        if exists or not self.killed:
            self.submission_id = submission_id
            self._phase = Phase.HAS_JOB if exists else Phase.SUBMITTING
        self._raise_if_killed()

    def accept(self) -> None:
        """Note that the cluster has the job."""
        self._phase = Phase.HAS_JOB

    def before_submission(self) -> None:
        """
        Check that this process still runs the task, before a job is submitted, or submitted again after a doubt.

        :raises RayJobInterruptedError: the task has ended, or another process runs it.
        """
        if self.is_replaced():
            raise RayJobInterruptedError(
                "Nothing was submitted: the task has ended, or another process runs it now",
                submission_id=self.submission_id,
            )

    def is_replaced(self) -> bool:
        """Whether the task has ended, or another process runs it."""
        return self._process.is_replaced()

    def still_runs_task(self) -> bool:
        """Whether this process certainly runs the task: nothing that another one may use is ended without that."""
        return self._process.still_runs_task()

    @property
    def has_next_try(self) -> bool:
        """Whether Airflow starts another try if this one fails."""
        return self._process.has_next_try

    @contextlib.contextmanager
    def breakable(self) -> Iterator[None]:
        """
        Let a kill interrupt the block: a request to the cluster, or the wait before the next one.

        Otherwise a request without an answer would use up the few seconds that are left to stop the job. The block must
        hold nothing else: Airflow's channel must not be left between a question and its answer, and loggers swallow
        exceptions.

        :raises RayJobInterruptedError: the process is to end.
        """
        if not versions.TERMINATED:  # else Airflow 2's own signal handler raises, after it has called `kill`
            self._interrupt = self._raise_if_killed
        try:
            self._raise_if_killed()
            yield
        finally:
            self._interrupt = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine, which a kill cancels."""

        async def cancellable() -> T:
            loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
            self._interrupt = lambda: loop.call_soon_threadsafe(task.cancel)
            try:
                if self.killed:
                    task.cancel()
                return await task
            finally:
                self._interrupt = None

        return asyncio.run(cancellable())

    def kill(self) -> None:
        """
        Note that the process is asked to end, and interrupt what it does; called in a signal handler.

        Nothing is asked or logged here: the signal may have interrupted Airflow's channel, or its logger while it held
        its lock.

        :raises RayJobInterruptedError: a request is under way, which this interrupts.
        """
        self.killed = True
        if self._interrupt is not None:
            self._interrupt()

    def _raise_if_killed(self) -> None:
        if self.killed:
            raise RayJobInterruptedError("The process of the task was asked to end", submission_id=self.submission_id)

    @contextlib.contextmanager
    def guarding(self) -> Iterator[None]:
        """
        Decide what becomes of the job if a signal or a timeout ends the block.

        :raises RayJobStoppedError: the task was ended, and its job stopped.
        :raises RayJobInterruptedError: only this process ends; the job goes on.
        """
        try:
            yield
        except BaseException as e:
            if self.killed or isinstance(e, versions.TERMINATED):
                self._conclude(e)
            elif not isinstance(e, Exception | TaskDeferred):
                # A timeout, or Ctrl-C. A deferral, and errors of the job or of contact, leave the job as it is.
                self._stop(Verdict.STOP)
            raise
        else:
            if self.killed:
                self._conclude(None)

    def _conclude(self, error: BaseException | None) -> None:
        """
        Stop the job or leave it, after a kill.

        :param error: what ended the block; None when it came to its end.
        :raises RayJobStoppedError: the job was stopped, and the kill interrupted the block.
        :raises RayJobInterruptedError: the job goes on, and the kill interrupted the block.
        """
        interrupted = isinstance(error, asyncio.CancelledError | RayJobInterruptedError)
        # A result, an error of the job's own and a deferral need nobody to follow the job.
        needs_follower = interrupted or not (error is None or isinstance(error, Exception | TaskDeferred))
        verdict = self._verdict(needs_follower=needs_follower)
        if verdict is not Verdict.LEAVE:
            status = self._stop(verdict)
            if interrupted or error is None:
                job = f"Ray job {self.submission_id} is {status}" if self.submission_id else "no Ray job was submitted"
                raise RayJobStoppedError(
                    f"The task was ended from outside: {job}", submission_id=self.submission_id
                ) from None
        elif interrupted:
            job = f"Ray job {self.submission_id} goes on" if self.submission_id else "it had no Ray job yet"
            raise RayJobInterruptedError(
                f"The process of the task was asked to end, but the task was not: {job}",
                submission_id=self.submission_id,
            ) from None

    def _verdict(self, *, needs_follower: bool) -> Verdict:
        """
        Decide by Airflow's reason for the kill.

        :param needs_follower: whether the job goes on and this process followed it, or was about to submit it.
        """
        if not self._may_stop:
            return Verdict.LEAVE
        reason = self._process.reason(self.submission_id or None)
        if reason is Reason.TASK_CLEARED:
            return Verdict.STOP_AND_FORGET
        if reason is Reason.TASK_ENDED:
            return Verdict.STOP
        if not needs_follower:
            return Verdict.LEAVE
        job = f"Ray job {self.submission_id}" if self.submission_id else "the task, which has no Ray job yet"
        if reason is Reason.REPLACED:
            self._log.warning("This process was asked to end: another one runs the task now, and follows %s", job)
            return Verdict.LEAVE
        why = (
            "Airflow did not answer why"
            if reason is Reason.UNKNOWN
            else "but the task was not: its worker shuts down, or Airflow missed its heartbeats"
        )
        if self._process.has_next_try:
            self._log.warning("This process was asked to end (%s). The next try goes on with %s", why, job)
            return Verdict.LEAVE
        self._log.warning("This process was asked to end (%s). No other try will follow %s", why, job)
        return Verdict.STOP

    def _stop(self, verdict: Verdict) -> str:
        """
        Stop the job, or what earlier tries left running if this try has none; errors are logged.

        :return: the job's last status, for a message.
        """
        status = "not seen to stop"
        if not self._may_stop:
            return status
        if self._phase is Phase.NO_JOB:
            try:
                self.stop_earlier()
            except RayJobsError as e:
                self._log.error("The Ray jobs of earlier tries could not be stopped: %s", e)
            return status
        if self.end_cluster is not None:
            self._log.warning("The task ends before its Ray job %s; ending the job's cluster", self.submission_id)
            self.end_cluster()
            return "ended with its cluster"
        self._log.warning("The task ends before its Ray job; stopping %s", self.submission_id)
        # A submission whose answer was interrupted may take effect a moment later.
        appear = APPEAR_TIMEOUT if self._phase is Phase.SUBMITTING else 0.0
        try:
            last = stop_job_and_wait(self._hook, self.submission_id, patience=KILL_STOP_TIMEOUT, appear=appear)
            status = str(last or "not found on the cluster")
            self._log.warning("Ray job %s is %s", self.submission_id, status)
            if last is JobStatus.SUCCEEDED and verdict is Verdict.STOP_AND_FORGET:
                # Airflow may not tell the next try from a retry, which would return this success.
                self._log.warning("The task was cleared; deleting the record of Ray job %s", self.submission_id)
                self._hook.delete_job(self.submission_id)
        except RayJobsError as e:
            self._log.error("Ray job %s could not be stopped: %s", self.submission_id, e)
        return status


def ask_to_stop(hook: RayJobHook, submission_id: str) -> None:
    """
    Send one request to stop a job, in a signal handler.

    Nothing is logged meanwhile, and the HTTP session is a new one: the signal may have interrupted Airflow's logger, or
    the old session, while it held its lock.
    """
    transport = type(hook.get_conn())(hook.cluster)
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        transport.send_once(Request("POST", f"{job_path(submission_id)}/stop"), timeout=REQUEST_TIMEOUT)
    except RayJobsError:
        pass  # a signal handler can't report it
    finally:
        logging.disable(before)


#: Errors that a retry can't mend.
REFUSALS = (
    RayRequestRefusedError,
    RayConnectionConfigError,
    RayJobExistsError,
    RayPackageTooLargeError,
    RayKubernetesRefusedError,
)


@contextlib.contextmanager
def refused_for_good() -> Iterator[None]:
    """
    End the task without a retry if a retry can't help.

    The new error has the whole text of the old one. So they are not chained: the task log would show both.

    :raises AirflowFailException: the request, the credentials, the connection or an argument is wrong.
    """
    try:
        yield
    except REFUSALS as e:
        raise AirflowFailException(str(e)) from None

"""What happens on a worker when the process of a task is asked to end before the task's job has ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
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

#: Seconds that a signal handler may spend on the request that stops a job: Airflow 3 sends SIGKILL after 5 s.
REQUEST_TIMEOUT = 3.0

#: Seconds to wait for STOPPED.
KILL_STOP_TIMEOUT = 10.0

#: Seconds within which a job may still appear whose submission was cut off.
APPEAR_PATIENCE = 4.0


class JobGuard:
    """
    Decides what becomes of a job when the process of its task is asked to end (SIGTERM, ``on_kill``).

    The signal handler only notes the signal and breaks off what goes on. Then Airflow is asked why: a user's wish ends
    the job. When only this process ends (the worker shuts down, heartbeats had no answer), the job goes on for the next
    try; after the last try it is stopped, because no other try follows it.

    :param hook: the cluster.
    :param log: the task's logger.
    :param process: what this process runs, and why it is asked to end.
    :param enabled: whether the job is stopped at all.
    """

    def __init__(self, hook: RayJobHook, log: Any, process: TaskProcess, *, enabled: bool) -> None:
        self._hook = hook
        self._log = log
        self._process = process
        self._enabled = enabled
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._breakable = False
        #: Stops what earlier tries left running, for a kill that comes before this try has a job.
        self.stop_earlier: Callable[[], object] = lambda: None
        self.killed = False
        self.submission_id: str | None = None
        self.accepted = False  # by the cluster, for certain
        self._cleared = False
        self._status = ""  # of the job, when it was asked to stop

    def announce(self, submission_id: str, *, exists: bool = False) -> None:
        """
        Name the job, before it is submitted or followed on.

        :param exists: whether the cluster has the job already, so that a kill is to stop it.
        :raises RayJobInterruptedError: the process is to end; nothing is to be submitted or followed.
        """
        if exists or not self.killed:
            self.submission_id, self.accepted = submission_id, exists
        self._check()

    def before_submission(self) -> None:
        """
        See that the task still is this process's own, before a job is submitted, or submitted again after a doubt.

        :raises RayJobInterruptedError: the task was ended, or another process runs it.
        """
        if self._process.is_replaced():
            raise RayJobInterruptedError(
                "Nothing was submitted: the task was ended, or another process runs it by now",
                submission_id=self.submission_id or "",
            )

    @contextlib.contextmanager
    def breakable(self) -> Iterator[None]:
        """
        Have a kill break off what is inside: a request to the cluster, or the wait before the next one.

        Nothing is to be submitted any more, and an answer that does not come must not use up the few seconds that are
        left to stop the job. Nothing else is to be inside: Airflow's channel must not be left between a question and
        its answer, and loggers swallow what is raised in them.

        :raises RayJobInterruptedError: the process is to end.
        """
        self._breakable = True
        try:
            self._check()
            yield
        finally:
            self._breakable = False

    def _check(self) -> None:
        if self.killed:
            raise RayJobInterruptedError(
                "The process of the task was asked to end", submission_id=self.submission_id or ""
            )

    def accept(self) -> None:
        """Note that the cluster has the job."""
        self.accepted = True

    def kill(self) -> None:
        """
        Note that the process is asked to end, and break off what goes on; called in a signal handler.

        Nothing is asked or logged here, by nobody: the signal may have interrupted Airflow's channel or its logger
        inside its lock.

        :raises RayJobInterruptedError: a request is under way, which this breaks off.
        """
        self.killed = True
        if self._running is not None:
            loop, task = self._running
            loop.call_soon_threadsafe(task.cancel)
        elif self._breakable and not versions.TERMINATED:  # Airflow 2's handler itself raises, what it knows as a kill
            self._check()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine, which a kill cancels."""

        async def cancellable() -> T:
            task = asyncio.ensure_future(work)
            self._running = (asyncio.get_running_loop(), task)
            try:
                if self.killed:
                    task.cancel()
                return await task
            finally:
                self._running = None

        return asyncio.run(cancellable())

    @contextlib.contextmanager
    def guarding(self) -> Iterator[None]:
        """
        Decide what becomes of the job when what is inside ends by a signal or a timeout.

        :raises RayJobStoppedError: the task was ended, and its job stopped.
        :raises RayJobInterruptedError: only this process ends; the job goes on.
        """
        try:
            yield
        except BaseException as e:
            if self.killed or isinstance(e, versions.TERMINATED):
                self._end(e)
            elif not isinstance(e, Exception | TaskDeferred):
                # A timeout, or Ctrl-C. A deferral, and errors of the job or of contact, leave the job as it is.
                self._confirm_stopped()
            raise
        else:
            if self.killed:
                self._end(None)

    def _end(self, error: BaseException | None) -> None:
        """Stop the job or leave it; raise what the task ends with, unless it is the error."""
        broken_off = isinstance(error, asyncio.CancelledError | RayJobInterruptedError)
        # A result, an error of the job's own or a deferral needs nobody to follow the job.
        followed = broken_off or not (error is None or isinstance(error, Exception | TaskDeferred))
        if self._job_is_to_stop(followed=followed):
            self._confirm_stopped()
            if broken_off or error is None:
                raise self._stopped() from None
        elif broken_off:
            what = f"Ray job {self.submission_id} goes on" if self.submission_id else "it had no job yet"
            raise RayJobInterruptedError(
                f"The process of the task was asked to end, and not the task: {what}",
                submission_id=self.submission_id or "",
            ) from None

    def _stopped(self) -> RayJobStoppedError:
        status = self._status or "not seen to stop"
        what = f"Ray job {self.submission_id} is {status}" if self.submission_id else "no Ray job was submitted"
        return RayJobStoppedError(f"The task was ended from outside: {what}", submission_id=self.submission_id or "")

    def _job_is_to_stop(self, *, followed: bool) -> bool:
        """
        Whether the process was asked to end because the task is over, or no other try follows its job.

        :param followed: whether this process still followed it.
        """
        if not self._enabled:
            return False
        job = f"Ray job {self.submission_id}" if self.submission_id else "It has no job"
        reason = self._process.reason(self.submission_id)
        self._cleared = reason is Reason.TASK_CLEARED
        if reason in (Reason.TASK_ENDED, Reason.TASK_CLEARED):
            return True
        if not followed:
            return False
        if reason is Reason.REPLACED:
            self._log.warning("This process was asked to end: another one runs the task by now. %s is left to it", job)
            return False
        why = (
            "Airflow did not answer why"
            if reason is Reason.UNKNOWN
            else "the task itself was not, so a worker shuts down, or Airflow missed its heartbeats"
        )
        if self._process.has_next_try:
            self._log.warning("This process was asked to end (%s). %s; the next try follows", why, job)
            return False
        self._log.warning("This process was asked to end (%s), and no other try will follow: %s", why, job)
        return True

    def _confirm_stopped(self) -> None:
        if not self._enabled:
            return
        if self.submission_id is None:
            try:
                self.stop_earlier()
            except RayJobsError as e:
                self._log.error("The jobs of earlier tries could not be seen to stop: %s", e)
            return
        self._log.warning("The task ends before its job; stopping Ray job %s", self.submission_id)
        try:
            # A submission whose answer was cut off by the kill may take effect a moment later.
            appear = 0.0 if self.accepted else APPEAR_PATIENCE
            status = stop_job_and_wait(self._hook, self.submission_id, patience=KILL_STOP_TIMEOUT, appear=appear)
            self._status = str(status or "not known to the cluster")
            self._log.warning("Ray job %s is %s", self.submission_id, self._status)
            if status is JobStatus.SUCCEEDED and self._cleared:
                # Airflow may not tell the next try from a retry, which would return this success.
                self._log.warning("The task was cleared; deleting the record of Ray job %s", self.submission_id)
                self._hook.delete_job(self.submission_id)
        except RayJobsError as e:
            self._log.error("Ray job %s could not be seen to stop: %s", self.submission_id, e)


def ask_to_stop(hook: RayJobHook, submission_id: str) -> None:
    """
    Send one request to stop a job; short enough for a signal handler.

    Nothing is logged here, by nobody: the signal may have interrupted Airflow's logger inside its lock. The session is
    a new one, for the same reason.
    """
    transport = type(hook.get_conn())(hook.cluster)
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        transport.send_once(Request("POST", f"{job_path(submission_id)}/stop"), timeout=REQUEST_TIMEOUT)
    except RayJobsError:
        pass  # nobody can be told
    finally:
        logging.disable(before)


@contextlib.contextmanager
def refused_for_good() -> Iterator[None]:
    """
    End the task without a retry on what a retry can't mend.

    :raises AirflowFailException: the request, the credentials, the connection or an argument is wrong.
    """
    try:
        yield
    except (RayRequestRefusedError, RayConnectionConfigError, RayJobExistsError, RayPackageTooLargeError) as e:
        raise AirflowFailException(str(e)) from e

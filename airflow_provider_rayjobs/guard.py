"""No Ray job outlives the task that waits for it: what happens on a worker when a task ends before its job."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_rayjobs.exactly_once import stop_and_wait
from airflow_provider_rayjobs.exceptions import (
    RayConnectionConfigError,
    RayJobExistsError,
    RayJobsError,
    RayJobStoppedError,
    RayPackageTooLargeError,
    RayRequestRefusedError,
)
from airflow_provider_rayjobs.protocol import Request, job_path

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from airflow_provider_rayjobs.hooks import RayJobHook

T = TypeVar("T")

#: Seconds that a signal handler may spend on the request that stops the job: Airflow 3 sends SIGKILL after 5 s.
REQUEST_TIMEOUT = 3.0

#: Seconds to wait for STOPPED.
STOP_PATIENCE = 10.0

#: Seconds within which a job may still appear whose submission was cut off.
APPEAR_PATIENCE = 4.0


class JobGuard:
    """
    Holds what a kill needs, while a task waits for its job.

    :param hook: the cluster.
    :param log: the task's logger.
    :param enabled: whether the job is stopped at all.
    """

    def __init__(self, hook: RayJobHook, log: Any, *, enabled: bool) -> None:
        self._hook = hook
        self._log = log
        self._enabled = enabled
        # A session of its own: the signal may interrupt the other one inside a lock.
        self._session = type(hook.get_conn())(hook.cluster)
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._submitting = False
        self._kill_error: RayJobsError | None = None
        #: Stops what earlier tries left running, for a kill that comes before this try has a job.
        self.stop_earlier: Callable[[], object] = lambda: None
        self.killed = False
        self.submission_id: str | None = None
        self.accepted = False  # by the cluster, for certain

    def announce(self, submission_id: str, *, exists: bool = False) -> None:
        """
        Name the job, before it is submitted or followed on.

        :param exists: whether the cluster has the job already, so that a kill is to stop it.
        :raises RayJobStoppedError: the task was killed; nothing is to be submitted or followed.
        """
        self._submitting = False
        if exists or not self.killed:
            self.submission_id, self.accepted = submission_id, exists
        if self.killed:
            raise RayJobStoppedError("The task was killed before it had a job", submission_id=submission_id)

    def preparing(self) -> None:
        """
        Note that local files are packed and uploaded, which a kill breaks off.

        :raises RayJobStoppedError: the task was killed; nothing is to be submitted.
        """
        if self.killed:
            raise RayJobStoppedError("The task was killed before it had a job")
        self._submitting = True

    def submitting(self) -> None:
        """
        Note that the job announced last is being submitted.

        From now until it is accepted a kill breaks off whatever goes on: nothing is to be submitted again, and an
        answer that does not come must not use up the few seconds that are left to stop the job.

        :raises RayJobStoppedError: the task was killed; nothing is to be submitted.
        """
        self._submitting = True
        if self.killed:
            self.announce(str(self.submission_id))

    def accept(self) -> None:
        """Note that the cluster has the job."""
        self.accepted, self._submitting = True, False

    def kill(self) -> None:
        """
        Send one request to stop the job, and interrupt :meth:`run`; short enough for a signal handler.

        Nothing is logged here, by nobody: the signal may have interrupted Airflow's logger inside its lock.

        :raises RayJobStoppedError: the job is being prepared or submitted, which this breaks off.
        """
        if not self._enabled:
            return
        self.killed = True
        if self.submission_id is not None:
            request = Request("POST", f"{job_path(self.submission_id)}/stop")
            before = logging.root.manager.disable
            logging.disable(logging.CRITICAL)
            try:
                self._session.send_once(request, timeout=REQUEST_TIMEOUT)
            except RayJobsError as e:
                self._kill_error = e
            finally:
                logging.disable(before)
        if self._running is not None:
            loop, task = self._running
            loop.call_soon_threadsafe(task.cancel)
        elif self._submitting:
            self._submitting = False
            raise RayJobStoppedError("The task was killed while it submitted", submission_id=self.submission_id or "")

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
        Stop the job, and see it stopped, when what is inside ends by a signal or a timeout.

        :raises RayJobStoppedError: the task was killed.
        """
        try:
            yield
            if not self.killed:
                return
        except BaseException as e:
            self._submitting = False
            # A deferral, and errors of the job or of contact, leave the job as it is.
            if not self.killed and isinstance(e, Exception | TaskDeferred):
                raise
            self._confirm_stopped()
            if not isinstance(e, asyncio.CancelledError):
                raise
        else:
            self._confirm_stopped()
        raise RayJobStoppedError(
            f"Ray job {self.submission_id} was stopped because its task was killed",
            submission_id=str(self.submission_id),
        )

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
        if self._kill_error is not None:
            self._log.warning("The first request to stop it failed: %s", self._kill_error)
        try:
            # A submission whose answer was cut off by the kill may take effect a moment later.
            appear = 0.0 if self.accepted else APPEAR_PATIENCE
            status = stop_and_wait(self._hook, self.submission_id, patience=STOP_PATIENCE, appear=appear)
            self._log.warning("Ray job %s is %s", self.submission_id, status or "not known to the cluster")
        except RayJobsError as e:
            self._log.error("Ray job %s could not be seen to stop: %s", self.submission_id, e)


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

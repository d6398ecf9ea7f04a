"""No Ray job outlives the task that waits for it: what happens on a worker when a task ends before its job."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_rayjobs.exactly_once import stop_and_wait
from airflow_provider_rayjobs.exceptions import (
    RayConnectionConfigError,
    RayJobExistsError,
    RayJobsError,
    RayJobStoppedError,
    RayRequestRefusedError,
)
from airflow_provider_rayjobs.protocol import Request, job_path

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

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
        self.killed = False
        self.submission_id: str | None = None
        self.accepted = False  # by the cluster, for certain

    def announce(self, submission_id: str) -> None:
        """
        Name the job, before it is submitted.

        :raises RayJobStoppedError: the task was killed; nothing is to be submitted.
        """
        if self.killed:
            raise RayJobStoppedError("The task was killed before it submitted", submission_id=submission_id)
        self.submission_id, self.accepted = submission_id, False

    def kill(self) -> None:
        """Send one request to stop the job and interrupt :meth:`run`; short enough for a signal handler."""
        if not self._enabled:
            return
        self.killed = True
        if self.submission_id is not None:
            self._log.warning("Stopping Ray job %s", self.submission_id)
            try:
                request = Request("POST", f"{job_path(self.submission_id)}/stop")
                self._session.send_once(request, timeout=REQUEST_TIMEOUT)
            except RayJobsError as e:
                self._log.error("The request to stop Ray job %s failed: %s", self.submission_id, e)
        if self._running is not None:
            loop, task = self._running
            loop.call_soon_threadsafe(task.cancel)

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
        if not self._enabled or self.submission_id is None:
            return
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
    except (RayRequestRefusedError, RayConnectionConfigError, RayJobExistsError) as e:
        raise AirflowFailException(str(e)) from e

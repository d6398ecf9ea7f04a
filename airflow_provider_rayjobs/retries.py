"""
Retries by cause: a task is tried again if its cluster failed, but not if its program did.

:class:`RayRetryPolicy` is for Airflow 3.3 and later. :func:`retrying_by_cause` does the same on each Airflow, in an
operator's own methods. Both leave the number of retries and the time between them to the task.

DAG files import this module, so it loads nothing but the errors.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.exceptions import (
    RayClusterStartError,
    RayClusterUnreachableError,
    RayConnectionConfigError,
    RayJobExistsError,
    RayJobFailedError,
    RayJobInterruptedError,
    RayJobLostError,
    RayJobsError,
    RayKubernetesError,
    RayKubernetesRefusedError,
    RayPackageTooLargeError,
    RayRequestRefusedError,
    RayTLSError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.providers.common.compat.sdk import Context

__all__ = ["RayRetryPolicy", "retrying_by_cause"]

#: Ray's words for causes that lie with the cluster (``ErrorType`` and ``JobErrorType`` of Ray 2.8 to 2.60). A node's
#: memory and disk are shared, so one job alone is not to blame.
_OF_THE_CLUSTER = frozenset(
    {
        *("NODE_DIED", "LOCAL_RAYLET_DIED", "OUT_OF_MEMORY", "OUT_OF_DISK_ERROR", "ACTOR_UNAVAILABLE"),
        *("OBJECT_LOST", "OBJECT_FETCH_TIMED_OUT", "OBJECT_UNRECONSTRUCTABLE"),
        *("OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED", "OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED"),
        *("JOB_SUPERVISOR_ACTOR_START_TIMEOUT", "JOB_SUPERVISOR_ACTOR_START_FAILURE", "JOB_SUPERVISOR_ACTOR_DIED"),
    }
)

#: Those that lie with the program; and none, which Ray 2.40 and older give for an entrypoint that failed.
_OF_THE_PROGRAM = frozenset(
    {"TASK_EXECUTION_EXCEPTION", "ACTOR_CREATION_FAILED", "JOB_ENTRYPOINT_COMMAND_ERROR", ""},
)

#: Errors of the cluster, and one that leaves the job running for the next try. The first class that fits counts.
_WORTH_A_RETRY: dict[type[Exception], str] = {
    RayJobLostError: "the cluster lost the job",
    RayClusterUnreachableError: "the cluster was unreachable",
    RayJobInterruptedError: "the process that followed the job was asked to end",
    RayClusterStartError: "the cluster for the task did not start, or ended",
    RayKubernetesError: "the Kubernetes API failed",
}

#: Wrong input. The provider's operators and sensors end a task at once for these, with or without a policy.
_REFUSED = (
    *(RayConnectionConfigError, RayRequestRefusedError, RayJobExistsError, RayPackageTooLargeError),
    RayKubernetesRefusedError,
)


def _judged(error: BaseException) -> tuple[bool | None, str]:
    """Return whether an error is worth a retry, and why; None if that is not clear."""
    if isinstance(error, RayJobFailedError):
        return _judged_failure(error)
    if isinstance(error, _REFUSED):
        return False, "the input is wrong"
    if isinstance(error, RayTLSError):  # a wrong certificate, or a proxy that restarts
        return None, ""
    why = next((why for kind, why in _WORTH_A_RETRY.items() if isinstance(error, kind)), "")
    return (True if why else None), why


def _judged_failure(error: RayJobFailedError) -> tuple[bool | None, str]:
    """Judge a job that FAILED: what hints at the cluster counts more than the exit code that came of it."""
    causes = [error.cause, *(tasks.cause for tasks in error.failed_tasks)]
    if hint := next((cause for cause in causes if cause in _OF_THE_CLUSTER), None):
        return True, f"the cluster is the cause: {hint}"
    # Of the whole cluster. So it counts only where Ray does not name the program itself.
    if error.dead_nodes and error.cause != "TASK_EXECUTION_EXCEPTION":
        return True, "a node died while the job ran"
    signals = {-int(number): number.name for number in (signal.SIGKILL, signal.SIGTERM)}
    code = error.exit_code
    sent = None if code is None else signals.get(code if code < 0 else 128 - code)
    if sent == "SIGKILL":
        return True, "the entrypoint was killed (SIGKILL), as for lack of memory"
    if sent or error.cause not in _OF_THE_PROGRAM or (not error.cause and not code):
        return None, ""
    return False, f"the program failed: {error.cause or f'exit code {code}'}"


@contextmanager
def retrying_by_cause() -> Iterator[None]:
    """
    Let the task fail at once if an error in the block is one of its program, or of its input.

    For Airflow before 3.3, which has no ``retry_policy``: it calls a task's callbacks only when it has decided on a
    retry. Example::

        class RayJobOperator(RaySubmitJobOperator):
            def execute(self, context):
                with retrying_by_cause():
                    return super().execute(context)

            def resume_execution(self, next_method, next_kwargs, context):  # after a deferral
                with retrying_by_cause():
                    return super().resume_execution(next_method, next_kwargs, context)

    :raises AirflowFailException: for an error that is not worth a retry, which is its ``__cause__``. Each other error
        passes.
    """
    try:
        yield
    except RayJobsError as e:
        worth, why = _judged(e)
        if worth is not False:
            raise
        from airflow.providers.common.compat.sdk import AirflowFailException

        raise AirflowFailException(f"{str(e).partition(chr(10))[0]} (not retried: {why})") from e


try:
    from airflow.sdk import RetryDecision, RetryPolicy
except ImportError:
    _IS_THERE = False
else:
    _IS_THERE = True

if TYPE_CHECKING or _IS_THERE:

    class RayRetryPolicy(RetryPolicy):
        """
        A ``retry_policy`` for tasks that submit Ray jobs (Airflow 3.3 and later).

        - A cluster that was lost or unreachable, a node that died, or memory that ran out: the task is tried again.
        - A program that failed: the task fails at once.
        - All else, such as a limit that passed, a job that somebody stopped, or an error of other code: as without a
          policy.

        The worker asks it, also after a deferral. The task's ``retries`` and ``retry_delay`` count as always. A lost
        worker raises no error, so Airflow tries the task again without asking a policy.

        Example::

            RaySubmitJobOperator(
                task_id="train", entrypoint="python train.py", retries=3, retry_policy=RayRetryPolicy()
            )
        """

        def evaluate(
            self,
            exception: BaseException,
            try_number: int,
            max_tries: int,
            context: Context | None = None,
        ) -> RetryDecision:
            """
            Decide by the error's class, and by the facts that a :class:`RayJobFailedError` has.

            :param exception: the error that ended the try.
            :param try_number: not used.
            :param max_tries: not used.
            :param context: not used.
            :return: a retry or a failure, with the reason, which Airflow logs; or Airflow's default.
            """
            worth, why = _judged(exception)
            if worth is None:
                return RetryDecision.default()
            return RetryDecision.retry(reason=why) if worth else RetryDecision.fail(reason=why)

        def serialize(self) -> dict[str, Any]:
            """Return an empty dict: it has no settings."""
            return {}

        @classmethod
        def deserialize(cls, data: dict[str, Any]) -> RayRetryPolicy:
            """Return a policy; ``data`` is what :meth:`serialize` returned."""
            return cls()


if not TYPE_CHECKING and not _IS_THERE:

    def __getattr__(name: str) -> Any:
        if name == "RayRetryPolicy":
            from airflow import __version__

            raise ImportError(
                "RayRetryPolicy needs Airflow 3.3 or later, where tasks have a retry_policy. This is Airflow "
                f"{__version__}: use retrying_by_cause of this module, as docs/retries.md shows"
            )
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

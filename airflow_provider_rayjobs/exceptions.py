"""
Errors of the provider.

::

    RayJobsError                      base of all errors below; a RuntimeError
    ├── RayConnectionConfigError      the Airflow connection has a wrong value; also a ValueError
    ├── RayPackageError               local files of a runtime_env can't be packed; also a ValueError
    │   └── RayPackageTooLargeError   their package is larger than the cluster accepts
    ├── RayClusterUnreachableError    no usable answer from the cluster; also a ConnectionError
    │   └── RayTLSError               the TLS handshake failed; not retried
    ├── RayAPIError                   the cluster answered with an error
    │   ├── RayRequestRefusedError    400: the request is wrong; retrying can't help
    │   │   └── RayAuthError          401, 403: the credentials are missing or wrong
    │   ├── RayJobNotFoundError       404: the cluster does not know the job
    │   ├── RayJobExistsError         the submission id belongs to another job
    │   └── RayProtocolError          the answer is not from the Jobs API (a web page, truncated JSON)
    ├── RayKubernetesError            a cluster for a task: the Kubernetes API gave no usable answer, or an error
    │   ├── RayKubernetesRefusedError the request or the cluster's spec is wrong, or a right is missing; not retried
    │   └── RayClusterStartError      the cluster did not become ready, or ended; also a TimeoutError
    ├── RayServeDeployError           applications of Ray Serve did not become healthy
    │   └── RayServeTimeoutError      they did not do so in time; also a TimeoutError
    └── RayJobError                   a job did not succeed, or its outcome is unknown
        ├── RayJobFailedError         it ended FAILED
        ├── RayJobStoppedError        it ended STOPPED
        ├── RayJobInterruptedError    its task's process was asked to end; the job goes on, or was not submitted
        ├── RayJobLostError           the cluster forgot it
        ├── RayJobResultError         it ended SUCCEEDED, but its function's value is missing or damaged
        └── RayJobTimeoutError        it ran or waited too long; also a TimeoutError

:class:`RayClusterUnreachableError` never means that a job failed.
No message contains a token, a cookie, a header's value or the value of an environment variable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_rayjobs.jobs import FailedTasks

__all__ = [
    "RayAPIError",
    "RayAuthError",
    "RayClusterStartError",
    "RayClusterUnreachableError",
    "RayConnectionConfigError",
    "RayJobError",
    "RayJobExistsError",
    "RayJobFailedError",
    "RayJobInterruptedError",
    "RayJobLostError",
    "RayJobNotFoundError",
    "RayJobResultError",
    "RayJobStoppedError",
    "RayJobTimeoutError",
    "RayJobsError",
    "RayKubernetesError",
    "RayKubernetesRefusedError",
    "RayPackageError",
    "RayPackageTooLargeError",
    "RayProtocolError",
    "RayRequestRefusedError",
    "RayServeDeployError",
    "RayServeTimeoutError",
    "RayTLSError",
]


class RayJobsError(RuntimeError):
    """
    Base of all errors of this provider.

    The facts of an error are attributes of its class. Example::

        try:
            RayJobHook().stop_job("nightly-report")
        except RayJobNotFoundError:
            pass  # it was deleted
        except RayClusterUnreachableError as e:
            print(f"try again later: {e.address}")
    """


class RayConnectionConfigError(RayJobsError, ValueError):
    """
    The Airflow connection has the wrong type or a wrong value.

    :param conn_id: id of the connection.
    :param field: the wrong field or key of the extra; empty if the connection as a whole is wrong.
    :param problem: what is wrong, and what to write instead.
    """

    def __init__(self, conn_id: str, field: str, problem: str) -> None:
        of_a_field = f"Connection {conn_id!r}, field {field!r}: {problem}"
        super().__init__(of_a_field if field else f"Connection {conn_id!r} {problem}")
        self.conn_id = conn_id
        self.field = field
        self.problem = problem

    def __reduce__(self) -> tuple[type[RayConnectionConfigError], tuple[str, str, str]]:
        """Pickle the arguments: the constructor can't be called with the message."""
        return type(self), (self.conn_id, self.field, self.problem)


class RayPackageError(RayJobsError, ValueError):
    """Local files of a ``runtime_env`` can't be packed or uploaded; nothing was submitted."""


class RayPackageTooLargeError(RayPackageError):
    """The package of local files is larger than the connection's ``max_upload_size``, or than the cluster accepts."""


class RayClusterUnreachableError(RayJobsError, ConnectionError):
    """
    The cluster gave no usable answer: it was refused, timed out or cut off, or a proxy answered instead.

    :param message: the full message, with the cluster's address.
    :param maybe_sent: False if it is certain that the request did not leave this machine.
    :param address: the cluster's address; empty if the error is not about one request.
    """

    def __init__(self, message: str, *, maybe_sent: bool = True, address: str = "") -> None:
        super().__init__(message)
        self.maybe_sent = maybe_sent
        self.address = address


class RayTLSError(RayClusterUnreachableError):
    """The TLS handshake with the cluster failed; it is not retried. Check certificates and ``verify``."""


class RayAPIError(RayJobsError):
    """
    The cluster answered with an error.

    :param message: the full message, with the cluster's address.
    :param status: HTTP status of the answer.
    :param address: the cluster's address; empty if the error is not about one request.
    :param reason: what the cluster itself said, without secrets; empty if it said nothing.
    """

    def __init__(self, message: str, *, status: int | None = None, address: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.address = address
        self.reason = reason


class RayRequestRefusedError(RayAPIError):
    """The cluster refused the request as wrong (HTTP 400); retrying can't help."""


class RayAuthError(RayRequestRefusedError):
    """The cluster, or a proxy in front of it, requires credentials, or refused them (HTTP 401 or 403)."""


class RayJobNotFoundError(RayAPIError):
    """The cluster knows no job with this submission id (HTTP 404)."""


class RayJobExistsError(RayAPIError):
    """The submission id belongs to another job."""


class RayProtocolError(RayAPIError):
    """The answer is not from the Ray Jobs API: the address is that of another server, or the answer is damaged."""


class RayKubernetesError(RayJobsError):
    """
    The Kubernetes API, which makes a cluster for a task, gave no usable answer, or an error.

    :param message: the full message, with the connection and the object.
    :param status: HTTP status of the answer; None if there was none.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RayKubernetesRefusedError(RayKubernetesError):
    """Kubernetes or KubeRay refused a cluster for good: its spec is wrong, a right is missing, its name is taken."""


class RayClusterStartError(RayKubernetesError, TimeoutError):
    """A cluster for a task did not become ready within ``start_timeout``, or KubeRay ended it."""


class RayServeDeployError(RayJobsError):
    """
    Applications of Ray Serve did not become healthy after a deployment, or somebody else changed them meanwhile.

    :param message: the full message.
    :param statuses: the last known status of each application, by name.
    :param rolled_back: whether what was there before was put back; it need not be healthy yet.
    """

    def __init__(self, message: str, *, statuses: dict[str, str] | None = None, rolled_back: bool = False) -> None:
        super().__init__(message)
        self.statuses = statuses or {}
        self.rolled_back = rolled_back


class RayServeTimeoutError(RayServeDeployError, TimeoutError):
    """Applications of Ray Serve did not become healthy within ``deploy_timeout`` or ``execution_timeout``."""


class RayJobError(RayJobsError):
    """
    A job did not succeed, or its outcome is unknown.

    :param message: the full message.
    :param submission_id: the job's submission id.
    """

    def __init__(self, message: str, *, submission_id: str = "") -> None:
        super().__init__(message)
        self.submission_id = submission_id


class RayJobFailedError(RayJobError):
    """
    The job ended FAILED.

    :param message: the full message.
    :param submission_id: the job's submission id.
    :param cause: Ray's word for the cause, such as ``OUT_OF_MEMORY``, ``NODE_DIED``, ``TASK_EXECUTION_EXCEPTION`` or
        ``RUNTIME_ENV_SETUP_FAILURE``; see :class:`~airflow_provider_rayjobs.jobs.JobFailure`. Empty if it is not known.
    :param exit_code: exit code of the job's entrypoint; negative for a signal. None if it is not known.
    :param failed_tasks: the failed Ray tasks by cause, the most frequent first.
    :param log_tail: the last lines of the job's log.
    :param dead_nodes: the nodes that died while the job ran, each with what Ray says.
    """

    def __init__(
        self,
        message: str,
        *,
        submission_id: str = "",
        cause: str = "",
        exit_code: int | None = None,
        failed_tasks: tuple[FailedTasks, ...] = (),
        log_tail: tuple[str, ...] = (),
        dead_nodes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, submission_id=submission_id)
        self.cause = cause
        self.exit_code = exit_code
        self.failed_tasks = failed_tasks
        self.log_tail = log_tail
        self.dead_nodes = dead_nodes


class RayJobStoppedError(RayJobError):
    """The job ended STOPPED."""


class RayJobInterruptedError(RayJobError):
    """The process that followed the job was asked to end, not its task: the job runs on, or was not submitted."""


class RayJobLostError(RayJobError):
    """
    The cluster no longer knows the job: its head restarted, or somebody deleted the job.

    :param message: the full message.
    :param submission_id: the job's submission id.
    :param may_run: whether the job's process may still run: on a worker node it outlives the head. False if the job was
        deleted, since Ray deletes only jobs that have ended.
    :param node_id: Ray's id of the node on which the process was started, from the last poll; None if no poll returned
        it.
    :param node_ip: the IP address of this node; None if unknown.
    """

    def __init__(
        self,
        message: str,
        *,
        submission_id: str = "",
        may_run: bool = True,
        node_id: str | None = None,
        node_ip: str | None = None,
    ) -> None:
        super().__init__(message, submission_id=submission_id)
        self.may_run = may_run
        self.node_id = node_id
        self.node_ip = node_ip


class RayJobResultError(RayJobError):
    """The job ended SUCCEEDED, but its result, or the value of its function, is missing or damaged."""


class RayJobTimeoutError(RayJobError, TimeoutError):
    """
    The job was stopped because it passed ``job_timeout``, ``pending_timeout`` or ``execution_timeout``.

    :param message: the full message.
    :param submission_id: the job's submission id.
    :param may_run: whether it may still run: it was asked to stop, and its end was not seen.
    """

    def __init__(self, message: str, *, submission_id: str = "", may_run: bool = True) -> None:
        super().__init__(message, submission_id=submission_id)
        self.may_run = may_run

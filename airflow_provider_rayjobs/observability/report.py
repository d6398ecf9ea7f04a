"""What one try of a task tells of its job: metrics and spans."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException, TaskDeferred

from airflow_provider_rayjobs.following.events import Outcome
from airflow_provider_rayjobs.observability import metrics
from airflow_provider_rayjobs.observability.traces import Spans, task_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_rayjobs.client.counts import Counts
    from airflow_provider_rayjobs.client.requests_transport import RequestsTransport
    from airflow_provider_rayjobs.following.events import JobEvent
    from airflow_provider_rayjobs.observability.metrics import Metric

#: Ends of a try that are no failures.
_NO_FAILURES = (TaskDeferred, AirflowSkipException, GeneratorExit)


@contextmanager
def telling_requests(transport: RequestsTransport) -> Iterator[None]:
    """Tell, after the block, how many requests a transport has sent since this was last told."""
    try:
        yield
    finally:
        conn_id = transport.cluster.conn_id
        metrics.tell(metrics.HEAD_REQUESTS, transport.counts.take().requests, {"conn_id": conn_id})


class TryReport:
    """
    Tells others of the job of one try.

    :param ti: the task instance; None if a caller has executed the operator without one.
    :param conn_id: the connection's id.
    :param counts: counts what is sent to the cluster; None if nothing was sent yet.
    """

    def __init__(self, ti: Any, conn_id: str, counts: Counts | None) -> None:
        self._ti = ti
        self._conn_id = conn_id
        self._counts = counts

    def tell(self, metric: Metric, value: float = 1, **tags: str) -> None:
        """Send a metric of this task."""
        task = {"conn_id": self._conn_id, **{name: getattr(self._ti, name, "") for name in ("dag_id", "task_id")}}
        metrics.tell(metric, value, {**task, **tags})

    def reattached(self) -> None:
        """Tell that the try follows the job of an earlier one."""
        self.tell(metrics.REATTACHED)

    def failed(self, error: BaseException) -> None:
        """Tell why the try ends with an error, unless it is only deferred or skipped."""
        if not isinstance(error, _NO_FAILURES):
            self.tell(metrics.FAILED, cause=metrics.cause_of(error))

    def sent(self) -> None:
        """Tell what was sent to the cluster since the last time."""
        if self._counts is not None:
            counts = self._counts.take()
            self.tell(metrics.UPLOAD_BYTES, counts.upload_bytes)
            metrics.tell(metrics.HEAD_REQUESTS, counts.requests, {"conn_id": self._conn_id})

    @contextmanager
    def submitting(self, ray_version: str) -> Iterator[Callable[[str], None]]:
        """
        Tell of the submission in the block.

        :param ray_version: of the cluster.
        :return: a function that the block calls with the submission id, when the cluster has the job.
        """
        adopted_before = self._counts.adopted if self._counts else 0
        with self._spans(ray_version).around("ray_job.submit") as attributes:

            def accepted(submission_id: str) -> None:
                adopted = self._counts is not None and self._counts.adopted > adopted_before
                attributes.update(submission_id=submission_id, status="adopted" if adopted else "submitted")
                self.tell(metrics.ADOPTED if adopted else metrics.SUBMITTED)

            yield accepted

    def ended(self, event: JobEvent, ray_version: str) -> None:
        """
        Tell how long a job was PENDING and ran.

        :param event: how following it ended.
        :param ray_version: of the cluster; empty in a process that has resumed a deferral.
        """
        submitted, left, finished = event.submitted_at, event.left_pending_at, event.finished_at
        if submitted is None:  # this process did not follow it
            return
        last = event.ended_at if finished is None else finished
        started = None if left is None else min(max(left, submitted), last)
        if started is not None:
            self.tell(metrics.PENDING_TIME, started - submitted)
            if finished is not None and finished > started:
                self.tell(metrics.RUN_TIME, finished - started)
        spans = self._spans(ray_version, event.submission_id)
        status, cause = str(event.outcome), ""
        if event.outcome is Outcome.FAILED:
            cause = metrics.cause_in_ray(event.failure.cause if event.failure else event.error_type or "")
        if started is not None:
            spans.past("ray_job.pending", submitted, started, status=status)
        spans.past(
            "ray_job.run",
            submitted if started is None else started,
            last,
            error="" if event.outcome is Outcome.SUCCEEDED else cause or status,
            status=status,
            cause=cause,
            includes_pending=started is None,
        )
        if finished is not None:
            spans.past("ray_job.drain", finished, event.ended_at, status=status)

    def _spans(self, ray_version: str, submission_id: str = "") -> Spans:
        context = task_trace(self._ti)
        if context is None:
            return Spans(None, {})
        return Spans(
            context,
            {
                "ray_job.submission_id": submission_id,
                "ray_job.conn_id": self._conn_id,
                "ray_job.try_number": getattr(self._ti, "try_number", 0),
                "ray_job.ray_version": ray_version,
            },
        )

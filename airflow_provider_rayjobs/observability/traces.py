"""
The spans of a job, below the span of its task, and the task's trace context for the job.

Airflow 3.2 and later open a span around each task, if ``[traces] otel_on`` is set. Nothing here loads OpenTelemetry: if
nobody else has, nobody traces. No error of tracing fails a task.
"""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger(__name__)

#: The environment variables in which a process gets its trace context (OpenTelemetry's "Environment Variables as
#: Context Propagation Carriers"), by the names of the W3C headers.
VARIABLES = {"traceparent": "TRACEPARENT", "tracestate": "TRACESTATE"}

#: The names of the spans, and what each lasts from and to.
SPANS = {
    "ray_job.submit": "from the upload of local files until the cluster has accepted the job",
    "ray_job.pending": "from the submission until the job was seen to have left PENDING",
    "ray_job.run": "from then until the job's end",
    "ray_job.drain": "from the job's end until the task log had its last lines",
}

#: The attributes of the spans.
ATTRIBUTES = {
    "ray_job.submission_id": "the job's submission id",
    "ray_job.conn_id": "the connection's id",
    "ray_job.try_number": "the number of the try: all tries of a task have the same span of Airflow",
    "ray_job.ray_version": "the cluster's Ray version; only on `ray_job.submit` if the task is deferred",
    "ray_job.status": "what became of the job, such as `succeeded` or `lost`; of `submit`: `submitted` or `adopted`",
    "ray_job.cause": "of `run`: the cause of a failure, as in the tag `cause` of the metric `ray_jobs.failed`",
    "ray_job.includes_pending": "of `run`: true if nobody saw when the job left PENDING; there is no `pending` then",
}


def _tracing() -> Any:
    """Return OpenTelemetry's API for traces; None if this process does not trace."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    return trace


def task_trace(ti: Any) -> Any:
    """
    Return the context of a task's span; None if the task has none, or this process does not trace.

    A task that was deferred runs in several processes, each with a span of its own. Airflow's span of the whole task
    is in ``context_carrier``, which each of them gets.

    :param ti: the task instance.
    """
    try:
        if (trace := _tracing()) is None:
            return None
        current = trace.get_current_span()
        if not current.get_span_context().is_valid:
            return None
        if carrier := getattr(ti, "context_carrier", None):
            whole = _propagator().extract(carrier)
            if trace.get_current_span(whole).get_span_context().trace_id == current.get_span_context().trace_id:
                return whole
        return trace.set_span_in_context(current)
    except Exception as e:  # noqa: BLE001 - of any tracer
        log.debug("The task's trace can't be read: %r", e)
        return None


def _propagator() -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()


def environment_of(ti: Any) -> dict[str, str]:
    """
    Return the environment variables that name a task's span as the parent of what a job does.

    :param ti: the task instance.
    :return: empty if the task has no span.
    """
    if (context := task_trace(ti)) is None:
        return {}
    carrier: dict[str, str] = {}
    try:
        _propagator().inject(carrier, context=context)
    except Exception as e:  # noqa: BLE001 - of any tracer
        log.debug("The task's trace can't be passed on: %r", e)
        return {}
    return {VARIABLES[name]: value for name, value in carrier.items() if name in VARIABLES}


def with_trace(runtime_env: Mapping[str, Any] | None, variables: Mapping[str, str]) -> dict[str, Any]:
    """
    Return a ``runtime_env`` with variables of the trace context, unless it names one of them already.

    :param variables: of :func:`environment_of`.
    """
    env_vars = (runtime_env or {}).get("env_vars") or {}
    if any(name in env_vars for name in VARIABLES.values()):
        return dict(runtime_env or {})
    return {**(runtime_env or {}), "env_vars": {**env_vars, **variables}}


class Spans:
    """
    Makes the spans of one job.

    :param context: of the task's span, from :func:`task_trace`; None: nothing is made.
    :param attributes: of all spans; those that are empty are left out.
    """

    def __init__(self, context: Any, attributes: Mapping[str, str | int]) -> None:
        self._context = context
        self._attributes = {name: value for name, value in attributes.items() if value}

    def past(self, name: str, began: float, ended: float, *, error: str = "", **attributes: str | bool) -> None:
        """
        Make a span of something that is over.

        :param name: one of :data:`SPANS`.
        :param began: Unix seconds.
        :param ended: Unix seconds.
        :param error: if it failed, why, in a word.
        :param attributes: more attributes, without their prefix.
        """
        if self._context is None:
            return
        try:
            span = self._start(name, _nanoseconds(began))
            self._set(span, attributes)
            if error:
                self._fail(span, error)
            span.end(_nanoseconds(max(began, ended)))
        except Exception as e:  # noqa: BLE001 - of any tracer
            log.debug("The span %s could not be made: %r", name, e)

    @contextmanager
    def around(self, name: str) -> Iterator[dict[str, str | bool]]:
        """
        Make a span of the block; what the block does belongs to it.

        :param name: one of :data:`SPANS`.
        :return: a dict, in which the block can put attributes without their prefix.
        """
        attributes: dict[str, str | bool] = {}
        span = token = None
        if self._context is not None:
            try:
                span = self._start(name)
                token = _attach(_tracing().set_span_in_context(span))
            except Exception as e:  # noqa: BLE001 - of any tracer
                log.debug("The span %s could not be begun: %r", name, e)
        try:
            yield attributes
        except BaseException as e:
            self._finish(span, token, attributes, type(e).__name__)
            raise
        self._finish(span, token, attributes, "")

    def _finish(self, span: Any, token: Any, attributes: Mapping[str, str | bool], error: str) -> None:
        if span is None:
            return
        try:
            _detach(token)
            self._set(span, attributes)
            if error:
                self._fail(span, error)
            span.end()
        except Exception as e:  # noqa: BLE001 - of any tracer
            log.debug("A span could not be ended: %r", e)

    def _start(self, name: str, began: int | None = None) -> Any:
        tracer = _tracing().get_tracer("airflow_provider_rayjobs")
        return tracer.start_span(name, context=self._context, start_time=began, attributes=self._attributes)

    @staticmethod
    def _set(span: Any, attributes: Mapping[str, str | bool]) -> None:
        span.set_attributes({f"ray_job.{name}": value for name, value in attributes.items() if value})

    @staticmethod
    def _fail(span: Any, error: str) -> None:
        """Mark a span as failed. Messages may hold what a job printed, so only a word is given."""
        from opentelemetry.trace import Status, StatusCode

        span.set_status(Status(StatusCode.ERROR, error))


def _attach(context: Any) -> Any:
    from opentelemetry import context as api

    return api.attach(context)


def _detach(token: Any) -> None:
    from opentelemetry import context as api

    if token is not None:
        api.detach(token)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)

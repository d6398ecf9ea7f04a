"""Spans below the span of the task, and the trace context that a job gets."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from airflow_provider_rayjobs.observability import traces
from airflow_provider_rayjobs.observability.traces import (
    ATTRIBUTES,
    SPANS,
    Spans,
    environment_of,
    task_trace,
    with_trace,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

CARRIER = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01", "tracestate": "vendor=1"}
UNTRACED = SimpleNamespace()
TI = SimpleNamespace(context_carrier=CARRIER)


def use(monkeypatch: pytest.MonkeyPatch, provider: Any) -> None:
    """OpenTelemetry takes a provider only once in a process."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What is traced, in a process that traces."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    use(monkeypatch, provider)
    yield kept
    provider.shutdown()


def worker_span(carrier: dict[str, str] | None = None) -> Any:
    """Open the span that Airflow opens in each process of a task."""
    parent = traces._propagator().extract(CARRIER if carrier is None else carrier)
    return trace.get_tracer("airflow").start_as_current_span("worker.t", context=parent)


def test_without_tracing_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, None)
    with worker_span():  # Airflow opens one even then, with the carrier's ids
        assert task_trace(TI) is None
        assert environment_of(TI) == {}


def test_outside_of_a_span_there_is_nothing(exporter: InMemorySpanExporter) -> None:
    assert task_trace(TI) is None
    Spans(None, {}).past("ray_job.run", 1.0, 2.0)
    with Spans(None, {}).around("ray_job.submit") as attributes:
        attributes["status"] = "submitted"
    assert not exporter.get_finished_spans()


def test_nothing_loads_opentelemetry() -> None:
    code = (
        "import sys; from airflow_provider_rayjobs.observability.traces import environment_of;"
        "print(environment_of(1));"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "{}\n"


def test_the_job_gets_the_span_of_the_whole_task(exporter: InMemorySpanExporter) -> None:
    with worker_span():
        assert environment_of(TI) == {"TRACEPARENT": CARRIER["traceparent"], "TRACESTATE": "vendor=1"}


def test_without_a_carrier_it_gets_the_current_span(exporter: InMemorySpanExporter) -> None:
    with worker_span() as span:
        expected = f"00-{'ab' * 16}-{span.get_span_context().span_id:016x}-01"
        assert environment_of(UNTRACED)["TRACEPARENT"] == expected
        other = SimpleNamespace(context_carrier={"traceparent": f"00-{'ef' * 16}-{'cd' * 8}-01"})
        assert environment_of(other)["TRACEPARENT"] == expected, "the carrier of another trace"


def test_a_task_that_is_not_sampled_tells_its_job_so(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, TracerProvider(sampler=ALWAYS_OFF))
    ti = SimpleNamespace(context_carrier={"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-00"})
    with worker_span(ti.context_carrier):
        assert environment_of(ti) == {"TRACEPARENT": f"00-{'ab' * 16}-{'cd' * 8}-00"}


@pytest.mark.parametrize(
    "given", [{}, {"env_vars": None}, {"env_vars": {"A": "1"}, "pip": ["torch"]}], ids=["none", "null", "some"]
)
def test_the_variables_are_added(given: dict[str, Any]) -> None:
    before = repr(given)
    merged = with_trace(given, {"TRACEPARENT": "x"})
    assert merged == {**given, "env_vars": {**(given.get("env_vars") or {}), "TRACEPARENT": "x"}}
    assert repr(given) == before
    assert with_trace(None, {"TRACEPARENT": "x"}) == {"env_vars": {"TRACEPARENT": "x"}}


@pytest.mark.parametrize("name", ["TRACEPARENT", "TRACESTATE"])
def test_what_the_author_says_takes_precedence(name: str) -> None:
    given = {"env_vars": {name: "mine"}}
    assert with_trace(given, {"TRACEPARENT": "x", "TRACESTATE": "y"}) == given


def test_spans_are_below_the_task(exporter: InMemorySpanExporter) -> None:
    with worker_span():
        spans = Spans(task_trace(TI), {"ray_job.conn_id": "ray_x", "ray_job.ray_version": ""})
        with spans.around("ray_job.submit") as attributes:
            trace.get_tracer("http").start_span("POST").end()
            attributes.update(submission_id="a", status="submitted")
        spans.past("ray_job.pending", 100.0, 90.0, status="failed")
        spans.past("ray_job.run", 100.0, 102.5, error="oom", status="failed", cause="", includes_pending=True)
    request, submit, pending, run, _ = exporter.get_finished_spans()
    for span in (submit, pending, run):
        assert span.name in SPANS
        assert (span.context.trace_id, span.parent.span_id) == (int("ab" * 16, 16), int("cd" * 8, 16))
        assert span.attributes.keys() <= ATTRIBUTES.keys()
        assert span.attributes["ray_job.conn_id"] == "ray_x"
    assert request.parent.span_id == submit.context.span_id
    assert submit.attributes["ray_job.submission_id"] == "a"
    assert (pending.start_time, pending.end_time) == (100 * 10**9, 100 * 10**9), "clocks that differ"
    assert (run.start_time, run.end_time) == (100 * 10**9, 102_500_000_000)
    assert (run.status.status_code.name, run.status.description) == ("ERROR", "oom")
    assert run.attributes["ray_job.includes_pending"] is True
    assert "ray_job.cause" not in run.attributes


def test_a_submission_that_fails_is_marked_without_its_message(exporter: InMemorySpanExporter) -> None:
    with worker_span():
        with (
            pytest.raises(ValueError, match="secret"),
            Spans(task_trace(TI), {}).around("ray_job.submit"),
        ):
            raise ValueError("secret")
        assert trace.get_current_span().name == "worker.t"
    submit = exporter.get_finished_spans()[0]
    assert (submit.status.status_code.name, submit.status.description) == ("ERROR", "ValueError")
    assert not submit.events


def test_a_tracer_that_fails_fails_nothing(monkeypatch: pytest.MonkeyPatch, exporter: InMemorySpanExporter) -> None:
    with worker_span():
        context = task_trace(TI)
        done = []
        for broken in ("_start", "_set"):
            with monkeypatch.context() as patch:
                patch.setattr(Spans, broken, lambda *_: 1 / 0)
                Spans(context, {}).past("ray_job.run", 1.0, 2.0)
                with Spans(context, {}).around("ray_job.submit"):
                    done.append(broken)
        assert done == ["_start", "_set"]
        assert trace.get_current_span().name == "worker.t"
        monkeypatch.setattr(traces, "_propagator", lambda: 1 / 0)
        assert task_trace(TI) is None

"""The spans of a job are below the span of its task, and the job itself gets the same trace."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.support.airflow_processes import airflow_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.observability.otlp import Collector, Span
    from tests.support.airflow_env import AirflowEnv
    from tests.support.ray_head import RayHead

pytestmark = pytest.mark.timeout(600)

HAS_TASK_SPANS = airflow_version() >= (3, 2)

COMMAND = 'echo "trace: <$TRACEPARENT>"; sleep 3; exit {}'


def named(name: str, trace_id: str) -> Callable[[Span], bool]:
    return lambda span: span.name == name and span.trace_id == trace_id


def trace_of_job(airflow: AirflowEnv, dag_id: str, run_id: str, try_number: int = 1) -> list[str]:
    """Return what a job printed as its trace: version, trace id, parent's span id and flags."""
    log = airflow.task_log(dag_id, run_id, "job", try_number)
    (printed,) = set(re.findall(r"trace: <([^$>]*)>", log))  # an error repeats the last line
    return printed.split("-")


@pytest.mark.skipif(not HAS_TASK_SPANS, reason="this Airflow makes no spans in tasks")
@pytest.mark.parametrize("dag_id", ["observed_sync", "observed_deferred"])
def test_the_spans_of_a_job(airflow: AirflowEnv, collector: Collector, ray_head: RayHead, dag_id: str) -> None:
    airflow.trigger(dag_id, "traced", {"command": COMMAND.format(0)})
    airflow.wait_task(dag_id, "traced", "job", "success", timeout=180)
    version, trace_id, parent_id, flags = trace_of_job(airflow, dag_id, "traced")
    assert (version, flags) == ("00", "01")

    (task,) = collector.wait(named("task_run.job", trace_id))
    assert task.span_id == parent_id
    assert task.attributes["airflow.dag_id"] == dag_id
    collector.wait(named("ray_job.drain", trace_id))
    spans = collector.spans(lambda span: span.trace_id == trace_id and span.name.startswith("ray_job."))
    assert [span.name for span in spans] == [f"ray_job.{name}" for name in ("submit", "pending", "run", "drain")]
    for span in spans:
        assert span.parent_id == task.span_id
        assert task.began <= span.began <= span.ended <= task.ended
        assert span.attributes["ray_job.conn_id"] == "ray_default"
        assert ray_head.wait_job(span.attributes["ray_job.submission_id"])["status"] == "SUCCEEDED"
    submit, pending, run, drain = spans
    assert submit.attributes["ray_job.ray_version"].startswith(".".join(map(str, ray_head.version[:2])))
    assert (submit.attributes["ray_job.status"], run.attributes["ray_job.status"]) == ("submitted", "succeeded")
    assert pending.ended == run.began
    assert run.ended == drain.began
    assert 2.5 < run.ended - pending.began < 60


@pytest.mark.skipif(not HAS_TASK_SPANS, reason="this Airflow makes no spans in tasks")
def test_a_job_that_fails(airflow: AirflowEnv, collector: Collector) -> None:
    airflow.trigger("observed_sync", "failing", {"command": COMMAND.format(3)})
    airflow.wait_task("observed_sync", "failing", "job", "failed", try_number=2, timeout=180)
    first = trace_of_job(airflow, "observed_sync", "failing")
    second = trace_of_job(airflow, "observed_sync", "failing", 2)
    assert first == second, "Airflow gives all tries the same span"
    runs = collector.wait(named("ray_job.run", first[1]), number=2)
    assert [run.parent_id for run in runs] == [first[2]] * 2
    assert [run.attributes["ray_job.try_number"] for run in runs] == [1, 2]
    for run in runs:
        assert run.status == 2
        assert run.attributes["ray_job.status"] == "failed"
        assert run.attributes["ray_job.cause"] == "job_entrypoint_command_error"


@pytest.mark.skipif(HAS_TASK_SPANS, reason="this Airflow makes spans in tasks")
def test_without_spans_of_tasks_the_job_gets_none(airflow: AirflowEnv, collector: Collector) -> None:
    airflow.trigger("observed_sync", "traced", {"command": COMMAND.format(0)})
    airflow.wait_task("observed_sync", "traced", "job", "success", timeout=180)
    assert trace_of_job(airflow, "observed_sync", "traced") == [""]
    assert "The job gets no trace context" in airflow.task_log("observed_sync", "traced", "job")
    assert not collector.spans(lambda span: span.name.startswith("ray_job."))

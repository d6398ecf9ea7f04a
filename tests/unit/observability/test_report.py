"""What a try tells of its job: the metrics and spans of a real operator and trigger, on a scripted cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_provider_rayjobs.client.counts import Counts
from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.jobs import JobFailure
from airflow_provider_rayjobs.observability import report as report_module
from airflow_provider_rayjobs.observability import traces
from airflow_provider_rayjobs.observability.report import TryReport
from airflow_provider_rayjobs.operators import RaySubmitJobOperator

if TYPE_CHECKING:
    from tests.support.stats import KeptStats

TI = SimpleNamespace(dag_id="d", task_id="t", try_number=2)
TAGS = {"conn_id": "ray_x", "dag_id": "d", "task_id": "t"}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, float, dict[str, Any]]]:
    """The spans that are made, in a task that is traced."""
    made: list[tuple[str, float, float, dict[str, Any]]] = []

    def past(self: traces.Spans, name: str, began: float, ended: float, **attributes: Any) -> None:
        made.append((name.removeprefix("ray_job."), began, ended, {**self._attributes, **attributes}))

    monkeypatch.setattr(traces.Spans, "past", past)
    monkeypatch.setattr(report_module, "task_trace", lambda ti: object())
    return made


def event(outcome: Outcome = Outcome.SUCCEEDED, **fields: Any) -> JobEvent:
    times = {"submitted_at": 100.0, "left_pending_at": 103.0, "finished_at": 110.0, "ended_at": 112.0}
    return JobEvent("a", "http://head", outcome, **{**times, **fields})


def test_how_long_a_job_took(stats: KeptStats, spans: list[Any]) -> None:
    TryReport(TI, "ray_x", None).ended(event(), "2.60.0")
    assert stats.sent == [
        ("timer", "ray_jobs.pending_time", 3.0, TAGS),
        ("timer", "ray_jobs.run_time", 7.0, TAGS),
    ]
    assert [span[:3] for span in spans] == [("pending", 100, 103), ("run", 103, 110), ("drain", 110, 112)]
    for *_, attributes in spans:
        assert attributes["ray_job.submission_id"] == "a"
        assert attributes["ray_job.ray_version"] == "2.60.0"
        assert attributes["ray_job.try_number"] == 2
        assert attributes["status"] == "succeeded"
    assert spans[1][3]["error"] == ""


def test_a_job_that_nobody_saw_pending(stats: KeptStats, spans: list[Any]) -> None:
    TryReport(TI, "ray_x", None).ended(event(left_pending_at=None), "2.60.0")
    assert not stats.sent, "a time that is not known is not guessed"
    assert [span[:3] for span in spans] == [("run", 100, 110), ("drain", 110, 112)]
    assert spans[0][3]["includes_pending"] is True


def test_a_job_that_was_stopped_while_it_was_pending(stats: KeptStats) -> None:
    TryReport(TI, "ray_x", None).ended(event(Outcome.TIMEOUT, left_pending_at=111.0), "")
    assert stats.sent == [("timer", "ray_jobs.pending_time", 10.0, TAGS)]


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.UNREACHABLE])
def test_a_job_whose_end_nobody_saw(outcome: Outcome, stats: KeptStats, spans: list[Any]) -> None:
    TryReport(TI, "ray_x", None).ended(event(outcome, finished_at=None), "")
    assert stats.of("pending_time") == [3.0]
    assert not stats.of("run_time")
    assert [span[:3] for span in spans] == [("pending", 100, 103), ("run", 103, 112)]
    assert spans[1][3]["error"] == str(outcome)


def test_why_a_job_failed(spans: list[Any]) -> None:
    report = TryReport(TI, "ray_x", None)
    report.ended(event(Outcome.FAILED, failure=JobFailure("NODE_DIED"), error_type="X"), "")
    report.ended(event(Outcome.FAILED, error_type="RUNTIME_ENV_SETUP_FAILURE"), "")
    report.ended(event(Outcome.FAILED), "")
    runs = [attributes for name, _, _, attributes in spans if name == "run"]
    assert [run["cause"] for run in runs] == ["node_died", "runtime_env_setup_failure", "unknown"]
    assert [run["error"] for run in runs] == ["node_died", "runtime_env_setup_failure", "unknown"]


def test_nothing_is_told_of_a_job_that_this_version_did_not_follow(stats: KeptStats, spans: list[Any]) -> None:
    TryReport(TI, "ray_x", None).ended(event(submitted_at=None), "")
    assert not stats.sent
    assert not spans


def test_a_deferral_and_a_skip_are_no_failures(stats: KeptStats) -> None:
    report = TryReport(TI, "ray_x", None)
    for error in (TaskDeferred(trigger=None, method_name="x"), AirflowSkipException(), GeneratorExit()):
        report.failed(error)
    assert not stats.sent
    report.failed(ZeroDivisionError())
    assert stats.sent == [("counter", "ray_jobs.failed", 1, {**TAGS, "cause": "other"})]


def test_what_was_sent_is_told_once(stats: KeptStats) -> None:
    report = TryReport(TI, "ray_x", Counts(requests=7, upload_bytes=2000))
    report.sent()
    report.sent()
    TryReport(TI, "ray_x", None).sent()
    assert stats.sent == [
        ("counter", "ray_jobs.upload_bytes", 2000, TAGS),
        ("counter", "ray_jobs.head_requests", 7, {"conn_id": "ray_x"}),
    ]


@pytest.mark.parametrize(("found", "name"), [(False, "submitted"), (True, "adopted")])
def test_a_submission_is_counted_once(found: bool, name: str, stats: KeptStats) -> None:
    counts = Counts(adopted=3)
    with TryReport(TI, "ray_x", counts).submitting("2.60.0") as accepted:
        if found:
            counts.adopt()
        accepted("a")
    assert stats.sent == [("counter", f"ray_jobs.{name}", 1, TAGS)]
    with pytest.raises(ZeroDivisionError), TryReport(TI, "ray_x", counts).submitting(""):
        _ = 1 / 0
    assert len(stats.sent) == 1


def test_an_operator_that_is_executed_without_a_task_instance_raises_its_own_error() -> None:
    operator = RaySubmitJobOperator(task_id="t", entrypoint="{{ nothing }}")
    operator.entrypoint = ""
    with pytest.raises(AirflowFailException, match="Nothing was submitted"):
        operator.execute({})


def test_a_process_that_resumes_a_deferral_asks_nobody_for_the_version(spans: list[Any]) -> None:
    TryReport(TI, "deleted", None).ended(event(), "")
    assert len(spans) == 3
    assert not any("ray_job.ray_version" in span[3] for span in spans)

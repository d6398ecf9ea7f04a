"""The table of metrics, the causes of failures, and that nothing about metrics fails a task."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from airflow_provider_rayjobs import exceptions as errors
from airflow_provider_rayjobs.observability import metrics
from airflow_provider_rayjobs.observability.metrics import CAUSES, METRICS, Kind, cause_of, tell, tell_followed

if TYPE_CHECKING:
    from tests.support.stats import KeptStats

TASK = {"conn_id": "ray_x", "dag_id": "d", "task_id": "t"}

#: The longest name that Airflow's OpenTelemetry logger takes, with the prefix ``airflow.``.
LONGEST = 63


def test_names_are_valid_for_every_backend() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"ray_jobs\.[a-z_]+", metric.name)
        assert len(f"airflow.{metric.name}") <= LONGEST
        assert metric.meaning.endswith(".")


def test_no_tag_can_have_any_number_of_values() -> None:
    tags = {tag for metric in METRICS for tag in metric.tags}
    assert tags == {"conn_id", "dag_id", "task_id", "cause", "hostname"}


def test_each_kind_is_sent_as_such(stats: KeptStats) -> None:
    tell(metrics.SUBMITTED, 1, {**TASK, "more": "than the metric has"})
    tell(metrics.RUN_TIME, 2.5, TASK)
    tell_followed([("ray_x", 3, 20), ("ray_y", 0, 0)])
    assert stats.sent[:2] == [("counter", "ray_jobs.submitted", 1, TASK), ("timer", "ray_jobs.run_time", 2.5, TASK)]
    gauges = [(value, tags["conn_id"]) for kind, _, value, tags in stats.sent if kind == Kind.GAUGE]
    assert gauges == [(3, "ray_x"), (0, "ray_y")]
    assert stats.sent[3] == ("counter", "ray_jobs.head_requests", 20, {"conn_id": "ray_x"})
    assert len(stats.sent) == 5, "a count of zero is not sent"


@pytest.mark.parametrize("broken", ["missing", "no value", "raises"])
def test_stats_that_fail_are_told_once_and_fail_nothing(
    broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def found(*, in_triggerer: bool) -> Any:
        if broken == "missing":
            raise ImportError("airflow.stats")
        if broken == "raises":
            raise OSError("no such host")
        return None

    monkeypatch.setattr(metrics, "airflow_stats", found)
    monkeypatch.setattr(metrics, "_warned", [])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            tell(metrics.SUBMITTED, 1, TASK)
            tell_followed([("ray_x", 1, 1)])
    assert len(caplog.records) == 1
    assert "ray_jobs.submitted could not be sent" in caplog.text


def test_a_host_without_a_name_fails_nothing(
    stats: KeptStats, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> str:
        raise OSError("no such host")

    monkeypatch.setattr(metrics, "airflow_hostname", broken)
    monkeypatch.setattr(metrics, "_warned", [])
    tell_followed([("ray_x", 1, 1)])
    assert "no such host" in caplog.text
    assert not stats.sent


class TaskDeferralError(Exception):
    """Named as Airflow's own."""


class AirflowTaskTerminated(BaseException):
    """Of 2.11."""


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (errors.RayJobFailedError("", cause="OUT_OF_MEMORY"), "out_of_memory"),
        (errors.RayJobFailedError("", cause=""), "unknown"),
        (errors.RayJobFailedError("", cause="WHAT_A_CLUSTER_MADE_UP_4711"), "other"),
        (errors.RayJobTimeoutError(""), "timeout"),
        (AirflowTaskTimeout(""), "timeout"),
        (errors.RayJobLostError(""), "lost"),
        (errors.RayJobStoppedError(""), "stopped"),
        (errors.RayJobInterruptedError(""), "interrupted"),
        (errors.RayJobResultError(""), "result"),
        (errors.RayClusterUnreachableError("", address=""), "unreachable"),
        (errors.RayPackageTooLargeError(""), "package"),
        (AirflowFailException(""), "refused"),
        (TaskDeferralError(""), "trigger"),
        (AirflowTaskTerminated(""), "interrupted"),
        (ZeroDivisionError(), "other"),
        (KeyboardInterrupt(), "other"),
    ],
    ids=lambda given: given if isinstance(given, str) else type(given).__name__,
)
def test_the_cause_of_an_error(error: BaseException, cause: str) -> None:
    assert cause_of(error) == cause
    assert cause in CAUSES


def test_every_error_of_a_job_or_a_cluster_has_a_cause_of_its_own() -> None:
    known = tuple(kind for kind, _ in metrics._CAUSE_OF_CLASS)
    kinds = {*errors.RayJobError.__subclasses__(), *errors.RayJobsError.__subclasses__()}
    for kind in kinds - {errors.RayServeDeployError}:  # not of a job
        assert issubclass(kind, known) or kind in (errors.RayJobError, errors.RayJobFailedError), kind

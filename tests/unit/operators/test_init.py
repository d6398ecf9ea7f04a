"""The operators, by the names under which DAG authors import them."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_rayjobs import operators


def test_the_operators_are_those_that_are_documented() -> None:
    jobs = {"RayDeleteJobOperator", "RayPruneJobsOperator", "RayStopJobOperator", "RaySubmitJobOperator"}
    assert set(operators.__all__) == {*jobs, "RayServeDeployOperator"}
    assert all(issubclass(getattr(operators, name), BaseOperator) for name in operators.__all__)


def test_what_is_not_there_is_no_attribute() -> None:
    assert not hasattr(operators, "RayServeOperator")

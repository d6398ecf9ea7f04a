"""The operators, by the names under which DAG authors import them."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_rayjobs import operators


def test_the_operators_are_those_that_are_documented() -> None:
    found = {name for name, value in vars(operators).items() if isinstance(value, type)}
    assert (
        found
        == set(operators.__all__)
        == {
            "RayDeleteJobOperator",
            "RayPruneJobsOperator",
            "RayStopJobOperator",
            "RaySubmitJobOperator",
        }
    )
    assert all(issubclass(getattr(operators, name), BaseOperator) for name in found)

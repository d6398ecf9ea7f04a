"""Operators that run, stop, delete and prune Ray jobs, and deploy applications of Ray Serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.operators.stop_delete import RayDeleteJobOperator, RayStopJobOperator
from airflow_provider_rayjobs.operators.submit import RaySubmitJobOperator

if TYPE_CHECKING:
    from airflow_provider_rayjobs.operators.prune import RayPruneJobsOperator
    from airflow_provider_rayjobs.operators.serve import RayServeDeployOperator

__all__ = [
    "RayDeleteJobOperator",
    "RayPruneJobsOperator",
    "RayServeDeployOperator",
    "RayStopJobOperator",
    "RaySubmitJobOperator",
]


def __getattr__(name: str) -> Any:
    # Few DAG files prune or deploy, and each module costs a DAG file up to a millisecond.
    if name == "RayPruneJobsOperator":
        from airflow_provider_rayjobs.operators.prune import RayPruneJobsOperator

        return RayPruneJobsOperator
    if name == "RayServeDeployOperator":
        from airflow_provider_rayjobs.operators.serve import RayServeDeployOperator

        return RayServeDeployOperator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

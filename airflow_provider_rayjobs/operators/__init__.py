"""Operators that run, stop, delete and prune Ray jobs."""

from __future__ import annotations

from airflow_provider_rayjobs.operators.prune import RayPruneJobsOperator
from airflow_provider_rayjobs.operators.stop_delete import RayDeleteJobOperator, RayStopJobOperator
from airflow_provider_rayjobs.operators.submit import RaySubmitJobOperator

__all__ = ["RayDeleteJobOperator", "RayPruneJobsOperator", "RayStopJobOperator", "RaySubmitJobOperator"]

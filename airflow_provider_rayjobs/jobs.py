"""
The types that hooks, operators and triggers hand out.

    from airflow_provider_rayjobs.hooks import RayJobHook
    from airflow_provider_rayjobs.jobs import JobStatus

    failed = [job for job in RayJobHook().list_jobs() if job.status is JobStatus.FAILED]
"""

from __future__ import annotations

from airflow_provider_rayjobs.client.model import JobDetails, JobStatus, VersionInfo

__all__ = ["JobDetails", "JobStatus", "VersionInfo"]

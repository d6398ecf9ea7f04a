"""Helpers that stop a job and wait until it has ended."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from airflow_provider_rayjobs.client import verbs
from airflow_provider_rayjobs.exceptions import RayJobNotFoundError, RayJobTimeoutError

if TYPE_CHECKING:
    from airflow_provider_rayjobs.hooks import RayJobHook
    from airflow_provider_rayjobs.jobs import JobDetails, JobStatus


#: Seconds to wait for the end of an earlier job that was asked to stop.
STOP_TIMEOUT = 60.0

#: Seconds to wait between a job's end and its deletion. Ray 2.60 polls each job once a second until it sees the end. If
#: the record is deleted before that, Ray creates a new one with the same id, as FAILED.
DELETE_DELAY = 3.0


def find_job(hook: RayJobHook, submission_id: str) -> JobDetails | None:
    """Return a job's details, or None if the cluster has no such job."""
    try:
        return hook.get_job_info(submission_id)
    except RayJobNotFoundError:
        return None


def stop_job_and_wait(hook: RayJobHook, submission_id: str, patience: float, appear: float = 0.0) -> JobStatus | None:
    """
    Stop a job and wait until it has ended.

    :param patience: seconds to wait, counted from the first answer.
    :param appear: seconds within which a job that the cluster does not have yet may still appear.
    :return: the job's last status, or None if the cluster has no such job.
    :raises RayJobTimeoutError: if the job has not ended after ``patience`` seconds.
    """
    job = hook.get_conn().run(verbs.stop_and_wait(submission_id, patience=patience, appear=appear))
    if job is not None and not job.status.is_terminal:
        raise _not_ended(hook, submission_id, job.status, patience)
    return None if job is None else job.status


def wait_until_ended(hook: RayJobHook, submission_id: str, patience: float) -> JobStatus:
    """
    Wait until a job has ended.

    :param patience: seconds to wait, counted from the first answer.
    :return: the job's last status.
    :raises RayJobNotFoundError: if there is no such job.
    :raises RayJobTimeoutError: if the job has not ended after ``patience`` seconds.
    """
    give_up = math.inf
    while not (status := hook.get_job_status(submission_id)).is_terminal:
        give_up = min(give_up, time.monotonic() + patience)
        if time.monotonic() >= give_up:
            raise _not_ended(hook, submission_id, status, patience)
        time.sleep(0.5)
    return status


def _not_ended(hook: RayJobHook, submission_id: str, status: JobStatus, patience: float) -> RayJobTimeoutError:
    return RayJobTimeoutError(
        f"Ray job {submission_id} at {hook.get_address()} is still {status} after {patience:.0f} s; stop it in the Ray "
        "dashboard, then retry",
        submission_id=submission_id,
    )

"""
At most one Ray job per submission of a try, and at most one alive per task instance.

Before a try submits, it looks at the jobs of the earlier ones. What a crashed worker left running is followed on; what
an earlier generation (before a user's clear) left running is stopped.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.client.ids import is_submission_id
from airflow_provider_rayjobs.exceptions import RayJobExistsError
from airflow_provider_rayjobs.jobs import JobDetails, JobStatus
from airflow_provider_rayjobs.tasks.stopping import STOP_TIMEOUT, find_job, stop_job_and_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_provider_rayjobs.hooks import RayJobHook
    from airflow_provider_rayjobs.tasks.identity import TaskIdentity

log = logging.getLogger(__name__)

#: Up to so many earlier tries are looked up one by one (5 ms each); for more, the list of all jobs is cheaper.
MOST_LOOKUPS = 10


def settle_earlier_jobs(
    hook: RayJobHook, identity: TaskIdentity, *, explicit_id: str | None, entrypoint: str, reattach: bool
) -> JobDetails | None:
    """
    Find the job that this try goes on with, and stop whatever else earlier tries left alive.

    :param hook: the cluster.
    :param identity: this submission.
    :param explicit_id: the submission id that the DAG author chose, if any.
    :param entrypoint: what is to be submitted.
    :param reattach: whether a job of an earlier try may be followed on.
    :return: a job of this generation that runs or has SUCCEEDED, or None: then a new one is to be submitted.
    :raises RayJobTimeoutError: a job that was asked to stop did not end.
    """
    jobs = list(_earlier_jobs(hook, identity, explicit_id))
    several = identity.number > 1 or any(map(identity.is_of_several, jobs))
    found = _job_to_follow(jobs, identity, entrypoint if several else None) if reattach else None
    for job in jobs:
        # Another submission of this try may go on with it.
        kept = reattach and several and identity.same_generation(job) and (found or not identity.same_number(job))
        if job is not found and not kept and not job.status.is_terminal:
            log.info("Stopping Ray job %s, which an earlier attempt of this task left running", job.submission_id)
            stop_job_and_wait(hook, str(job.submission_id), patience=STOP_TIMEOUT)
    return found


def _job_to_follow(jobs: list[JobDetails], identity: TaskIdentity, entrypoint: str | None) -> JobDetails | None:
    """
    Return the job of this generation that does what is to be submitted.

    :param entrypoint: what is to be submitted, by a task that submits several times: it may do so in another order.
        None for a task that submits once: it goes on with the job that is there, whose entrypoint may hold the try's
        number.
    """
    usable = [
        job
        for job in jobs
        if identity.same_generation(job) and (not job.status.is_terminal or job.status is JobStatus.SUCCEEDED)
    ]
    usable.sort(key=identity.same_number, reverse=True)  # a loop may submit the same several times
    return next((job for job in usable if entrypoint in (None, job.entrypoint)), None)


def _earlier_jobs(hook: RayJobHook, identity: TaskIdentity, explicit_id: str | None) -> Iterator[JobDetails]:
    """Yield the jobs of earlier tries, the latest first."""
    if identity.try_number <= 1:
        return
    if explicit_id is not None or identity.try_number > MOST_LOOKUPS + 1:
        # The id of an earlier try may have been another: it is a template. Only the metadata tells.
        jobs = [job for job in hook.list_jobs() if _is_earlier(identity, job)]
        yield from sorted(jobs, key=_try_of, reverse=True)
        return
    for try_number in range(identity.try_number - 1, 0, -1):
        for number in count(1):
            jobs = list(_jobs_of_try(hook, replace(identity, number=number), try_number))
            yield from jobs
            if not jobs and number >= identity.number:
                break


def _jobs_of_try(hook: RayJobHook, identity: TaskIdentity, try_number: int) -> Iterator[JobDetails]:
    """Yield what an earlier try made of its submission with this number, the latest first."""
    first = identity.submission_id(try_number)
    job = find_job(hook, first)
    if job is None or not identity.owns(job):
        return
    if not identity.same_run(job):
        second = find_job(hook, identity.second_submission_id(first, try_number))
        if second is not None and identity.owns(second):
            yield second
    yield job


def _is_earlier(identity: TaskIdentity, job: JobDetails) -> bool:
    return is_submission_id(job.submission_id) and identity.owns(job) and _try_of(job) < identity.try_number


def _try_of(job: JobDetails) -> int:
    try:
        return int(job.metadata.get(keys.TRY_NUMBER, ""))
    except ValueError:
        return 0


def submit_once(
    hook: RayJobHook,
    identity: TaskIdentity,
    *,
    submission_id: str | None,
    metadata: Mapping[str, str],
    announce: Callable[[str], None],
    **job: Any,
) -> str:
    """
    Submit a job, or adopt it when another process has made this same submission before.

    :param hook: the cluster.
    :param identity: this submission.
    :param submission_id: the id that the DAG author chose, if any.
    :param metadata: the DAG author's metadata.
    :param announce: takes the id before it is submitted.
    :param job: the other arguments of :meth:`RayJobHook.submit_job`.
    :return: the submission id.
    :raises RayJobExistsError: somebody else's job has this id.
    """
    first = submission_id or identity.submission_id()
    for candidate in (first, identity.second_submission_id(first)):
        announce(candidate)
        try:
            return hook.submit_job(
                submission_id=candidate,
                metadata={**metadata, **identity.metadata()},
                submission_key=identity.attempt_key,
                **job,
            )
        except RayJobExistsError:
            taken = find_job(hook, candidate)
            if candidate != first or taken is None or not identity.owns(taken):
                raise
            log.info(
                "Submission id %s was used by an earlier attempt of this task (%s), and Ray runs an id only once",
                candidate,
                taken.status,
            )
            # Alive, it is of a DAG run that was deleted and made anew; or of this try, which submits several times.
            if not taken.status.is_terminal and not identity.same_try(taken):
                stop_job_and_wait(hook, candidate, patience=STOP_TIMEOUT)
    raise AssertionError("unreachable: the second id is returned or raised")

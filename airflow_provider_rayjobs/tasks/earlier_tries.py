"""
Makes sure that a task instance has at most one running Ray job.

Before a try submits, it looks for jobs of earlier tries. A job that a crashed worker left running is followed. A job of
an earlier generation, from before a user's clear, is stopped.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.client.ids import is_submission_id
from airflow_provider_rayjobs.client.submission import command_line
from airflow_provider_rayjobs.exceptions import RayJobExistsError
from airflow_provider_rayjobs.jobs import JobDetails, JobStatus
from airflow_provider_rayjobs.observability import metrics
from airflow_provider_rayjobs.tasks.stopping import STOP_TIMEOUT, find_job, stop_job_and_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_provider_rayjobs.hooks import RayJobHook
    from airflow_provider_rayjobs.tasks.identity import TaskIdentity

log = logging.getLogger(__name__)

#: At most this many earlier tries are looked up one by one (5 ms each); for more, the list of all jobs is cheaper.
MOST_LOOKUPS = 10


class NewJobNeededError(Exception):
    """A job that was taken over from an earlier try has no result for this one."""


def settle_earlier_jobs(
    hook: RayJobHook, identity: TaskIdentity, *, explicit_id: str | None, entrypoint: str | list[str], reattach: bool
) -> JobDetails | None:
    """
    Find the job that this try follows, and stop all other jobs that earlier tries left running.

    :param hook: the cluster.
    :param identity: this submission.
    :param explicit_id: the submission id that the DAG author chose, if any.
    :param entrypoint: the entrypoint to submit.
    :param reattach: whether a job of an earlier try may be followed.
    :return: a job of this generation that is running or has SUCCEEDED; None if a new one has to be submitted.
    :raises RayJobTimeoutError: if a job that was asked to stop did not end.
    """
    jobs = list(_earlier_jobs(hook, identity, explicit_id))
    several = identity.number > 1 or any(map(identity.is_of_several, jobs))
    found = _job_to_follow(jobs, identity, command_line(entrypoint) if several else None) if reattach else None
    for job in jobs:
        # Another submission of this try may follow it.
        kept = reattach and several and identity.same_generation(job) and (found or not identity.same_number(job))
        if job is not found and not kept and not job.status.is_terminal:
            log.info("Stopping Ray job %s, which an earlier try of this task left running", job.submission_id)
            _stop(hook, identity, str(job.submission_id))
    return found


def _stop(hook: RayJobHook, identity: TaskIdentity, submission_id: str) -> None:
    """Stop a job that an earlier try left running; raises as :func:`stop_job_and_wait`."""
    stop_job_and_wait(hook, submission_id, patience=STOP_TIMEOUT)
    tags = {"conn_id": hook.cluster.conn_id, "dag_id": identity.dag_id, "task_id": identity.task_id}
    metrics.tell(metrics.ORPHANS_STOPPED, 1, tags)


def _job_to_follow(jobs: list[JobDetails], identity: TaskIdentity, entrypoint: str | None) -> JobDetails | None:
    """
    Return the job of this generation that does the same work.

    :param entrypoint: the entrypoint to submit, if the task submits several times: it may do so in another order. None
        if the task submits once: it follows the job that is there, whose entrypoint may contain the try number.
    """
    usable = [
        job
        for job in jobs
        if identity.same_generation(job) and (not job.status.is_terminal or job.status is JobStatus.SUCCEEDED)
    ]
    usable.sort(key=identity.same_number, reverse=True)  # a loop may submit the same entrypoint several times
    return next((job for job in usable if entrypoint in (None, job.entrypoint)), None)


def _earlier_jobs(hook: RayJobHook, identity: TaskIdentity, explicit_id: str | None) -> Iterator[JobDetails]:
    """Yield the jobs of earlier tries, the latest first."""
    if identity.try_number <= 1:
        return
    if explicit_id is not None or identity.try_number > MOST_LOOKUPS + 1:
        # An explicit id is a template: an earlier try may have had another one. Only the metadata identifies its job.
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
    """Yield the jobs that an earlier try submitted with this number, the latest first."""
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
    Submit a job, or adopt it if another process has already made this same submission.

    :param hook: the cluster.
    :param identity: this submission.
    :param submission_id: the id that the DAG author chose, if any.
    :param metadata: the DAG author's metadata.
    :param announce: called with the id before it is submitted.
    :param job: the other arguments of :meth:`RayJobHook.submit_job`.
    :return: the submission id.
    :raises RayJobExistsError: if another task's job, or a job from elsewhere, has this id.
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
                "Submission id %s was used by an earlier try of this task (%s), and Ray runs each id only once; using "
                "another one",
                candidate,
                taken.status,
            )
            # If it is running, it belongs to a DAG run that was deleted and created again, or to another submission of
            # this try.
            if not taken.status.is_terminal and not identity.same_try(taken):
                _stop(hook, identity, candidate)
    raise AssertionError("unreachable: the second id is returned or raised")

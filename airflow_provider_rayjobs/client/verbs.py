"""
The verbs of Ray's job client, without I/O.

Each verb is a *flow*: a generator that yields a :class:`Request` (or a :class:`Pause`) and receives the
:class:`Response`. Two transports run the flows, one with ``requests`` and one with ``aiohttp``, so each verb is written
only once. The routes are those of ``dashboard/modules/job/job_head.py`` of Ray 2.60. ``tests/samples/`` has the answers
of older versions.
"""

from __future__ import annotations

import logging
import math
import re
import time
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import quote

from airflow_provider_rayjobs.client.answers import no_jobs_api, read_object
from airflow_provider_rayjobs.client.exchange import Flow, Pause, Request
from airflow_provider_rayjobs.exceptions import (
    RayAPIError,
    RayAuthError,
    RayClusterUnreachableError,
    RayJobExistsError,
    RayJobNotFoundError,
    RayJobsError,
    RayProtocolError,
    RayRequestRefusedError,
    RayTLSError,
)
from airflow_provider_rayjobs.jobs import LONGEST_NAME, JobDetails, VersionInfo
from airflow_provider_rayjobs.text.safe_text import safe_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_rayjobs.client.exchange import Response
    from airflow_provider_rayjobs.client.submission import Submission

log = logging.getLogger(__name__)

#: Seconds to wait after an inconclusive answer to a submission, before the look-up and the next attempt.
SUBMIT_GRACE = (0.5, 1.0, 2.0, 4.0, 8.0)

#: Seconds between two polls of a job that was asked to stop, and until the request to stop is repeated.
STOP_POLL = 0.5
STOP_REPEAT = 5.0

#: Ray's internal id of a job.
_JOB_ID = re.compile("[0-9a-f]{8}")


def submit_job(
    submission: Submission,
    is_ours: Callable[[JobDetails], bool],
    *,
    patience: float,
    adopt: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> Flow[str]:
    """
    Submit a job so that it runs exactly once, even if the answer is lost (``POST /api/jobs/``).

    Ray refuses a submission id that it has seen before. So after an inconclusive answer (cut off, timed out, 500
    ``already exists``, a proxy's 502), the id is looked up. If the job is ours, it was accepted. If there is no job,
    the same id is sent again. If the same error comes twice while there is no job, it is final.

    :param submission: the job.
    :param is_ours: returns whether a job with this id was made by this submission.
    :param patience: seconds to keep trying while answers are inconclusive. If no attempt left this machine, and the
        look-up can't reach the cluster either, the submission fails at once.
    :param adopt: called if the look-up finds the job.
    :param clock: monotonic clock, in seconds.
    :return: the submission id.
    :raises RayJobExistsError: another job has this id.
    :raises RayRequestRefusedError: Ray refused the request.
    :raises RayAPIError: Ray answered with the same error twice.
    :raises RayClusterUnreachableError: nothing was sent, or it remained unknown whether the job was accepted.
    """
    started, maybe_sent, before, logged = clock(), False, "", ""
    for grace in chain(SUBMIT_GRACE, repeat(SUBMIT_GRACE[-1])):
        try:
            _check_accepted((yield submission.request()), submission.submission_id)
            return submission.submission_id
        except (RayTLSError, RayRequestRefusedError):
            raise
        except (RayClusterUnreachableError, RayAPIError) as e:
            doubt, exists = e, isinstance(e, RayJobExistsError)
            waited = clock() - started  # before the look-up: a long look-up must not prevent another attempt
            maybe_sent = maybe_sent or not isinstance(e, RayClusterUnreachableError) or e.maybe_sent
            logged = _log_doubt(submission, e, logged)
        if not exists:
            yield Pause(grace)
        accepted = yield from _was_accepted(submission, is_ours, doubt, maybe_sent=maybe_sent)
        if accepted:
            adopt()
            return submission.submission_id
        if accepted is False and isinstance(doubt, RayAPIError):
            if str(doubt) == before:
                raise doubt
            before = str(doubt)
        if exists:  # but the look-up found no job: the record has none, or is being deleted
            yield Pause(grace)
        if waited >= patience:
            raise _given_up(doubt, waited)
    raise AssertionError("unreachable: the loop is endless")


def _log_doubt(submission: Submission, doubt: RayClusterUnreachableError | RayAPIError, logged: str) -> str:
    """Log an inconclusive answer, unless nothing was sent, or it is the same as the last; return what was logged."""
    if isinstance(doubt, RayClusterUnreachableError) and not doubt.maybe_sent:
        return logged
    if str(doubt) != logged:
        log.warning("Unclear whether Ray job %s was accepted; looking it up: %s", submission.submission_id, doubt)
    return str(doubt)


def _given_up(doubt: RayClusterUnreachableError | RayAPIError, waited: float) -> RayJobsError:
    if not isinstance(doubt, RayClusterUnreachableError) or waited < 1:
        return doubt
    return RayClusterUnreachableError(f"{doubt}; gave up the submission after {waited:.0f} s", address=doubt.address)


def _was_accepted(
    submission: Submission,
    is_ours: Callable[[JobDetails], bool],
    doubt: RayClusterUnreachableError | RayAPIError,
    *,
    maybe_sent: bool,
) -> Flow[bool | None]:
    """Look up a submission whose answer was inconclusive; False if there is no job, None if that is unknown."""
    try:
        job = yield from get_job_info(submission.submission_id)
    except RayJobNotFoundError:
        return False
    except RayAuthError:
        return None  # perhaps a token that has just expired; otherwise the next attempt is refused
    except (RayRequestRefusedError, RayProtocolError):
        raise
    except RayClusterUnreachableError:
        if not maybe_sent:
            raise
        return None
    except RayAPIError:
        return None
    if not is_ours(job):
        raise _foreign_job(doubt, submission.submission_id, job) from doubt
    return True


def _foreign_job(
    doubt: RayClusterUnreachableError | RayAPIError, submission_id: str, job: JobDetails
) -> RayJobExistsError:
    return RayJobExistsError(
        f"{doubt.address}: submission id {submission_id!r} already belongs to another job ({job.status}); choose "
        "another submission_id, or delete that job",
        address=doubt.address,
    )


def _check_accepted(response: Response, submission_id: str) -> None:
    """Check that Ray accepted the job under the id that was sent."""
    data = read_object(response)
    accepted = data.get("submission_id") or data.get("job_id")
    if accepted != submission_id:
        raise no_jobs_api(response, f"the answer to a submission with another submission_id ({str(accepted)[:100]!r})")


def stop_job(submission_id: str) -> Flow[bool]:
    """
    Ask a job to stop (``POST /api/jobs/{id}/stop``); it becomes STOPPED a few seconds later.

    :return: True if the job was running, False if it had already ended.
    :raises RayJobNotFoundError: there is no such job.
    """
    data = read_object((yield Request("POST", f"{job_path(submission_id)}/stop")))
    return bool(data.get("stopped"))


def stop_and_wait(
    submission_id: str, *, patience: float, appear: float = 0.0, clock: Callable[[], float] = time.monotonic
) -> Flow[JobDetails | None]:
    """
    Stop a job and wait until it has ended.

    The request is repeated: a job whose actor has not started yet misses the first one.

    :param patience: seconds to wait for the job's end, from the first answer on.
    :param appear: seconds to wait for a job that the cluster does not know yet, from the first answer on.
    :param clock: monotonic clock, in seconds.
    :return: the job's last details, with a status that is not terminal if the wait timed out; None if the cluster does
        not know the job.
    """
    answered, asked = math.inf, -math.inf
    while True:
        job = None
        try:
            if clock() - asked > STOP_REPEAT and (yield from stop_job(submission_id)):
                asked = clock()
            job = yield from get_job_info(submission_id)
        except RayJobNotFoundError:
            asked = -math.inf
        answered = min(answered, clock())
        if job is not None and job.status.is_terminal:
            return job
        if clock() - answered >= (appear if job is None else patience):
            return job
        yield Pause(STOP_POLL)


def delete_job(submission_id: str) -> Flow[bool]:
    """
    Delete the record of a job that has ended (``DELETE /api/jobs/{id}``); Ray answers 500 for a live job.

    :return: True if it was deleted.
    :raises RayJobNotFoundError: there is no such job.
    """
    data = read_object((yield Request("DELETE", job_path(submission_id))))
    return bool(data.get("deleted"))


def get_job_info(submission_id: str) -> Flow[JobDetails]:
    """
    Read a job's details (``GET /api/jobs/{id}``).

    :raises RayJobNotFoundError: there is no such job.
    """
    response = yield Request("GET", job_path(submission_id))
    try:
        job = JobDetails.from_json(read_object(response))
    except ValueError as e:
        raise no_jobs_api(response, str(e)) from None
    # Ray also finds a job by its internal id.
    if job.submission_id != submission_id and not (job.job_id == submission_id and _JOB_ID.fullmatch(submission_id)):
        raise no_jobs_api(response, f"the details of another job ({str(job.submission_id or job.job_id)[:100]!r})")
    return job


def get_version() -> Flow[VersionInfo]:
    """Read Ray's version and the head's session (``GET /api/version``)."""
    response = yield Request("GET", "/api/version")
    data = read_object(response)
    version, session = data.get("ray_version"), data.get("session_name")
    if not _is_name(version):
        raise no_jobs_api(response, "an answer without a ray_version")
    if session is not None and not _is_name(session):
        raise no_jobs_api(response, "an answer with an invalid session_name")
    return VersionInfo(safe_text(version), None if session is None else safe_text(session))


def _is_name(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME


def job_path(submission_id: str) -> str:
    """
    Return the path of a job's route.

    :raises ValueError: no job can have this id.
    """
    if submission_id in ("", ".", ".."):
        raise ValueError(f"submission_id must not be {submission_id!r}")
    return f"/api/jobs/{quote(submission_id, safe='')}"

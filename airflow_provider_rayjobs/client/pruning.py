"""
Deletes the records of old jobs from a cluster, at a pace that its head does not feel; no I/O.

Ray keeps the record of each job for ever. The list of all jobs takes the head 0.32 ms for each, and it answers nothing
else meanwhile.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client import verbs
from airflow_provider_rayjobs.client.checks import check_amount
from airflow_provider_rayjobs.client.ended import ENDED, EndedJob, deployment_of, ended_job
from airflow_provider_rayjobs.client.exchange import Pause
from airflow_provider_rayjobs.client.ids import is_submission_id
from airflow_provider_rayjobs.client.listing import read_list
from airflow_provider_rayjobs.exceptions import RayAPIError, RayAuthError, RayJobNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from airflow_provider_rayjobs.client.exchange import Flow

#: Default and least age of a record that is deleted, in seconds since the job's end. The next try of a task that lost
#: its worker looks for the job of the earlier try, also one that has ended. Without the record, it runs the job again.
DEFAULT_AGE = 7 * 24 * 3600.0
LEAST_AGE = 3600.0

#: Share of the time for which a request is under way. The head works for a part of that time only.
SHARE = 0.2

#: Longest pause between two jobs, in seconds. Requests over a distant network take long, but cost the head no more: a
#: few milliseconds of its time for each job.
LONGEST_PAUSE = 0.25

#: Most records that are deleted by one call: they take about 20 MB of memory here.
MOST_AT_ONCE = 100_000

#: Records in a row that the cluster may refuse to delete: one that is damaged does not stop the others.
MOST_REFUSALS = 20

#: Most records that can't be read that the log names.
MOST_NAMED = 10

#: Seconds between two reports of progress.
REPORT_INTERVAL = 60.0


@dataclass(frozen=True)
class Choice:
    """
    Which records are deleted.

    :param older_than: seconds since the job's end; at least :data:`LEAST_AGE`.
    :param keep: how many of the newest records are kept, whatever their age, of those with the given owner and status.
    :param statuses: of jobs that have ended; empty for all of them.
    :param deployment: the Airflow deployment that submitted the jobs; None for the jobs of everyone.
    :raises TypeError: a value has a wrong type.
    :raises ValueError: a value is out of range, or a status is not one of an ended job.
    """

    older_than: float = DEFAULT_AGE
    keep: int = 0
    statuses: Collection[str] = ()
    deployment: str | None = None

    def __post_init__(self) -> None:
        check_amount("older_than", self.older_than)
        check_amount("keep", self.keep, whole=True)
        if (self.older_than or 0.0) < LEAST_AGE:
            raise ValueError(
                f"older_than must be at least {LEAST_AGE:.0f} s, not {self.older_than}: a retry may still need the "
                "record of a job that has just ended"
            )
        if isinstance(self.statuses, str) or not set(self.statuses) <= set(ENDED):
            raise ValueError(f"statuses must be a list of {', '.join(ENDED)}, not {self.statuses!r}")

    def wants(self, data: dict[str, Any]) -> EndedJob | None:
        """Return a job of a list if it has the right owner and status; None otherwise."""
        job = ended_job(data)
        if job is None or (self.statuses and job.status not in self.statuses):
            return None
        return job if self.deployment is None or deployment_of(data) == self.deployment else None


@dataclass
class Pruned:
    """
    What was, or would be, deleted.

    :param listed: number of jobs on record, of everyone.
    :param jobs: those to delete, the oldest first.
    :param left: number of jobs that were chosen, but are too many for one call.
    :param deleted: number of deleted records by status.
    :param out_of_reach: number of old records whose ids Ray's routes can't reach; they are not chosen.
    :param refused: number of records that the cluster refused to delete.
    """

    listed: int
    jobs: list[EndedJob]
    left: int
    deleted: Counter[str]
    out_of_reach: int = 0
    refused: int = 0

    @property
    def chosen(self) -> Counter[str]:
        """Number of jobs to delete, by status."""
        return Counter(job.status for job in self.jobs)


def choose(
    choice: Choice, skipped: Callable[[str], object] | None = None, clock: Callable[[], float] = time.time
) -> Flow[Pruned]:
    """
    Read the list of jobs, and choose those to delete.

    :param skipped: called for each job that is too large to be read, as of :func:`read_list`; they are not chosen.
    :param clock: Unix seconds.
    :raises RayJobsError: there is no answer, or it does not come from the Jobs API.
    """
    old: list[EndedJob] = []
    number = matching = out_of_reach = 0
    before = (clock() - choice.older_than) * 1000

    def begin() -> Callable[[dict[str, Any]], object]:
        nonlocal number, matching, out_of_reach
        old.clear()
        number = matching = out_of_reach = 0

        def take(data: dict[str, Any]) -> None:
            nonlocal number, matching, out_of_reach
            if (job := choice.wants(data)) is None:
                return
            if not is_submission_id(job.submission_id):
                out_of_reach += job.end_time < before
                return
            matching += 1
            if job.end_time < before:
                number += 1
                old.append(job)
                if len(old) >= 2 * MOST_AT_ONCE:
                    old.sort()
                    del old[MOST_AT_ONCE:]

        return take

    listed = yield from read_list(begin, repeatable=True, skipped=skipped)
    old.sort()
    wanted = max(min(number, matching - (choice.keep or 0)), 0)
    jobs = old[: min(wanted, MOST_AT_ONCE)]
    return Pruned(listed, jobs, wanted - len(jobs), Counter(), out_of_reach)


def delete(
    pruned: Pruned,
    report: Callable[[int], object],
    refused: Callable[[EndedJob, RayAPIError], object],
    clock: Callable[[], float] = time.monotonic,
) -> Flow[None]:
    """
    Delete the records of the chosen jobs, with pauses. Counts them in ``pruned.deleted`` while it runs.

    A record that is gone counts as deleted: the answer to an earlier request may have been lost.

    :param report: called once a minute with the number of records that are done.
    :param refused: called for each record that the cluster does not delete, with its error; the others follow.
    :param clock: seconds of a monotonic clock.
    :raises RayJobsError: there is no answer, or the cluster refuses the credentials, or :data:`MOST_REFUSALS` records
        in a row.
    """
    reported = clock()
    refusals = 0
    for done, job in enumerate(pruned.jobs):
        began = clock()
        if began - reported >= REPORT_INTERVAL:
            reported = began
            report(done)
        try:
            if (yield from _delete_one(job)):
                pruned.deleted[job.status] += 1
            refusals = 0
        except RayAuthError:
            raise
        except RayAPIError as e:
            refusals += 1
            pruned.refused += 1
            refused(job, e)
            if refusals >= MOST_REFUSALS:
                raise
        yield Pause(min((clock() - began) * (1 / SHARE - 1), LONGEST_PAUSE))


def _delete_one(job: EndedJob) -> Flow[bool]:
    """Delete a record, unless its id now belongs to another job: the list may be an hour old."""
    try:
        found = yield from verbs.get_job_info(job.submission_id)
        if not found.status.is_terminal or found.end_time != job.end_time:
            return False
        yield from verbs.delete_job(job.submission_id)
    except RayJobNotFoundError:
        pass
    return True


def prune(
    run: Callable[[Flow[Any]], Any],
    choice: Choice,
    log: Any,
    show: Callable[[list[EndedJob]], object] | None,
    rest: str,
) -> Pruned:
    """
    Choose records and delete them, and log both.

    :param run: runs a flow.
    :param log: a logger.
    :param show: takes the chosen jobs of a dry run, which deletes nothing; None to delete them.
    :param rest: says in the log when those are deleted that are too many for one call.
    :raises RayJobsError: as :func:`choose` and :func:`delete`.
    """
    problems: list[str] = []
    pruned: Pruned = run(
        choose(choice, lambda problem: problems.append(problem) if len(problems) < MOST_NAMED else None)
    )
    for problem in problems:
        log.warning("A record can't be read, and is left: %s", problem)
    total = f"{len(pruned.jobs):,}"
    log.info("%s of %s jobs on record to delete: %s", total, f"{pruned.listed:,}", by_status(pruned.chosen))
    if pruned.out_of_reach:
        log.warning("%s old records can't be deleted: Ray can't find jobs with their ids", f"{pruned.out_of_reach:,}")
    if show is not None:
        show(pruned.jobs)
    else:
        try:
            run(
                delete(
                    pruned,
                    lambda done: log.info("%s of %s done", f"{done:,}", total),
                    lambda job, error: log.warning("Not deleted: %s: %s", job.submission_id, error),
                )
            )
        finally:
            log.info("Deleted: %s", by_status(pruned.deleted))
            if pruned.refused:
                log.warning("Refused: %s records were not deleted; the next run tries again", f"{pruned.refused:,}")
    if pruned.left:
        log.warning("%s more records are left%s", f"{pruned.left:,}", rest)
    return pruned


def by_status(counts: Mapping[str, int]) -> str:
    """Return numbers of jobs as text, such as ``3 FAILED, 12 SUCCEEDED``."""
    return ", ".join(f"{number:,} {status}" for status, number in sorted(counts.items())) or "none"

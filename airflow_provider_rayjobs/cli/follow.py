"""Follows a job until it ends, and prints its log or its status; or prints the log as far as it has been written."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_rayjobs.cli.output import (
    BROKEN_PIPE,
    ERROR,
    INTERRUPTED,
    NOT_FOUND,
    UNREACHABLE,
    command_line,
    log,
)
from airflow_provider_rayjobs.cli.records import span
from airflow_provider_rayjobs.client.contact import Contact
from airflow_provider_rayjobs.client.log_files import read_log
from airflow_provider_rayjobs.compat.masking import public_for
from airflow_provider_rayjobs.diagnosis.failure import failure_lines
from airflow_provider_rayjobs.diagnosis.pending import explain_pauses
from airflow_provider_rayjobs.exceptions import RayJobNotFoundError
from airflow_provider_rayjobs.following.events import JobEvent, Outcome, event_of_job
from airflow_provider_rayjobs.following.lines import LineWriter
from airflow_provider_rayjobs.following.poller import Poller
from airflow_provider_rayjobs.following.watcher import JobWatcher, Watch, poll_delay
from airflow_provider_rayjobs.jobs import JobDetails, JobStatus
from airflow_provider_rayjobs.text.ray_messages import first_and_last_line
from airflow_provider_rayjobs.text.safe_text import for_terminal, without_logins

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Coroutine
    from typing import TextIO

    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.hooks import RayJobHook

T = TypeVar("T")

#: Longest time in seconds between two requests for the status of a job.
LONGEST_INTERVAL = 30.0

_EXIT_CODES = {Outcome.SUCCEEDED: 0, Outcome.LOST: NOT_FOUND, Outcome.UNREACHABLE: UNREACHABLE}


def print_log(cluster: ClusterConnection, job: JobDetails, submission_id: str, out: TextIO) -> None:
    """
    Print a job's log as far as it has been written, in bounded memory.

    :param job: the job's details; its secrets are masked in the log.
    :raises RayJobsError: if there is no answer, or the answer is not Ray's.
    """
    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport

    async def read(write: Callable[[str], None]) -> None:
        lines = LineWriter(write, public=public_for(job, cluster))
        transport = AiohttpTransport(cluster)
        try:
            await transport.run(read_log(submission_id, job.driver_node_id, lines.from_the_start))
        finally:
            await transport.close()
        lines.flush()

    _run_writing(out, read)


def follow(hook: RayJobHook, args: Namespace, out: TextIO, submission_id: str, submitted_at: float) -> int:
    """
    Print a job's log until the job ends.

    :param submitted_at: time of the submission, in Unix seconds.
    :return: the exit code for the job's outcome.
    """
    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport

    async def work(write: Callable[[str], None]) -> JobEvent:
        async with Poller(AiohttpTransport(hook.cluster)) as poller:
            watched = Watch(submission_id, submitted_at)
            return await JobWatcher(poller, watched, log, partial(public_for, cluster=hook.cluster), write).run()

    return _followed(out, work, args, submission_id, "logs --follow", shows_log=True)


def watch(hook: RayJobHook, args: Namespace, out: TextIO, job: JobDetails) -> int:
    """
    Print a line for each change of a job's status, until it ends; and for each change of the reason of PENDING.

    :param job: the job's details.
    :return: the exit code for the job's outcome.
    """
    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport

    async def work(write: Callable[[str], None]) -> JobEvent:
        async with Poller(AiohttpTransport(hook.cluster)) as poller:
            return await _watch(poller, args.submission_id, job, write)

    return _followed(out, work, args, args.submission_id, "status --watch", shows_log=False)


async def _watch(poller: Poller, submission_id: str, job: JobDetails, write: Callable[[str], None]) -> JobEvent:
    """Follow a job's status, and write nothing else."""
    public = public_for(job, poller.cluster)
    contact = Contact(poller.cluster.unreachable_timeout, log, public)
    submitted_at = (job.start_time or 0) / 1000 or time.time()
    pauses, written = explain_pauses(), ("", "")

    def delay() -> float:
        return poll_delay(time.time() - submitted_at, LONGEST_INTERVAL)

    with poller.subscribe(submission_id, delay) as subscription:
        while True:
            waits = job.status is JobStatus.PENDING and not contact.lost
            about = await poller.why_pending(submission_id, public) if waits else _about(job)
            if job.status != written[0] or about not in ("", written[1]):
                written = str(job.status), about
                now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
                write(f"{now} UTC  {job.status:9}  {for_terminal(about)}".rstrip())
            if job.status.is_terminal:
                event = event_of_job(job, poller.cluster.address)
                message = event.message and first_and_last_line(without_logins(public(event.message)))
                failure = await poller.why_failed(job, public) if event.outcome is Outcome.FAILED else None
                return replace(event, submission_id=submission_id, message=message, failure=failure)
            within = min(contact.left, next(pauses) if waits else math.inf)
            news = await subscription.news(None if within == math.inf else within)
            if isinstance(news, JobDetails):
                contact.back()
                job = news
            elif news is not None and isinstance(news.error, RayJobNotFoundError):
                return _end(Outcome.LOST, poller, submission_id, job)
            elif news is not None:
                contact.failed(news.error, news.since)
            if contact.given_up():
                return _end(Outcome.UNREACHABLE, poller, submission_id, job)


def _about(job: JobDetails) -> str:
    """Return what a line says of a job that does not wait."""
    if not job.status.is_terminal or job.start_time is None or job.end_time is None:
        return ""
    return f"after {span(max(job.end_time - job.start_time, 0) / 1000)}"


def _end(outcome: Outcome, poller: Poller, submission_id: str, job: JobDetails) -> JobEvent:
    address, node_id, node_ip = poller.cluster.address, job.driver_node_id, job.driver_ip
    return JobEvent(submission_id, address, outcome, node_id=node_id, node_ip=node_ip)


def _followed(
    out: TextIO,
    work: Callable[[Callable[[str], None]], Coroutine[Any, Any, JobEvent]],
    args: Namespace,
    submission_id: str,
    verb: str,
    *,
    shows_log: bool,
) -> int:
    """
    Follow a job to its end, and return the exit code for its outcome.

    :param work: follows the job; its argument writes a line to ``out``.
    :param verb: the command that follows the job again.
    :param shows_log: whether the job's log is among the lines.
    """
    try:
        event = _run_writing(out, work)
    except (KeyboardInterrupt, BrokenPipeError) as e:
        log.warning(
            "Ray job %s was not stopped. To follow it again: %s; to stop it: %s",
            submission_id,
            command_line(verb, args, submission_id),
            command_line("stop", args, submission_id),
        )
        return BROKEN_PIPE if isinstance(e, BrokenPipeError) else INTERRUPTED
    if event.outcome is not Outcome.SUCCEEDED:
        log.error("%s", _describe(event))
        lines = failure_lines(event.failure) if event.failure else ()
        # Of a job with an exit code, Ray's message only repeats that and the end of the log.
        ray = [f"Ray: {event.message}"] if not shows_log and event.exit_code is not None and event.message else []
        for line in (*lines, *ray):
            log.error("%s", for_terminal(line))
    return _EXIT_CODES.get(event.outcome, ERROR)


def _run_writing(out: TextIO, work: Callable[[Callable[[str], None]], Coroutine[Any, Any, T]]) -> T:
    """
    Run a coroutine that writes lines, until it ends or a line can't be written.

    :raises BrokenPipeError: if the reader of the output has closed it.
    :raises OSError: if writing fails for another reason, such as a full disk.
    """

    async def run() -> T:
        this, problem = asyncio.current_task(), None

        def write(line: str) -> None:
            nonlocal problem
            try:
                if problem is None:
                    out.write(f"{line}\n")
                    out.flush()
            except OSError as e:  # raised here, it would be handled as an error of the connection to the cluster
                problem = e
                if this is not None:
                    this.cancel()

        try:
            return await work(write)
        finally:
            if problem is not None:
                raise problem

    return asyncio.run(run())


def _describe(event: JobEvent) -> str:
    """Return one line that says how a job ended. The traceback of a FAILED job is already printed with its log."""
    job = f"Ray job {event.submission_id}"
    if event.outcome is Outcome.LOST:
        gone = f"{job} no longer exists: the cluster's head restarted, or the job was deleted"
        node = event.node_ip or event.node_id
        return f"{gone}; its process may still run on node {node}" if node else gone
    if event.outcome is Outcome.UNREACHABLE:
        timeout = "the cluster was unreachable for the connection's unreachable_timeout"
        return f"Lost contact with {job}, which may still run: {timeout}"
    ended = f"{job} ended {str(event.outcome).upper()}"
    if event.exit_code is not None:
        return f"{ended} with exit code {event.exit_code}"
    return f"{ended}: {for_terminal(' '.join((event.message or 'no message').split()))}"

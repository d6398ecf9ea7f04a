"""Prints a job's log to stdout: as far as it has been written, or until the job ends."""

from __future__ import annotations

import asyncio
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
from airflow_provider_rayjobs.client.log_files import read_log
from airflow_provider_rayjobs.compat.masking import public_for
from airflow_provider_rayjobs.following.events import Outcome
from airflow_provider_rayjobs.following.lines import LineWriter
from airflow_provider_rayjobs.following.poller import Poller
from airflow_provider_rayjobs.following.watcher import JobWatcher, Watch
from airflow_provider_rayjobs.text.safe_text import for_terminal

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Coroutine
    from typing import TextIO

    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.following.events import JobEvent
    from airflow_provider_rayjobs.hooks import RayJobHook
    from airflow_provider_rayjobs.jobs import JobDetails

T = TypeVar("T")

_EXIT_CODES = {Outcome.SUCCEEDED: 0, Outcome.LOST: NOT_FOUND, Outcome.UNREACHABLE: UNREACHABLE}


def print_log(cluster: ClusterConnection, job: JobDetails, submission_id: str, out: TextIO) -> None:
    """
    Print a job's log as far as it has been written, in bounded memory.

    :param job: the job's details; its secrets are masked in the log.
    :raises RayJobsError: if there is no answer, or the answer is not Ray's.
    """
    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport

    async def read(write: Callable[[str], None]) -> None:
        lines = LineWriter(write, public=public_for(job))
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

    async def watch(write: Callable[[str], None]) -> JobEvent:
        async with Poller(AiohttpTransport(hook.cluster)) as poller:
            watched = Watch(submission_id, submitted_at)
            return await JobWatcher(poller, watched, log, public_for, write).run()

    try:
        event = _run_writing(out, watch)
    except (KeyboardInterrupt, BrokenPipeError) as e:
        log.warning(
            "Ray job %s was not stopped. To follow it again: %s; to stop it: %s",
            submission_id,
            command_line("logs --follow", args, submission_id),
            command_line("stop", args, submission_id),
        )
        return BROKEN_PIPE if isinstance(e, BrokenPipeError) else INTERRUPTED
    if event.outcome is not Outcome.SUCCEEDED:
        log.error("%s", _describe(event))
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
    if event.exit_code is not None:  # Ray's message only repeats the exit code and the end of the log
        return f"{ended} with exit code {event.exit_code}"
    return f"{ended}: {for_terminal(' '.join((event.message or 'no message').split()))}"

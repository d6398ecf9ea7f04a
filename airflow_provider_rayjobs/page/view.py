"""One job in detail, without secrets: its times, why it waits or failed, its progress, the last lines of its log."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from airflow_provider_rayjobs.client.answers import read_object
from airflow_provider_rayjobs.client.cluster_status import cluster_resources
from airflow_provider_rayjobs.client.exchange import Request
from airflow_provider_rayjobs.client.log_files import read_file
from airflow_provider_rayjobs.client.state_api import ACTORS, list_state
from airflow_provider_rayjobs.client.verbs import get_job_info, get_version
from airflow_provider_rayjobs.compat.masking import public, public_for
from airflow_provider_rayjobs.diagnosis.failure import Findings, failure_lines, in_words
from airflow_provider_rayjobs.diagnosis.pending import why_pending
from airflow_provider_rayjobs.diagnosis.tasks import job_tasks, progress_line
from airflow_provider_rayjobs.exceptions import RayJobsError
from airflow_provider_rayjobs.following.lines import TAIL_LINES, LineWriter
from airflow_provider_rayjobs.jobs import JobStatus
from airflow_provider_rayjobs.progress import ProgressLines, describe
from airflow_provider_rayjobs.text.safe_text import one_line, safe_text, safe_value, without_logins

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
    from airflow_provider_rayjobs.client.exchange import Flow
    from airflow_provider_rayjobs.client.log_files import TakeText
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.jobs import JobDetails, JobFailure

T = TypeVar("T")

#: Maximum seconds for a job's details, and then for each of the parts, which are read at the same time.
PART_TIMEOUT = 8.0

#: Maximum size of the last lines of a log, in bytes.
TAIL_LIMIT = 2**20

#: Maximum number of characters of a reason, such as an error of the cluster, which may quote a whole web page.
MAX_PROBLEM = 2000


#: Replaces a log that the user may not read.
NO_LOG = "You don't have permission to read the logs of this DAG."


@dataclass
class Part:
    """
    A part of the view.

    :param value: what was read; None if there is nothing.
    :param problem: why it could not be read.
    """

    value: Any = None
    problem: str = ""


@dataclass
class JobView:
    """
    What was read about one job; it may hold secrets.

    :param job: the job.
    :param waits: the cluster's resources, if the job is PENDING.
    :param running_since: when its process started, in Unix milliseconds; None if that is not known.
    :param tasks: the Ray tasks that it has started.
    :param failure: what Ray says of why it FAILED.
    :param log: text of the last lines of its log.
    :param session: the head's version and session, for the link to the history server.
    :param read_at: in Unix milliseconds.
    """

    job: JobDetails
    waits: Part = field(default_factory=Part)
    running_since: Part = field(default_factory=Part)
    tasks: Part = field(default_factory=Part)
    failure: Part = field(default_factory=Part)
    log: Part = field(default_factory=Part)
    session: Part = field(default_factory=Part)
    read_at: int = 0


async def read_view(cluster: ClusterConnection, submission_id: str, *, whole: bool) -> JobView:
    """
    Read one job.

    :param whole: also read its log and the work that it does, not only the job itself and why it waits.
    :raises RayJobsError: the job itself can't be read.
    :raises TimeoutError: not within :data:`PART_TIMEOUT` seconds.
    """
    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport

    transport = AiohttpTransport(cluster)
    try:
        async with asyncio.timeout(PART_TIMEOUT):
            job = await transport.run(get_job_info(submission_id))
        view = JobView(job)
        parts: dict[str, Awaitable[Part]] = {}
        if cluster.history_url:
            parts["session"] = _part(transport, get_version())
        if job.status is JobStatus.PENDING:
            parts["waits"] = _part(transport, cluster_resources())
        elif whole:
            parts["running_since"] = _part(transport, running_since(submission_id))
            parts["log"] = _log(transport, submission_id, job.driver_node_id or "")
            if job.job_id:
                parts["tasks"] = _part(transport, job_tasks(job.job_id))
        for name, part in zip(parts, await asyncio.gather(*parts.values()), strict=True):
            setattr(view, name, part)
        if whole and job.status is JobStatus.FAILED:
            # Last, because it needs the number of tasks: a head counts them at the cost of all of its tasks.
            tasks = view.tasks.value
            view.failure = await _part(transport, _findings(Findings(job, tasks.counts.total if tasks else 0)))
    finally:
        await transport.close()
    view.read_at = int(time.time() * 1000)
    return view


async def _part(transport: AiohttpTransport, flow: Flow[T]) -> Part:
    """Run a flow in bounded time; what fails says so in its own place."""
    try:
        async with asyncio.timeout(PART_TIMEOUT):
            return Part(await transport.run(flow))
    except RayJobsError as e:
        return Part(problem=str(e))
    except TimeoutError:
        return Part(problem=f"no answer within {PART_TIMEOUT:.0f} s")


def _findings(findings: Findings) -> Flow[Findings]:
    yield from findings.read()
    return findings


async def _log(transport: AiohttpTransport, submission_id: str, node_id: str) -> Part:
    """Read the last lines of a job's log; a job that has no node yet has none."""
    if not node_id:
        return Part()
    texts: list[str] = []

    def begin() -> TakeText:
        texts.clear()
        return texts.append

    part = await _part(transport, read_file(submission_id, node_id, begin, lines=TAIL_LINES, limit=TAIL_LIMIT))
    return part if part.problem else Part("".join(texts))


def running_since(submission_id: str) -> Flow[int | None]:
    """
    Return when a job's supervisor started, in Unix milliseconds, which is when the job became RUNNING; None if unknown.

    The Jobs API tells only when a job was submitted. The supervisor is an actor with a name, which the state API finds
    (``GET /api/v0/actors``); only the dashboard's own route tells its start (``GET /logical/actors/{id}``, Ray 2.60,
    ``dashboard/modules/node/node_head.py``).
    """
    try:
        found = yield from list_state(ACTORS, [("name", "=", f"_ray_internal_job_actor_{submission_id}")], limit=1)
        if not found.rows:
            return None
        actor = quote(str(found.rows[0]["actor_id"]), safe="")
        answer = read_object((yield Request("GET", f"/logical/actors/{actor}", repeatable=False)))
        started = int(answer["data"]["detail"]["startTime"])
    except (RayJobsError, KeyError, TypeError, ValueError, OverflowError):
        return None
    return started if started > 0 else None


def shown(view: JobView, cluster: ClusterConnection, *, with_log: bool = True) -> dict[str, Any]:
    """
    Return a view as JSON, without secrets. Call it in a thread: masking would block an event loop.

    :param with_log: whether to show the log, and what quotes it: Ray's message, the errors of tasks and the progress.
    """
    job, hide = view.job, public_for(view.job, cluster)
    pending = job.status is JobStatus.PENDING
    found: dict[str, Any] = {
        "submission_id": job.submission_id,
        "status": str(job.status),
        "job_url": cluster.job_page(str(job.submission_id)),
        "history_url": cluster.history_page(
            str(job.submission_id), view.session.value and view.session.value.session_name
        ),
        "address": cluster.address,
        "submitted": job.start_time,
        "running": view.running_since.value,
        "ended": job.end_time,
        "read_at": view.read_at,
        "error_type": job.error_type,
        "exit_code": job.driver_exit_code,
        "node_ip": job.driver_ip,
        "message": without_logins(hide(job.message or "")),
        "entrypoint": without_logins(hide(job.entrypoint)),
        "waits": _told(view.waits, lambda resources: why_pending(job, resources, hide), always=pending),
        "tasks": _told(view.tasks, lambda tasks: progress_line(tasks, hide)),
        "failure": _told(view.failure, lambda findings: _failure_text(findings.failure(hide))),
        **_tail(view.log, hide),
    }
    if not with_log:
        found |= {"message": "", "failure": None, "log": {"problem": NO_LOG}, "progress": None}
    safe: dict[str, Any] = safe_value(found)
    return safe


def _told(part: Part, tell: Callable[[Any], str], *, always: bool = False) -> dict[str, Any] | None:
    """
    Return a part as JSON: its text, or the reason why it can't be read; None if there is none.

    :param always: whether there is a text for None, too.
    """
    if part.problem:
        return {"problem": problem(part.problem)}
    return {"text": tell(part.value)} if always or part.value is not None else None


def _failure_text(failure: JobFailure) -> str:
    code = "" if failure.exit_code is None else f"exit code {failure.exit_code}"
    return "\n".join([", ".join(filter(None, (in_words(failure.cause), code))), *failure_lines(failure)]).strip()


def _tail(part: Part, hide: Callable[[str], str]) -> dict[str, Any]:
    """Return the last lines of a log, and the last report of progress among them."""
    if part.problem:
        return {"log": {"problem": problem(part.problem)}, "progress": None}
    if part.value is None:
        return {"log": None, "progress": None}
    reports = ProgressLines(lambda line: None)
    lines = LineWriter(lambda line: None, reports.take, hide)
    lines.feed(part.value)
    lines.flush()
    progress = reports.last and {"text": safe_text(hide(describe(reports.last)))}
    return {"log": {"lines": list(lines.tail())}, "progress": progress}


def problem(text: str) -> str:
    """Return an error as one line without secrets."""
    return one_line(public(text), MAX_PROBLEM)

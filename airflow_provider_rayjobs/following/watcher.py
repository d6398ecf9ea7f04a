"""
Follows one job to its end, for the synchronous operator and for the trigger.

The outcome comes from the job's status only. The log stream runs beside it; its end prompts a request for the status.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client import verbs
from airflow_provider_rayjobs.client.contact import Contact
from airflow_provider_rayjobs.client.log_files import read_file
from airflow_provider_rayjobs.diagnosis.pending import explain_pauses
from airflow_provider_rayjobs.diagnosis.tasks import progress_line
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError, RayJobNotFoundError, RayJobsError
from airflow_provider_rayjobs.following.events import JobEvent, Outcome, event_of_job, may_run_hint
from airflow_provider_rayjobs.following.lines import TAIL_LINES, LineWriter
from airflow_provider_rayjobs.following.log_stream import LogFollower
from airflow_provider_rayjobs.following.poller import LONGEST_LOST_INTERVAL
from airflow_provider_rayjobs.jobs import JobDetails, JobFailure, JobStatus
from airflow_provider_rayjobs.progress import ProgressLines
from airflow_provider_rayjobs.text.safe_text import safe_text, without_logins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airflow_provider_rayjobs.following.poller import Poller
    from airflow_provider_rayjobs.following.subscription import Subscription, Trouble

#: With the time of an answer, a job's end is noticed within a twentieth of its age, or within 1.5 s if it is young.
SHORTEST_INTERVAL = 1.35
INTERVAL_SHARE = 0.047

#: Seconds to wait for a job that was asked to stop; Ray sends SIGKILL a few seconds after SIGTERM.
LIMIT_STOP_TIMEOUT = 30.0

#: Longest time in seconds for all requests of a stop, if the cluster is slow to answer.
LIMIT_STOP_TOTAL = 60.0

#: Longest time in seconds for reading only the log's last lines.
TAIL_PATIENCE = 8.0

#: Maximum size of the last lines, in bytes; a line may be as long as its log.
TAIL_LIMIT = 8 * 1024 * 1024

#: Seconds for which the rest of the log is read without a word.
QUIET_DRAIN = 6.0

#: Seconds between two counts of a job's Ray tasks, and from RUNNING to the first one.
COUNT_EVERY = 60.0

#: Most seconds after the submission at which a job that is already RUNNING when it is first looked at counts as having
#: left PENDING just then.
EARLY = 10.0

#: Seconds for which limits that have passed wait for the first answer about a job, which may have ended in time.
FIRST_LOOK_PATIENCE = 10.0


@dataclass(frozen=True)
class Watch:
    """
    What to follow, and how long; JSON values only.

    :param submission_id: the job.
    :param submitted_at: Unix seconds of its submission.
    :param session_name: the head's session at submission, to tell a restarted head from a deleted job.
    :param poll_interval: longest time between two requests for the job, in seconds.
    :param deadlines: name of a limit (``job_timeout``, ``execution_timeout``) to Unix seconds.
    :param pending_deadline: Unix seconds at which the job must have left PENDING.
    :param stream_logs: whether the job's lines are written to the log.
    :param log_progress: whether the log tells each minute how many of the job's Ray tasks are done.
    :param reattached_at: Unix seconds at which a later try took the job over.
    """

    submission_id: str
    submitted_at: float
    session_name: str | None = None
    poll_interval: float = 30.0
    deadlines: Mapping[str, float] = field(default_factory=dict)
    pending_deadline: float | None = None
    stream_logs: bool = True
    log_progress: bool = True
    reattached_at: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the constructor's arguments, as JSON."""
        arguments = {**asdict(self), "deadlines": dict(self.deadlines)}
        if self.log_progress:  # the default: an older triggerer does not know the argument
            del arguments["log_progress"]
        return arguments


def poll_delay(age: float, poll_interval: float) -> float:
    """
    Return the longest time until the next request for a job, in seconds.

    :param age: seconds since its submission.
    :param poll_interval: upper limit, in seconds.
    """
    return min(max(SHORTEST_INTERVAL, INTERVAL_SHARE * age), poll_interval)


class JobWatcher:
    """
    Follows one job.

    :param poller: polls the cluster's jobs.
    :param watch: what to follow.
    :param log: Airflow's or Python's logger for status changes and the job's lines.
    :param public_for: returns a function that removes secrets from text: those of a job, or, for None, those that are
        known without the job. None of the job's own text is shown before its details are known.
    :param write: called with each of the job's lines; by default they go to ``log``, too.
    """

    def __init__(
        self,
        poller: Poller,
        watch: Watch,
        log: Any,
        public_for: Callable[[JobDetails | None], Callable[[str], str]] = lambda job: str,
        write: Callable[[str], None] | None = None,
    ) -> None:
        self._poller = poller
        self._transport = poller.transport
        self._watch = watch
        self._log = log
        self._status: JobStatus | None = None
        self._status_name = ""  # as the durations call it
        self._status_since = watch.submitted_at
        self._spent: list[tuple[str, float]] = []  # each earlier status, and for how many seconds it was seen
        self._left_pending_at: float | None = None  # Unix seconds
        self._ended_at: float | None = None  # Unix seconds
        self._passed: str | None = None  # the limit for which the job was asked to stop
        self._stop_again = 0.0  # Unix seconds at which to try again, after a stop without contact
        self._contact = Contact(poller.cluster.unreachable_timeout, log, self.public)
        self._began = time.time()
        self._job: JobDetails | None = None  # as it was last seen
        self._node_id: str | None = None  # of the node that has the job's files
        self._public_for = public_for
        self._public = public_for(None)
        show = write or log.info
        self._progress = ProgressLines(lambda line: show(safe_text(self.public(line))))
        self._logs = LogFollower(
            self._transport,
            watch.submission_id,
            show,
            lambda text: log.warning("%s", self.public(text)),
            take=self._progress.take,
            public=self.public,
            slots=poller.stream_slots,
        )
        self._prepared = asyncio.Event()
        self._waits_for = ""  # why the job is PENDING, when it was last asked

    @property
    def is_cut_off(self) -> bool:
        """Whether the last request for the job got no answer."""
        return self._contact.lost

    async def run(self) -> JobEvent:
        """Follow the job until it ends, a deadline passes, or contact is lost for too long."""
        streaming = None
        if self._watch.stream_logs:
            # After a takeover, such as a triggerer restart, the log is read from its beginning: Ray keeps no positions.
            self._log.info("The job's log, from its first line:")
            streaming = asyncio.ensure_future(self._stream())
        explaining = asyncio.ensure_future(self._explain_wait())
        counting = asyncio.ensure_future(self._report_tasks())
        diagnosing: asyncio.Future[JobFailure | None] | None = None
        looking = asyncio.ensure_future(self._until_over())
        try:
            event = await self._first_of(looking, streaming, explaining, counting)
            self._logs.over.set()
            if event.outcome is Outcome.FAILED:
                # Now: 15 s after the end, Ray marks all tasks that had not ended as failed.
                diagnosing = asyncio.ensure_future(self._why_failed())
            if streaming is not None:
                if event.outcome in (Outcome.LOST, Outcome.UNREACHABLE) or not self._prepared.is_set():
                    streaming.cancel()
                await asyncio.wait((streaming,), timeout=QUIET_DRAIN)
                if not streaming.done():
                    self._log.info("%s; reading the rest of the job's log", self._status)
                (problem,) = await asyncio.gather(streaming, return_exceptions=True)
                if isinstance(problem, Exception):
                    self._log.warning("Following the job's log failed: %s", self.public(repr(problem)))
            self._progress.flush()
            if self._ended_at is not None and self._status is not None:
                self._log.info(_end_line(str(self._status), self._seconds(), self._spent))
            event = self.masked(event)
            if diagnosing is not None:
                # Airflow writes events into logs and its database, so they hold only the lines that somebody will read.
                tail, shown = await self._tail(), self._logs.complete
                event = replace(event, log_tail=tail, log_shown=shown, failure=await diagnosing)
            return replace(
                event,
                ended_at=time.time(),
                submitted_at=self._watch.submitted_at,
                left_pending_at=self._left_pending_at,
                # Not `_ended_at`: the head's clock may differ from this one.
                finished_at=None if self._ended_at is None else self._watch.submitted_at + self._seconds(),
            )
        finally:
            tasks = [task for task in (looking, explaining, counting, streaming, diagnosing) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def public(self, text: str) -> str:
        """Return a text without secrets: those of the job, once its details are known."""
        return self._public(text)

    def masked(self, event: JobEvent) -> JobEvent:
        """Return an event without secrets: Airflow keeps it in its database, and a job's texts may hold some."""
        report = self._progress.last

        def shown(text: str) -> str:
            # Ray reports a failed set-up with its commands, and their URLs may hold logins.
            return safe_text(without_logins(self._public(text)))

        return replace(
            event,
            detail=shown(event.detail),
            message=event.message and shown(event.message),
            error_type=event.error_type and shown(event.error_type),
            progress=report and {**report, "message": shown(report["message"])},
        )

    async def _report_tasks(self) -> None:
        """Log how many Ray tasks are done, once a minute at most, if that has changed."""
        known, job_id = None, None
        while self._watch.log_progress:
            await asyncio.sleep(COUNT_EVERY)
            # A function that reports its progress says more than its tasks do.
            if self._status is not JobStatus.RUNNING or self._contact.lost or self._progress.last is not None:
                continue
            job_id = job_id or (self._job.job_id if self._job else None)
            tasks = await self._poller.job_tasks(self._watch.submission_id, job_id)
            if tasks is not None and tasks != known and self._status is JobStatus.RUNNING:
                known = tasks
                self._log.info(progress_line(tasks, self._public))

    async def _why_failed(self) -> JobFailure | None:
        """Find out why the job FAILED; None if this can't be found out. It never changes the outcome."""
        try:
            return await self._poller.why_failed(self._job, self._public) if self._job else None
        except Exception as e:  # noqa: BLE001 - a cluster may say anything
            self._log.info("Why the job failed can't be found out (%s)", type(e).__name__)
            return None

    async def _explain_wait(self) -> None:
        """Log why the job is PENDING, at growing intervals, until it is not."""
        for pause in explain_pauses():
            await asyncio.sleep(pause)
            if self._status not in (None, JobStatus.PENDING):
                return
            if not self._is_pending:
                continue
            reason = await self._poller.why_pending(self._watch.submission_id, self._public)
            if reason and self._is_pending:
                self._waits_for = reason
                self._log.info("PENDING for %.0f s: %s", time.time() - self._status_since, self._waits_for)

    async def _stream(self) -> None:
        await self._prepared.wait()
        await self._logs.run()

    @staticmethod
    async def _first_of(looking: asyncio.Future[JobEvent], *beside: asyncio.Future[Any] | None) -> JobEvent:
        """Wait for the outcome; a signal or an alarm that was raised in a task beside ends the wait, too."""
        running: set[asyncio.Future[Any]] = {looking, *(task for task in beside if task is not None)}
        while not looking.done():
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {looking}:
                error = None if task.cancelled() else task.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
        return await looking

    async def _tail(self) -> tuple[str, ...]:
        """Return the last lines of the job's log, for the error of a failed job; none if they can't be read."""
        if self._logs.complete or self._node_id is None:
            return self._logs.lines.tail()
        lines = LineWriter(lambda line: None)

        def begin() -> Callable[[str], Iterable[None]]:
            nonlocal lines
            lines = LineWriter(lambda line: None, ProgressLines(lambda line: None).take, self._public)
            return lines.steps

        try:
            async with asyncio.timeout(TAIL_PATIENCE):
                last = read_file(self._watch.submission_id, self._node_id, begin, lines=TAIL_LINES, limit=TAIL_LIMIT)
                await self._transport.run(last)
        except (RayJobsError, TimeoutError) as e:
            problem = str(e) or f"no answer within {TAIL_PATIENCE:.0f} s"
            self._log.info("The last lines of the job's log can't be read: %s", self.public(problem))
            return ()
        lines.flush()
        return lines.tail()

    async def _until_over(self) -> JobEvent:
        watch = self._watch

        def delay() -> float:
            return poll_delay(time.time() - watch.submitted_at, watch.poll_interval)

        with self._poller.subscribe(watch.submission_id, delay) as job:
            self._logs.on_close = job.hurry  # the stream's end is a hint that the job is over
            while True:
                if event := await self._decide(await job.news(self._patience()), job):
                    return event

    async def _decide(self, news: JobDetails | Trouble | None, job: Subscription) -> JobEvent | None:
        """Return the outcome, if the news or the time decides it."""
        if isinstance(news, JobDetails):
            self._contact.back()
            self._learn(news)
            self._report(news.status)
            if news.status.is_terminal:
                return self._ended(news)
        elif news is not None:
            if isinstance(news.error, RayJobNotFoundError):
                return await self._lost()
            self._contact.failed(news.error, news.since)
        if event := self._given_up():
            return event
        if passed := self._passed_deadline():
            try:
                return await self._timed_out(passed)
            except RayJobsError as e:
                self._stop_again = time.time() + LONGEST_LOST_INTERVAL
                self._contact.failed(e)
                job.forget()  # the next request shows whether contact is back
                job.hurry()
        return self._given_up()

    def _learn(self, job: JobDetails) -> None:
        """Store the details by which the job's process, its log and its secrets are found."""
        self._job = job
        self._node_id = self._logs.node_id = job.driver_node_id or self._node_id
        if not self._prepared.is_set():
            self._public = self._public_for(job)
            self._prepared.set()

    def _patience(self) -> float | None:
        """Return the seconds after which a decision is due even without news; None: never."""
        limits = [*self._watch.deadlines.values()]
        if self._status is None:
            limits = [max(limit, self._began + FIRST_LOOK_PATIENCE) for limit in limits]
        if self._watch.pending_deadline is not None and self._is_pending:
            limits.append(self._watch.pending_deadline)
        now = time.time()
        left = min([self._contact.left, *(max(limit, self._stop_again) - now for limit in limits)])
        return None if left == math.inf else left

    @property
    def _is_pending(self) -> bool:
        """Whether the job was PENDING when it was last seen, and contact is not lost."""
        return self._status is JobStatus.PENDING and not self._contact.lost

    def _report(self, status: JobStatus) -> None:
        if status == self._status:
            return
        if not status.is_known:
            self._log.warning("Ray reports the unknown job status %s; it is treated as not terminal", status)
        now = time.time()
        self._note_start(status, now)
        if self._status is None:
            # Nobody saw when a job that already runs, or has ended, left PENDING.
            self._status_name = str(status) if status is JobStatus.PENDING else f"PENDING and {status}"
        else:
            self._spent.append((self._status_name, now - self._status_since))
            self._status_name = str(status)
        if not status.is_terminal:  # the end has a line of its own, once the job's log is complete
            earlier = f" after {self._spent[-1][1]:.1f} s {self._spent[-1][0]}" if self._spent else ""
            self._log.info("%s%s", status, earlier)
        if self._status is not None:
            self._status_since = now
        self._status = status

    def _note_start(self, status: JobStatus, now: float) -> None:
        """Note when the job left PENDING. A follower that came late, such as a restarted triggerer, can't know it."""
        if status is JobStatus.PENDING or self._left_pending_at is not None:
            return
        age = now - self._watch.submitted_at
        if self._status is JobStatus.PENDING:
            # One that ran and ended between two looks did so within the time between them.
            ran = status.is_terminal and status is not JobStatus.STOPPED
            between = poll_delay(age, self._watch.poll_interval) if ran else 0.0
            self._left_pending_at = max(now - between, self._watch.submitted_at)
        elif self._status is None and not status.is_terminal and age < EARLY and self._watch.reattached_at is None:
            self._left_pending_at = now

    def _event(self, outcome: Outcome, detail: str) -> JobEvent:
        return JobEvent(
            submission_id=self._watch.submission_id,
            address=self._transport.cluster.address,
            outcome=outcome,
            detail=detail,
            reattached_at=self._watch.reattached_at,
        )

    def _ended(self, job: JobDetails) -> JobEvent:
        self._report(job.status)
        self._ended_at = time.time() if job.end_time is None else job.end_time / 1000
        if job.status is JobStatus.STOPPED and (passed := self._passed or self._passed_before(job)):
            return replace(self._event(Outcome.TIMEOUT, f"{passed}; it was stopped"), may_run=False)
        event = event_of_job(job, self._transport.cluster.address, reattached_at=self._watch.reattached_at)
        return replace(event, submission_id=self._watch.submission_id)

    def _seconds(self) -> float:
        """Return how long the job took, by the head's clock if that tells."""
        job = self._job
        if job is not None and job.start_time is not None and job.end_time is not None:
            return (job.end_time - job.start_time) / 1000
        return (self._ended_at or time.time()) - self._watch.submitted_at

    async def _lost(self) -> JobEvent:
        """Find out why the cluster no longer knows the job, and whether its process may still run."""
        before, reason = self._watch.session_name, ""
        try:
            now = (await self._transport.run(verbs.get_version())).session_name
            if not (before and now):  # Ray names its sessions since 2.35 or a little earlier
                reason = "it was deleted from the cluster, or the head restarted and forgot its jobs"
            elif before != now:
                reason = f"the head restarted (session {before} became {now}) and forgot its jobs"
        except RayJobsError as e:
            reason = f"the cluster answered HTTP 404, then nothing ({e})"
        if not reason:  # the job has ended: Ray deletes no other
            detail = (
                "was deleted from the cluster, whose head did not restart. A retry of this task submits the job again."
            )
            return replace(self._event(Outcome.LOST, detail), may_run=False)
        hint = may_run_hint(self._watch.submission_id, self._job)
        event = self._event(Outcome.LOST, f"is gone: {reason}. {hint} A retry of this task submits the job again.")
        if self._job is None:
            return event
        return replace(event, node_id=self._job.driver_node_id, node_ip=self._job.driver_ip)

    def _given_up(self) -> JobEvent | None:
        if (detail := self._contact.given_up()) is None:
            return None
        text = f"could not be followed (it may still run; a retry of this task finds it): {detail}"
        return self._event(Outcome.UNREACHABLE, text)

    def _passed_before(self, job: JobDetails) -> str | None:
        """
        Return the limit for which an earlier watcher stopped a job, in a triggerer that was restarted since; else None.

        A job that was stopped for a limit ended after it. Ray does not report whether a stopped job ever ran. So for
        ``pending_timeout`` the job must have ended while that watcher waited for its end.
        """
        watch = self._watch
        ends = [self._ended_at or time.time()]  # by the head's clock, which may be wrong
        if job.start_time is not None and job.end_time is not None:  # exact, but for the time of the submission
            ends.append(watch.submitted_at + (job.end_time - job.start_time) / 1000)
        ended_at = min(max(ends), time.time())
        passed = [(deadline, name) for name, deadline in watch.deadlines.items() if deadline <= ended_at]
        ran = any(status != JobStatus.PENDING for status, _ in self._spent)
        pending = math.inf if watch.pending_deadline is None or ran else watch.pending_deadline
        if pending <= ended_at and min(ends) < pending + LIMIT_STOP_TIMEOUT:
            passed.append((pending, "pending_timeout"))
        if not passed:
            return None
        return f"exceeded its {min(passed)[1]}: it ended {ended_at - watch.submitted_at:.0f} s after its submission"

    def _passed_deadline(self) -> str | None:
        """Return the limit that has passed, as a message; else None."""
        now = time.time()
        if now < self._stop_again:
            return None
        for name, deadline in self._watch.deadlines.items():
            if now >= deadline:
                return f"exceeded its {name}: it was submitted {now - self._watch.submitted_at:.0f} s ago"
        pending = self._watch.pending_deadline
        if pending is not None and now >= pending and self._is_pending:
            why = f" ({self._waits_for})" if self._waits_for else ""
            return f"exceeded its pending_timeout: still PENDING after {now - self._watch.submitted_at:.0f} s{why}"
        return None

    async def _timed_out(self, what: str) -> JobEvent:
        """Stop the job; if it ended by itself meanwhile, its outcome counts."""
        self._log.warning("The job %s; stopping it", what)
        self._passed = what
        stop = verbs.stop_and_wait(self._watch.submission_id, patience=LIMIT_STOP_TIMEOUT)
        try:
            async with asyncio.timeout(LIMIT_STOP_TOTAL):
                job = await self._transport.run(stop)
        except TimeoutError:
            address = self._transport.cluster.address
            raise RayClusterUnreachableError(
                f"{address}: no answer to the request to stop within {LIMIT_STOP_TOTAL:.0f} s", address=address
            ) from None
        if job is None:
            return await self._lost()
        if job.status.is_terminal:
            self._learn(job)
            return self._ended(job)
        result = f"it is still {job.status} {LIMIT_STOP_TIMEOUT:.0f} s after it was asked to stop"
        return self._event(Outcome.TIMEOUT, f"{what}; {result}")


def _end_line(status: str, seconds: float, spent: Sequence[tuple[str, float]]) -> str:
    """
    Return the log line that summarizes a job.

    :param seconds: from the submission to the job's end.
    :param spent: each status that was seen, and for how many seconds. The last one lasted until the job's end, which is
        seen later; so the durations add up.
    """
    total = tenths = max(round(10 * seconds), 0)
    parts = []
    for number, (earlier, held) in enumerate(spent, start=1):
        part = tenths if number == len(spent) else min(round(10 * held), tenths)
        tenths -= part
        parts.append(f"{earlier} {part / 10:.1f} s")
    listed = ", ".join(parts)
    return f"{status} after {total / 10:.1f} s{f' ({listed})' if parts else ''}"

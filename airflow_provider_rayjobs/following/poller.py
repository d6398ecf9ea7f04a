"""
Polls all jobs of one cluster that a process follows.

Followers subscribe to a job and wait for its news. The poller decides when and how to ask the head: for one job at a
time, for a few at once, or for all with a list of jobs or of live actors, whichever costs the head less (see
``head_load``). Contact with the cluster is lost for all followers together: one job is then requested again and again
until an answer comes.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import random
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_rayjobs.client import verbs
from airflow_provider_rayjobs.client.cluster_status import ClusterResources, cluster_resources
from airflow_provider_rayjobs.client.listing import count_actors, live_jobs, read_list
from airflow_provider_rayjobs.diagnosis.failure import Findings
from airflow_provider_rayjobs.diagnosis.pending import why_pending
from airflow_provider_rayjobs.diagnosis.tasks import JobTasks, job_tasks
from airflow_provider_rayjobs.exceptions import RayJobNotFoundError, RayJobsError
from airflow_provider_rayjobs.following.head_load import LEAST_WATCHED, LIST_COST, LOOK_COST, NO_LIST, HeadLoad, Plan
from airflow_provider_rayjobs.following.stream_slots import StreamSlots
from airflow_provider_rayjobs.following.subscription import FollowedJob, Subscription, Trouble
from airflow_provider_rayjobs.jobs import JobDetails, JobFailure, JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport

log = logging.getLogger(__name__)

#: Most requests for single jobs at the same time.
LOOKS_AT_ONCE = 16

#: Shortest time in seconds between two requests for one job, whatever its followers ask for.
LEAST_INTERVAL = 0.1

#: Shortest time in seconds between two rounds, and how long a plan is kept.
ROUND = 0.05
PLAN_HOLDS = 1.0

#: Longest time in seconds between two requests while the cluster is unreachable.
LONGEST_LOST_INTERVAL = 5.0

#: Longest time in seconds for which the first request for a job waits for the next list.
FIRST_PATIENCE = 2.0

#: Seconds for which no list is requested after one that failed.
LIST_PAUSE = 300.0

#: Seconds to wait for the list of live actors; the list of a thousand takes 0.1 s.
ACTORS_PATIENCE = 2.0

#: Longest time in seconds for estimating the number of jobs on record.
ESTIMATE_PATIENCE = 10.0

#: Seconds for which what the cluster says of its resources is used, and that an explanation may take.
RESOURCES_HOLD = 10.0
EXPLAIN_TIMEOUT = 10.0

#: Most failed jobs that are looked into at the same time; the seconds that others wait for it; and the seconds of the
#: head's time that one takes, if it has few tasks.
DIAGNOSES_AT_ONCE = 2
QUEUE_TIMEOUT = 20.0
DIAGNOSIS_COST = 0.03

#: Share of the head's time that counting the tasks of jobs may take.
TASKS_SHARE = 0.02

#: Seconds until a poller that crashed continues.
CRASH_PAUSE = 1.0


class Poller:
    """
    Polls the jobs of one cluster for all their followers; belongs to the running event loop.

    :param transport: the cluster; closed with the poller.
    """

    def __init__(self, transport: AiohttpTransport) -> None:
        self.transport = transport
        self.cluster = transport.cluster
        self.stream_slots = StreamSlots()
        self.load = HeadLoad()
        self._jobs: dict[str, FollowedJob] = {}
        self._running: asyncio.Task[None] | None = None
        self._looks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._more = asyncio.Event()
        self._rests_until = -math.inf
        self._doubt = asyncio.Lock()
        self._outage: Trouble | None = None
        self._heard = -math.inf  # when the cluster last answered
        self._estimated = False
        self._plan = (-math.inf, NO_LIST)  # when it was made, and the plan
        self._last_list = -math.inf
        self._no_list_before = self._no_actors_before = -math.inf
        self._diagnoses = asyncio.Semaphore(DIAGNOSES_AT_ONCE)
        self._counting = asyncio.Lock()
        self._counts_from = -math.inf  # when the next count may begin
        self._reading_resources = asyncio.Lock()
        self._resources: tuple[float, ClusterResources | None] = (-math.inf, None)  # when they were read

    @property
    def followed(self) -> int:
        """How many jobs are followed."""
        return len(self._jobs)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop polling, and close the session."""
        running, self._running = self._running, None
        tasks = [*self._looks, *([] if running is None else [running])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.transport.close()

    @contextmanager
    def subscribe(self, submission_id: str, delay: Callable[[], float]) -> Iterator[Subscription]:
        """
        Follow a job.

        :param submission_id: the job.
        :param delay: returns the longest time in seconds until the next request; called after each request.
        """
        job = self._jobs.setdefault(submission_id, FollowedJob(submission_id))
        follower = Subscription(lambda: max(delay(), LEAST_INTERVAL), lambda: self._hurry(job))
        job.followers.append(follower)
        job.delay = min(job.delay, delay())
        if self._outage is not None:
            follower.post(self._outage)
        if len(job.followers) > 1:
            self._hurry(job)
        else:
            self._start()
        try:
            yield follower
        finally:
            job.followers.remove(follower)
            if not job.followers:
                self._jobs.pop(job.id, None)
            if not self._jobs:
                self._outage = None  # followers that come later get the whole ``unreachable_timeout``

    async def why_pending(self, submission_id: str, public: Callable[[str], str]) -> str:
        """
        Return why a job is PENDING; empty if it is not, or if this can't be found out.

        All followers share what the cluster says of its resources, for :data:`RESOURCES_HOLD` seconds.

        :param public: removes the job's secrets from text.
        """
        try:
            async with asyncio.timeout(EXPLAIN_TIMEOUT):
                await asyncio.sleep(self.load.pause(LOOK_COST, time.monotonic()))
                job = await self.transport.run(verbs.get_job_info(submission_id))
                if job.status is not JobStatus.PENDING:
                    return ""
                async with self._reading_resources:
                    read_at, resources = self._resources
                    if time.monotonic() - read_at > RESOURCES_HOLD:
                        resources = await self.transport.run(cluster_resources())
                        self._resources = (time.monotonic(), resources)
        except (RayJobsError, TimeoutError):
            return ""
        return why_pending(job, resources, public)

    async def why_failed(self, job: JobDetails, public: Callable[[str], str]) -> JobFailure | None:
        """
        Find out why a job FAILED, as far as that takes at most :data:`EXPLAIN_TIMEOUT` seconds.

        :param public: removes the job's secrets from text.
        :return: None if other jobs were looked into for :data:`QUEUE_TIMEOUT` seconds.
        """
        findings = Findings(job)
        try:
            async with asyncio.timeout(QUEUE_TIMEOUT):
                await self._diagnoses.acquire()
        except TimeoutError:
            return None
        try:
            await asyncio.sleep(self.load.pause(DIAGNOSIS_COST, time.monotonic()))
            began = time.monotonic()
            with suppress(RayJobsError, TimeoutError):
                async with asyncio.timeout(EXPLAIN_TIMEOUT):
                    await self.transport.run(findings.read())
            now = time.monotonic()
            self.load.pause(max(now - began - DIAGNOSIS_COST, 0.0), now)  # a job of many tasks costs more
        finally:
            self._diagnoses.release()
        return findings.failure(public)

    async def job_tasks(self, submission_id: str, ray_job_id: str | None) -> JobTasks | None:
        """
        Count a job's Ray tasks; None if it has none, or they can't be counted.

        The counts for all followers take at most :data:`TASKS_SHARE` of the head's time, so this may wait for minutes.

        :param ray_job_id: Ray's id of the job, if it is known.
        """
        async with self._counting:
            await asyncio.sleep(max(self._counts_from - time.monotonic(), 0.0))
            began = time.monotonic()
            try:
                async with asyncio.timeout(EXPLAIN_TIMEOUT):
                    if not ray_job_id:  # the job had not connected to Ray when it was last seen
                        ray_job_id = (await self.transport.run(verbs.get_job_info(submission_id))).job_id
                    return await self.transport.run(job_tasks(ray_job_id)) if ray_job_id else None
            except (RayJobsError, TimeoutError):
                return None
            finally:
                now = time.monotonic()
                self._counts_from = now + (now - began) / TASKS_SHARE

    def _hurry(self, job: FollowedJob) -> None:
        job.hint(time.monotonic())
        self._start()

    def _start(self) -> None:
        """Wake the poller up, or start it."""
        self._more.set()
        if self._running is None or self._running.done():
            # By the context, Airflow finds the task that a log record belongs to; the poller belongs to no task.
            loop = asyncio.get_running_loop()
            self._running = loop.create_task(self._run(), name="ray-jobs-poller", context=contextvars.Context())
            self._running.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        """Pass on what ended the poller: a cancellation, or a signal or alarm that happened to be raised in it."""
        if task is not self._running:
            return  # it was closed
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if isinstance(error, asyncio.CancelledError):
            self._lost(RayJobsError(f"{self.cluster.address}: the poller of this cluster was cancelled"))
            for job in self._jobs.values():
                self._hurry(job)
        elif error is not None:
            for job in self._jobs.values():
                job.tell(error)

    async def _run(self) -> None:
        while True:
            try:
                await self._round()
            except Exception as e:  # followers must not wait forever
                log.exception("The poller of %s crashed; it continues", self.cluster.address)
                self._lost(RayJobsError(f"{self.cluster.address}: the poller of this cluster crashed: {e!r}"))
                await asyncio.sleep(CRASH_PAUSE)

    async def _round(self) -> None:
        """Do what is due; if nothing is, wait until something becomes due."""
        self._more.clear()
        if self._outage is not None and self._jobs:
            await self._probe()
            return
        now = time.monotonic()
        waiting = [job for job in self._jobs.values() if not job.looking]
        due = [job for job in waiting if job.due <= now]
        next_list = self._next_list(now)
        if due or next_list <= now:
            await self._ask(due, now)
            await asyncio.sleep(ROUND)
            return
        self._rests_until = min([next_list, *(job.due for job in waiting)])
        rest = self._rests_until - now
        with suppress(TimeoutError):
            async with asyncio.timeout(None if rest == math.inf else rest):
                await self._more.wait()
        self._rests_until = -math.inf

    async def _ask(self, due: list[FollowedJob], now: float) -> None:
        await self._learn_record()
        if unlisted := [job for job in due if job.unlisted]:
            # At once, not with the next list: the head may have forgotten these jobs.
            await self._look_at(unlisted)
            return
        (_, covers, of_actors), next_list = self._current_plan(now), self._next_list(now)
        # The first request for a new job must not wait long.
        soon = next_list < now + FIRST_PATIENCE
        own: list[FollowedJob] = []
        left: list[FollowedJob] = []
        for job in due:
            waits = not job.alone and job.delay >= covers and (soon or job.due > -math.inf)
            waits = waits and (not of_actors or job.is_told_by_actor(now))
            (left if waits else own).append(job)
        if now >= self._no_list_before and LOOK_COST * len(own) > self.load.list_cost(len(self._jobs)):
            await self._list(0.0)
            return
        if next_list > now:
            for job in left:
                job.due = next_list
        await self._look_at(own)
        if next_list <= now and self._outage is None:
            await asyncio.sleep(0)  # those requests are sent first: a head answers nothing else while it makes a list
            await (self._list_actors(covers) if of_actors else self._list(covers))

    async def _look_at(self, jobs: list[FollowedJob]) -> None:
        """Request jobs one by one, each as soon as the head's load allows and a slot is free."""
        for job in jobs:
            if self._is_vain(job):
                continue
            if (pause := self.load.pause(LOOK_COST, time.monotonic())) > ROUND:  # one pause for several requests
                await asyncio.sleep(pause)
            await self._slots.acquire()
            if self._is_vain(job):
                self._slots.release()
                continue
            job.looking = True
            look = asyncio.create_task(self._look(job), name=f"ray-jobs-look-{job.id}")
            self._looks.add(look)
            look.add_done_callback(self._looks.discard)

    def _is_vain(self, job: FollowedJob) -> bool:
        """Return whether a request would help nobody: the cluster is unreachable, or the followers have left."""
        return self._outage is not None or not job.followers

    async def _learn_record(self) -> None:
        """Estimate once how many jobs are on record, if enough jobs are followed for it to matter."""
        if self._estimated or len(self._jobs) < LEAST_WATCHED:
            return
        self._estimated = True
        with suppress(TimeoutError):
            async with asyncio.timeout(ESTIMATE_PATIENCE):
                if (number := await self.transport.run(count_actors())) is not None:
                    self.load.estimate(number)
                    self._plan = (-math.inf, NO_LIST)

    def _current_plan(self, now: float) -> Plan:
        if now < self._no_list_before:
            return NO_LIST
        made, plan = self._plan
        if now - made >= PLAN_HOLDS:
            known = [job for job in self._jobs.values() if job.delay < math.inf]
            running = [job.delay for job in known if job.is_told_by_actor(now) and now >= self._no_actors_before]
            plan = self.load.plan([job.delay for job in known], running)
            self._plan = (now, plan)
        return plan

    def _next_list(self, now: float) -> float:
        """Return when the next list is due; infinity if none is."""
        interval = self._current_plan(now).interval
        return self._last_list + interval if interval < math.inf else math.inf

    async def _list(self, covers: float) -> None:
        """
        Request all jobs at once; those that are not in the list are then requested one by one.

        :param covers: as in :class:`Plan`; jobs with a shorter delay are still requested at their own pace.
        """
        missing = set(self._jobs)
        began = time.monotonic()

        def take(data: dict[str, Any]) -> None:
            submission_id = data.get("submission_id")
            job = self._jobs.get(submission_id) if isinstance(submission_id, str) else None
            if job is not None:
                if not isinstance(status := data.get("status"), str):
                    raise ValueError("a job without a status")
                job.found(status, lambda: JobDetails.from_json(data), began, paces=job.delay >= covers)
                missing.discard(job.id)

        try:
            number = await self.transport.run(read_list(lambda: take, repeatable=False))
        except RayJobsError as e:
            # Not the error's text: it may quote any job.
            log.info("The list of jobs could not be read (%s); polling them one by one", type(e).__name__)
            self._no_list_before = time.monotonic() + LIST_PAUSE
            return
        self.load.listed(number)
        self._last_list = began
        self._plan = (-math.inf, NO_LIST)
        for name in missing & self._jobs.keys():
            self._jobs[name].unlisted = True
            self._jobs[name].hint(time.monotonic())
        await asyncio.sleep(self.load.pause(LIST_COST * number, time.monotonic()))

    async def _list_actors(self, covers: float) -> None:
        """
        Request the actors that are alive. A running job whose actor is not among them is then requested.

        :param covers: as in :meth:`_list`.
        """
        began = time.monotonic()
        found = None
        # The State API may be slow, or never answer. Nothing else is requested meanwhile.
        with suppress(TimeoutError):
            async with asyncio.timeout(ACTORS_PATIENCE):
                found = await self.transport.run(live_jobs())
        self._last_list = began
        self._plan = (-math.inf, NO_LIST)
        if found is None:
            self._no_actors_before = time.monotonic() + LIST_PAUSE
            return
        names, self.load.alive = found
        for job in self._jobs.values():
            if job.id in names:
                job.actorless = False
                if job.delay >= covers and job.is_told_by_actor(began):
                    job.looked(began)
            elif job.runs and not job.actorless:
                job.actorless = True
                job.hint(time.monotonic())
        await asyncio.sleep(self.load.pause(self.load.alive_cost(), time.monotonic()))

    async def _look(self, job: FollowedJob) -> None:
        """Request one job; releases the slot that the caller has acquired."""
        try:
            error = await self._found(job)
            if error is not None:
                await self._doubtful(job, error)
        except asyncio.CancelledError:
            raise
        except BaseException as e:  # noqa: BLE001 - a signal raised here, or a defect: must not be lost
            job.tell(e)
        finally:
            job.looking = False
            self._slots.release()
            if job.due < self._rests_until:
                self._more.set()

    async def _found(self, job: FollowedJob) -> RayJobsError | None:
        """Request one job and notify its followers; return the error if there was no answer about it."""
        self.load.looked()
        began = time.monotonic()
        try:
            details = await self.transport.run(verbs.get_job_info(job.id))
        except RayJobNotFoundError as e:
            self._answered()
            job.failing = None
            job.looked(began)
            job.tell(Trouble(e, began))
        except RayJobsError as e:
            return e
        else:
            self._answered()
            job.found(details.status, lambda: details, began)
        return None

    async def _doubtful(self, job: FollowedJob, error: RayJobsError) -> None:
        """Request another job, to find out whether the cluster is unreachable or only this job can't be read."""
        now = time.monotonic()
        job.failing = job.failing or now
        async with self._doubt:
            if self._outage is not None:
                return
            others = [other for other in self._jobs.values() if other.failing is None]
            if not others or await self._found(random.choice(others)) is not None:  # noqa: S311 - no secret
                # This job may have been unreadable for long before the cluster became unreachable.
                self._lost(error, max(job.failing, self._heard))
                return
        job.looked(time.monotonic())
        job.due, job.alone = min(job.due, time.monotonic() + LONGEST_LOST_INTERVAL), True
        job.tell(Trouble(error, job.failing))

    async def _probe(self) -> None:
        """Request some job, to find out whether the cluster answers again."""
        job = random.choice(list(self._jobs.values()))  # noqa: S311 - no secret
        pause = min((follower.delay() for follower in job.followers), default=0.0)
        await asyncio.sleep(min(pause, LONGEST_LOST_INTERVAL))
        if (error := await self._found(job)) is not None:
            self._lost(error)

    def _lost(self, error: RayJobsError, since: float | None = None) -> None:
        """Notify all followers that the cluster is unreachable, or still is; ignored if there are none."""
        if not self._jobs:
            return
        if self._outage is not None:
            since = self._outage.since
        self._outage = Trouble(error, time.monotonic() if since is None else since)
        for job in self._jobs.values():
            job.tell(self._outage)

    def _answered(self) -> None:
        """Record that the cluster answers; after an outage, request all jobs, spread over their delays."""
        now = self._heard = time.monotonic()
        if self._outage is None:
            return
        self._outage = None
        # A list may have failed for the same reason.
        self._no_list_before = self._no_actors_before = -math.inf
        self.load.alive = None
        for job in self._jobs.values():
            job.failing = None
            job.looked(now)
            job.due = now + random.random() * min(job.delay, LONGEST_LOST_INTERVAL)  # noqa: S311 - no secret

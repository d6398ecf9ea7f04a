"""Watches the ends of a cluster's jobs for a trigger of an asset, and tells each of them once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.ended import deployment_of, ended_job
from airflow_provider_rayjobs.compat import masking
from airflow_provider_rayjobs.compat.connections import derived_deployment
from airflow_provider_rayjobs.exceptions import RayJobsError, RayProtocolError
from airflow_provider_rayjobs.following.ends import ends_of
from airflow_provider_rayjobs.following.told import Told, mark_of
from airflow_provider_rayjobs.jobs import JobDetails
from airflow_provider_rayjobs.tasks.shared_pollers import cluster_of, poller_of
from airflow_provider_rayjobs.tasks.told_ends import read, write
from airflow_provider_rayjobs.text.safe_text import safe_value, without_logins

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Collection, Mapping

    from airflow_provider_rayjobs.client.ended import EndedJob
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.following.ends import EndsWatch

#: Maximum length of a value of the metadata and of a job's message in an event, in characters.
LONGEST_VALUE = 500
LONGEST_MESSAGE = 2000

#: Seconds within which Airflow should have recorded an event.
RECORDED_WITHIN = 300.0

#: Most events that are sent before Airflow has recorded them. Each is a transaction of the triggerer's main process,
#: which sends no heartbeat meanwhile.
MOST_UNDER_WAY = 100

#: Seconds until the Variable is read again, to see what was recorded.
RECORDED_POLL = 1.0

#: Airflow answers "there is no such Variable" also if its database or secrets backend fails. So an absent Variable must
#: be absent this many times, over this many seconds: a new one, and one that was there before.
ABSENT_READS = 3
NEW_AFTER = 5.0
DELETED_AFTER = 30.0


#: Seconds until the connection is read again: it may lead to another cluster.
CONNECTION_READ_AGAIN = 300.0


class VariableUnreadableError(RuntimeError):
    """The Variable with what was told can't be read at the moment, or was deleted just now."""


@dataclass(frozen=True)
class Choice:
    """
    Which jobs are told, and what of them.

    :param metadata: values that a job's metadata must have.
    :param pattern: what its submission id must match, as of :mod:`fnmatch`.
    :param statuses: how it must have ended.
    :param with_metadata: further keys of the metadata that are told.
    """

    metadata: Mapping[str, str]
    pattern: str
    statuses: Collection[str]
    with_metadata: Collection[str]

    def wants(self, data: Mapping[str, Any], own: str) -> EndedJob | None:
        """
        Return a job that has ended and was chosen; None for other entries.

        :param data: an entry of the list of jobs.
        :param own: the name of this Airflow deployment, whose jobs are not told.
        """
        job = ended_job(data)
        if job is None or job.status not in self.statuses or deployment_of(data) == own:
            return None
        found = data.get("metadata")
        has = all(isinstance(found, dict) and found.get(key) == value for key, value in self.metadata.items())
        return job if has and fnmatchcase(job.submission_id, self.pattern) else None

    def payload(self, job: EndedJob, data: Mapping[str, Any], cluster: ClusterConnection) -> dict[str, Any]:
        """
        Return what is told of a job, as JSON values.

        :param data: its entry of the list.
        :raises ValueError: the entry is malformed.
        """
        details = JobDetails.from_json(data)
        public = masking.public_for(details, cluster)
        asked = {key: details.metadata[key] for key in (*self.metadata, *self.with_metadata) if key in details.metadata}
        told: dict[str, Any] = safe_value(
            {
                "submission_id": job.submission_id,
                "status": job.status,
                "start_time": details.start_time,
                "end_time": job.end_time,
                "driver_exit_code": details.driver_exit_code,
                "error_type": details.error_type,
                "message": without_logins(public(details.message or ""))[:LONGEST_MESSAGE],
                "metadata": {key: without_logins(public(value))[:LONGEST_VALUE] for key, value in asked.items()},
            }
        )
        return told


class JobEnds:
    """
    Tells each end of a job once.

    :param ray_conn_id: Airflow connection of type ``ray_jobs``.
    :param choice: which jobs are told.
    :param poll_interval: seconds between two lists of jobs.
    :param key: of the Variable with what was told.
    :param log: logger of the trigger.
    """

    def __init__(self, ray_conn_id: str, choice: Choice, poll_interval: float, key: str, log: Any) -> None:
        self._ray_conn_id = ray_conn_id
        self._choice = choice
        self._poll_interval = poll_interval
        self._key = key
        self._log = log
        self._told: Told | None = None
        self._first = Told()
        self._has_first = False  # the first list is complete
        self._of: tuple[str, str] | None = None  # the cluster's address, and this deployment
        self._was_there = False  # the Variable, some time
        self._absent: list[float] = []  # when it was not there, since it was there
        self._sent: dict[EndedJob, float] = {}  # and when
        self._has_contact = True

    async def until_lost(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the payload of each end; return when contact is lost, so that the connection is read again."""
        cluster = await cluster_of(self._ray_conn_id)
        own = cluster.deployment or derived_deployment()
        if self._of not in (None, (cluster.address, own)):
            self._told, self._first, self._has_first = None, Told(), False
        self._of = (cluster.address, own)
        read_at = time.monotonic()
        async with poller_of(cluster) as poller:
            take = partial(self._take, cluster, own)
            with ends_of(poller).watch(take, self._poll_interval) as watch:
                self._told = self._told or await self._known(cluster)
                while (found := await self._listed(watch, cluster)) is not None:
                    if self._told is None:
                        await self._begin(cluster)
                    while found and self._told is not None:
                        batch, found = found[:MOST_UNDER_WAY], found[MOST_UNDER_WAY:]
                        for job, payload in await self._new(batch):
                            self._sent[job] = time.monotonic()
                            self._note(job)
                            yield payload
                    if time.monotonic() - read_at > CONNECTION_READ_AGAIN:
                        read_at = time.monotonic()
                        if await cluster_of(self._ray_conn_id) != cluster:
                            return

    async def _known(self, cluster: ClusterConnection) -> Told | None:
        """Read the Variable; None if there is none, or if it is of another cluster or deployment."""
        found = await self._read()
        if found is None or found.of == self._of:
            return found
        if found.of is None:  # of an earlier version
            found.of = self._of
            await write(self._key, found)
            return found
        self._log.warning(
            "The connection %s now leads to %s, or has another deployment, so the watcher begins anew (%s)",
            self._ray_conn_id,
            cluster.address,
            self._key,
        )
        return None

    async def _read(self) -> Told | None:
        """
        Read the Variable; None if there is none.

        :raises VariableUnreadableError: it was there, and it is not certain that someone has deleted it.
        """
        if (found := await read(self._key)) is not None:
            self._was_there = True
            self._absent.clear()
            return found
        self._absent = [*self._absent[: ABSENT_READS - 1], time.monotonic()]
        if self._was_there and not self._is_gone():
            raise VariableUnreadableError(f"the Variable {self._key} can't be read, or was deleted")
        return None

    def _is_gone(self) -> bool:
        """Whether the Variable was absent often enough, for long enough."""
        wait = DELETED_AFTER if self._was_there else NEW_AFTER
        return len(self._absent) >= ABSENT_READS and self._absent[-1] - self._absent[0] >= wait

    def _take(
        self, cluster: ClusterConnection, own: str, data: Mapping[str, Any]
    ) -> tuple[EndedJob, Callable[[], dict[str, Any]]] | None:
        """Return a job whose end is to be told, and a function that makes its payload; None for all other entries."""
        if self._told is None:
            if not self._has_first:
                self._take_first(own, data)
            return None
        job = self._choice.wants(data, own)
        if job is None or not self._wants(self._told, job):
            return None
        return job, lambda: {**self._choice.payload(job, data, cluster), "ray_conn_id": self._ray_conn_id}

    def _take_first(self, own: str, data: Mapping[str, Any]) -> None:
        """Note an entry of the first list: what has ended before is not told."""
        now = time.time() * 1000
        if (ended := ended_job(data)) is not None:
            self._first.raise_floor(ended.end_time, now)
        if (job := self._choice.wants(data, own)) is not None:
            self._first.add(mark_of(job), job.end_time, now)

    def _note(self, job: EndedJob) -> None:
        """Note that an end was told."""
        if self._told is not None:
            self._told.add(mark_of(job), job.end_time, time.time() * 1000)

    @staticmethod
    def _wants(told: Told, job: EndedJob) -> bool:
        return not told.knows(job) and told.is_due(job, time.time() * 1000)

    async def _listed(
        self, watch: EndsWatch, cluster: ClusterConnection
    ) -> list[tuple[EndedJob, dict[str, Any]]] | None:
        """Return what the next list has; None if there is no contact."""
        try:
            found = await watch.jobs()
        except RayJobsError as e:
            self._lost(e, cluster)
            return None
        if not self._has_contact:
            self._has_contact = True
            self._log.info("The jobs of %s are listed again", cluster.address)
        return found

    async def _begin(self, cluster: ClusterConnection) -> None:
        """Note what the first list has as told, unless the Variable is there after all."""
        self._has_first = True
        while (found := await self._read()) is None and not self._is_gone():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(NEW_AFTER / ABSENT_READS)
        if found is None or found.of not in (None, self._of):
            self._first.of = self._of
            await write(self._key, self._first)
            # Airflow also accepts what it then can't store.
            if (found := await read(self._key)) is None:
                raise VariableUnreadableError(f"the Variable {self._key} could not be written")
            self._was_there = True
            self._absent.clear()
            self._log.info("Watching the ends of Ray jobs at %s from now on (%s)", cluster.address, self._key)
        self._told, self._first, self._has_first = found, Told(), False

    async def _new(self, found: list[tuple[EndedJob, dict[str, Any]]]) -> list[tuple[EndedJob, dict[str, Any]]]:
        """
        Return the payloads of those that Airflow has not recorded, perhaps from another triggerer.

        Waits while too many events are under way.

        :param found: at most :data:`MOST_UNDER_WAY`.
        """
        while (recorded := await self._read()) is not None:
            self._forget_sent(recorded)
            if not self._sent or len(self._sent) + len(found) <= MOST_UNDER_WAY:
                payloads = []
                for job, payload in found:
                    if recorded.knows(job):
                        self._note(job)
                    elif self._wants(recorded, job):
                        payloads.append((job, {**payload, "watcher": self._key, "mark": mark_of(job)}))
                return payloads
            await asyncio.sleep(RECORDED_POLL)
        self._told = None  # someone deleted the Variable
        self._sent.clear()
        return []

    def _forget_sent(self, recorded: Told) -> None:
        """Forget what is recorded, or should have been."""
        late = [job for job, at in self._sent.items() if time.monotonic() - at > RECORDED_WITHIN]
        if any(not recorded.knows(job) for job in late):
            self._log.warning(
                "Airflow has not noted in the Variable %s what was sent; a restart would send it again. Is the plugin "
                "ray_jobs loaded in the triggerer?",
                self._key,
            )
        self._sent = {job: at for job, at in self._sent.items() if job not in late and not recorded.knows(job)}

    def _lost(self, error: RayJobsError, cluster: ClusterConnection) -> None:
        if self._has_contact:
            self._has_contact = False
            # The error of an answer that is not a list may quote any job.
            why = type(error).__name__ if isinstance(error, RayProtocolError) else str(error)
            text = masking.public_for(None, cluster)(why)
            self._log.warning("The jobs of %s can't be listed; retrying: %s", cluster.address, text)

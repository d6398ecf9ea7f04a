"""
Makes sure that a task instance has at most one cluster of its own, and that none stays behind.

These are the rules of :mod:`~airflow_provider_rayjobs.tasks.earlier_tries`, one level up. The cluster of a crashed
worker's try is taken over, together with its job. That of an earlier generation, from before a user's clear, is ended.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.checks import check_duration
from airflow_provider_rayjobs.exceptions import RayJobInterruptedError, RayJobsError
from airflow_provider_rayjobs.kubernetes import lease as leases
from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef, check_access, check_history_url
from airflow_provider_rayjobs.kubernetes.manifest import (
    PREFIX,
    checked_pairs,
    object_name,
    pre_running_deadline,
    rayjob,
    read_spec,
)
from airflow_provider_rayjobs.tasks.arguments import as_number
from airflow_provider_rayjobs.tasks.stopping import STOP_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_rayjobs.kubernetes.api import KubeApi
    from airflow_provider_rayjobs.kubernetes.cluster import KubeRayCluster
    from airflow_provider_rayjobs.kubernetes.lease import Lease, Owner
    from airflow_provider_rayjobs.kubernetes.manifest import ClusterSpec
    from airflow_provider_rayjobs.tasks.identity import TaskIdentity

#: The namespace if nothing names one.
DEFAULT_NAMESPACE = "default"


@dataclass(frozen=True)
class Wish:
    """A rendered and checked :class:`~airflow_provider_rayjobs.kuberay.KubeRayCluster`."""

    spec: ClusterSpec
    namespace: str
    kubernetes_conn_id: str
    start_timeout: float
    lifetime: float
    access: str
    history_url: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


def read_wish(cluster: KubeRayCluster, text: str | None = None) -> Wish:
    """
    Check a rendered cluster.

    :param text: the rendered content of its file, if it names one.
    :raises TypeError: a value has a wrong type; the message names it.
    :raises ValueError: a value is wrong; the message names it.
    """
    start_timeout, keep_seconds = as_number(cluster.start_timeout), as_number(cluster.keep_seconds)
    lifetime = as_number(cluster.lifetime)
    check_duration("start_timeout", start_timeout)
    check_duration("lifetime", lifetime)
    if isinstance(keep_seconds, bool) or not isinstance(keep_seconds, int) or keep_seconds < 0:
        raise ValueError(f"keep_seconds must be a whole number of seconds, not {cluster.keep_seconds!r}")
    if start_timeout is None:
        raise ValueError("start_timeout must be a number of seconds")
    if lifetime is None or lifetime <= start_timeout:
        raise ValueError(
            f"lifetime must be more seconds than start_timeout, {start_timeout:g}, not {cluster.lifetime!r}"
        )
    check_access(cluster.access)
    check_history_url(cluster.history_url)
    spec = read_spec(cluster.spec if text is None else text)
    return Wish(
        spec=spec,
        namespace=(cluster.namespace or spec.namespace or "").strip(),
        kubernetes_conn_id=cluster.kubernetes_conn_id,
        start_timeout=float(start_timeout),
        lifetime=float(lifetime),
        access=cluster.access,
        history_url=cluster.history_url,
        labels=checked_pairs("labels", cluster.labels),
        annotations=checked_pairs("annotations", cluster.annotations),
    )


def owner_of(identity: TaskIdentity, entrypoint: str | list[str] = "") -> Owner:
    """Return the marks of the RayJob that a submission makes."""
    where = {
        "deployment": identity.deployment,
        "dag-id": identity.dag_id,
        "run-id": identity.run_id,
        "task-id": identity.task_id,
        "map-index": str(identity.map_index),
        "max-tries": str(identity.max_tries),
        "run-started": identity.run_started,
    }
    return leases.Owner(
        name=object_name(identity.dag_id, identity.task_id, identity.attempt_key),
        task=identity.key,
        attempt=identity.attempt_key,
        generation=identity.generation,
        number=identity.number,
        try_number=identity.try_number,
        run_started=identity.run_started,
        annotations={PREFIX + name: value for name, value in where.items()},
        entrypoint=hashlib.blake2b(repr(entrypoint).encode(), digest_size=10).hexdigest(),
    )


class OwnCluster:
    """
    The cluster of one submission.

    :param api: runs the calls.
    :param wish: what the DAG author asked for.
    :param identity: this submission.
    :param log: the task's logger.
    :param owned: whether the cluster ends with the task's job; if not, it is for several tasks.
    :param job_timeout: seconds after which the task stops its job, if it has such a limit.
    :param entrypoint: the job's entrypoint.
    """

    def __init__(
        self,
        api: KubeApi,
        wish: Wish,
        identity: TaskIdentity,
        log: Any,
        *,
        owned: bool = True,
        job_timeout: float | None = None,
        entrypoint: str | list[str] = "",
    ) -> None:
        self._api = api
        self._wish = wish
        self._owner = owner_of(identity, entrypoint)
        self._log = log
        self._owned = owned
        self._job_timeout = job_timeout
        #: When this process made RayJobs, by their uid and this machine's clock.
        self._began: dict[str, float] = {}
        self.namespace = wish.namespace or api.namespace() or DEFAULT_NAMESPACE

    def settle(self, *, reattach: bool, results: bool = True) -> Lease:
        """
        Take over the cluster of an earlier try, or make one; end all others of this task.

        :param reattach: whether a cluster of an earlier try may be taken over.
        :param results: whether a RayJob whose job has SUCCEEDED may be returned, though its cluster may be gone.
        :raises RayKubernetesError: Kubernetes can't be asked, or refuses.
        :raises RayJobInterruptedError: a later try runs, so this process is left over.
        """
        found = self._api.run(leases.find(self.namespace, self._owner))
        if any(lease.is_after(self._owner) for lease in found):
            raise RayJobInterruptedError("No cluster was made: a later try of the task runs now")
        several = self._owner.number > 1 or any(lease.label(leases.NUMBER) != "1" for lease in found)
        chosen = self._chosen(found, several=several, results=results) if reattach else None
        for lease in found:
            if lease is not chosen and not self._stays(lease, usable=several and chosen is not None):
                self._end(lease, wait=True)
        if chosen is None:
            return self._create()
        if chosen.is_live:
            self._log.info("Took over the cluster of an earlier try: %s", self.ref(chosen))
        return chosen

    def _chosen(self, found: list[Lease], *, several: bool, results: bool) -> Lease | None:
        """
        Return the RayJob of this generation that does the same work.

        A task that submits several times may do so in another order in each try. So the entrypoints are compared then,
        as for the jobs themselves; else it may contain the try's number.
        """
        mine = [lease for lease in found if self._is_of_generation(lease)]
        numbered = [lease for lease in mine if self._has_same_number(lease)]
        # If not, a loop may submit the same entrypoint several times: only the number counts then.
        reordered = several and not all(map(self._has_same_entrypoint, numbered))
        usable = [
            lease
            for lease in mine
            if ((lease.is_live and not lease.has_lost_job) or (results and lease.has_succeeded))
            and (not several or self._has_same_entrypoint(lease))
            and (self._has_same_number(lease) or (reordered and self._is_job_of_earlier_try(lease)))
        ]
        return max(usable, key=lambda lease: (self._has_same_number(lease), lease.is_live), default=None)

    def _stays(self, lease: Lease, *, usable: bool) -> bool:
        """
        Whether a RayJob that is not taken over is left alone.

        :param usable: whether another submission of this try may take it over, although it has the same number.
        """
        if not self._is_of_generation(lease) or lease.has_lost_job:
            return False
        if lease.is_spent:  # for `keep_seconds`, and as a record; but a new one of this same try needs its name
            return lease.label(leases.ATTEMPT) != self._owner.attempt
        return usable or not self._has_same_number(lease)

    def _is_job_of_earlier_try(self, lease: Lease) -> bool:
        return bool(lease.job_id) and lease.try_number < self._owner.try_number

    def _has_same_entrypoint(self, lease: Lease) -> bool:
        return lease.label(leases.ENTRYPOINT) == self._owner.entrypoint

    def _is_of_generation(self, lease: Lease) -> bool:
        return lease.label(leases.GENERATION) == self._owner.generation

    def _has_same_number(self, lease: Lease) -> bool:
        return lease.label(leases.NUMBER) == str(self._owner.number)

    def _create(self) -> Lease:
        wish = self._wish
        body = rayjob(
            wish.spec,
            name=self._owner.name,
            namespace=self.namespace,
            labels={**wish.labels, **self._owner.labels},
            annotations={**wish.annotations, **self._owner.annotations},
            deadline=pre_running_deadline(wish.start_timeout),
            lifetime=wish.lifetime,
            job_timeout=self._job_timeout,
        )
        began = time.time()
        lease = self._api.run(leases.create(body, self._owner, STOP_TIMEOUT))
        self._began[lease.uid] = began
        self._log.info("Made %s; KubeRay starts its cluster", self.ref(lease))
        if not lease.has_deadline:
            self._log.warning(
                "KubeRay's custom resources in this Kubernetes have no preRunningDeadlineSeconds, so nothing ends the "
                "cluster if Airflow dies before it has submitted the job. Install KubeRay 1.6 or later, with its "
                "custom resources"
            )
        return lease

    def _end(self, lease: Lease, *, wait: bool) -> None:
        if not lease.is_deleting:
            self._log.info("Ending the cluster that try %d made: %s", lease.try_number, self.ref(lease))
            self._api.run(leases.delete(lease.namespace, lease.name, lease.uid))
        if wait:
            self._api.run(leases.wait_until_gone(lease, STOP_TIMEOUT))

    def end_all(self, *, with_jobs: bool = True) -> None:
        """
        End all clusters that any try of this task has left; errors are logged.

        :param with_jobs: whether also those that have a job.
        """
        try:
            for lease in self._api.run(leases.find(self.namespace, self._owner)):
                if lease.is_after(self._owner):  # this process is left over
                    continue
                # Another submission of this same try is not over with this one.
                mine = self._has_same_number(lease) or lease.try_number != self._owner.try_number
                if mine and not lease.is_spent and (with_jobs or not lease.job_id):
                    self._end(lease, wait=False)
        except RayJobsError as e:
            self._log.error("The task's cluster could not be ended: %s", e)

    def ref(self, lease: Lease) -> ClusterRef:
        """Return what names the cluster."""
        return ClusterRef(
            kubernetes_conn_id=self._wish.kubernetes_conn_id,
            namespace=self.namespace,
            name=lease.name,
            uid=lease.uid,
            access=self._wish.access,
            history_url=self._wish.history_url,
            owned=self._owned,
        )

    def start_deadline(self, lease: Lease) -> float:
        """Return the Unix seconds by which the cluster must be ready."""
        return self._began.get(lease.uid, min(lease.created_at, time.time())) + self._wish.start_timeout

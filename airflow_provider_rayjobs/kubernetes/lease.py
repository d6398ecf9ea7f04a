"""
Creates, finds, reads and ends the RayJob objects that make clusters; flows of calls.

Each object has labels that say which task instance, which generation (since a user's clear) and which try made it. So a
lost answer, a second process and a later try find it again, and nothing else is stored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.exceptions import RayClusterStartError, RayKubernetesError, RayKubernetesRefusedError
from airflow_provider_rayjobs.kubernetes.calls import (
    MOST_LISTED,
    RAYCLUSTERS,
    RAYJOBS,
    Call,
    Sleep,
    get,
    items_of,
    listed,
    part,
    text_at,
)
from airflow_provider_rayjobs.kubernetes.manifest import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_rayjobs.kubernetes.calls import Flow

#: Labels of a RayJob: the task instance, the submission by one try, the generation, numbers, and the job's entrypoint.
TASK, ATTEMPT, GENERATION, NUMBER, TRY, ENTRYPOINT = (
    PREFIX + name for name in ("task", "attempt", "generation", "submission-number", "try-number", "entrypoint")
)

#: Annotation: the start of the DAG run.
RUN_STARTED = PREFIX + "run-started"

#: The states (``status.jobDeploymentStatus``) that a RayJob never leaves.
ENDED = frozenset({"Complete", "Failed", "ValidationFailed"})

#: The states in which the cluster is ready.
READY = frozenset({"Waiting", "Running"})

#: Seconds for which the cluster stays after its job's end, until the task has seen that: the log's end and a function's
#: value are on the head. Then the task shortens this to ``keep_seconds``.
NOTICE_SECONDS = 120

#: The same for a task that reads a function's value: it may have to wait for a free worker slot.
RESULT_SECONDS = 1800

#: How often a patch is tried that meets a conflict.
CONFLICTS = 5

#: Most pages that are read of a list.
MOST_PAGES = 50

#: Seconds between two looks at an object that is being deleted.
GONE_INTERVAL = 1.0


@dataclass(frozen=True)
class Owner:
    """
    The submission by one try of a task instance that a cluster is made for.

    :param name: name of the RayJob.
    :param task: digest of the task instance.
    :param attempt: digest of this submission by this try.
    :param generation: digest that all tries since a user's clear share.
    :param number: number of the submission within its try.
    :param try_number: number of the try.
    :param run_started: start of the DAG run, in ISO 8601 and UTC; a clear may begin a run anew.
    :param annotations: where the object comes from, for people.
    :param entrypoint: digest of the job's entrypoint.
    """

    name: str
    task: str
    attempt: str
    generation: str
    number: int
    try_number: int
    run_started: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    entrypoint: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the object."""
        return {
            TASK: self.task,
            ATTEMPT: self.attempt,
            GENERATION: self.generation,
            NUMBER: str(self.number),
            TRY: str(self.try_number),
            ENTRYPOINT: self.entrypoint,
        }


@dataclass(frozen=True)
class Lease:
    """
    A RayJob object as it was read.

    :param body: the object.
    """

    body: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """Its name."""
        return text_at(self.body, "metadata", "name")

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return text_at(self.body, "metadata", "namespace")

    @property
    def uid(self) -> str:
        """Its uid."""
        return text_at(self.body, "metadata", "uid")

    @property
    def state(self) -> str:
        """KubeRay's state of it (``jobDeploymentStatus``); empty if KubeRay has not seen it yet."""
        return text_at(self.body, "status", "jobDeploymentStatus")

    @property
    def job_id(self) -> str:
        """The submission id that was patched in; empty if there is none."""
        return text_at(self.body, "spec", "jobId")

    @property
    def job_status(self) -> str:
        """The status of its Ray job, as KubeRay saw it last."""
        return text_at(self.body, "status", "jobStatus")

    @property
    def ray_cluster(self) -> str:
        """The name of its RayCluster; empty if KubeRay has made none."""
        return text_at(self.body, "status", "rayClusterName")

    @property
    def is_deleting(self) -> bool:
        """Whether it was deleted, and waits for KubeRay to clean up."""
        return part(self.body, "metadata", "deletionTimestamp") is not None

    @property
    def is_live(self) -> bool:
        """Whether it still holds a cluster, or may get one."""
        return not self.is_deleting and self.state not in ENDED

    @property
    def is_ready(self) -> bool:
        """Whether its cluster takes jobs."""
        return not self.is_deleting and self.state in READY and bool(self.ray_cluster)

    @property
    def is_spent(self) -> bool:
        """Whether its job has ended: KubeRay ends its cluster, and the object is a record."""
        return not self.is_deleting and self.state in ENDED and bool(self.job_id)

    @property
    def has_lost_job(self) -> bool:
        """Whether the cluster that had its job is gone, while it may get another one: Kueue has evicted it."""
        return not self.is_deleting and bool(self.job_id) and self.state not in READY | ENDED

    @property
    def has_succeeded(self) -> bool:
        """Whether its job has SUCCEEDED."""
        return not self.is_deleting and self.state == "Complete" and self.job_status == "SUCCEEDED"

    @property
    def has_deadline(self) -> bool:
        """Whether KubeRay ends its cluster if it gets no job: an older KubeRay drops the field silently."""
        return part(self.body, "spec", "preRunningDeadlineSeconds") is not None

    @property
    def end_reason(self) -> str:
        """Why it ended, in KubeRay's words."""
        words = (text_at(self.body, "status", "reason"), text_at(self.body, "status", "message"))
        return ": ".join(word for word in words if word) or self.state

    @property
    def try_number(self) -> int:
        """The number of the try that made it."""
        text = self.label(TRY)
        return int(text) if text.isdecimal() else 0

    def is_after(self, owner: Owner) -> bool:
        """Whether a later try than a submission's made it: then that one is over."""
        mine = text_at(self.body, "metadata", "annotations", RUN_STARTED)
        return bool(mine) and (mine, self.try_number) > (owner.run_started, owner.try_number)

    @property
    def created_at(self) -> float:
        """Unix seconds of its creation, by Kubernetes' clock."""
        text = text_at(self.body, "metadata", "creationTimestamp")
        try:
            return datetime.fromisoformat(text).timestamp()
        except ValueError:
            return math.inf

    def label(self, name: str) -> str:
        """Return a label's value, or an empty string."""
        return text_at(self.body, "metadata", "labels", name)


def find(namespace: str, owner: Owner) -> Flow[list[Lease]]:
    """Return the RayJobs that any try of a task instance made, the latest try first."""
    try:
        found = yield from _all_of(namespace, f"{TASK}={owner.task}")
    except RayKubernetesError as e:
        raise (_not_installed(e) if e.status == 404 else e) from None
    # A copy that somebody made by hand has the labels, too, but another name.
    mine = [lease for lease in found if lease.label(ATTEMPT) and lease.name.endswith(lease.label(ATTEMPT))]
    return sorted(mine, key=lambda lease: lease.try_number, reverse=True)


def _all_of(namespace: str, selector: str) -> Flow[list[Lease]]:
    """Read all pages of the RayJobs with these labels. Their order says nothing: the live one may be on the last."""
    found: list[Lease] = []
    token, may_begin_again = "", True
    for _ in range(MOST_PAGES):
        more = {"_continue": token} if token else {}
        try:
            answer = yield listed(RAYJOBS, namespace, label_selector=selector, **more)
        except RayKubernetesError as e:
            if e.status != 410 or not token or not may_begin_again:
                raise
            found, token, may_begin_again = [], "", False  # the token has expired
            continue
        found += map(Lease, items_of(answer, "items"))
        token = text_at(answer, "metadata", "continue")
        if not token:
            return found
    raise RayKubernetesError(
        f"Namespace {namespace!r} has more than {MOST_PAGES * MOST_LISTED} RayJobs of this task; delete those that "
        f"have ended. All are shown by: kubectl -n {namespace} get rayjobs -l {selector}"
    )


def read(namespace: str, name: str, uid: str = "") -> Flow[Lease | None]:
    """
    Read a RayJob.

    :param uid: its uid; another object of the same name does not count.
    :return: None if it is gone.
    """
    try:
        lease = Lease((yield get(RAYJOBS, namespace, name)))
    except RayKubernetesError as e:
        if e.status == 404:
            return None
        raise
    return None if uid and lease.uid != uid else lease


def has_cluster(lease: Lease) -> Flow[bool]:
    """Return whether the RayCluster of a RayJob is there, which stays for some time after the job's end."""
    try:
        found = yield get(RAYCLUSTERS, lease.namespace, lease.ray_cluster)
    except RayKubernetesError as e:
        if e.status == 404:
            return False
        raise
    return part(found, "metadata", "deletionTimestamp") is None


def create(body: Mapping[str, Any], owner: Owner, patience: float) -> Flow[Lease]:
    """
    Create a RayJob, or adopt it if this same submission has created it already.

    :param body: the object.
    :param patience: seconds to wait for the deletion of an object of the same name.
    :raises RayKubernetesRefusedError: somebody else's object has this name, or Kubernetes refuses the object.
    """
    namespace = body["metadata"]["namespace"]
    left = patience
    while True:
        try:
            return Lease((yield Call("create", RAYJOBS, namespace, {"body": body})))
        except RayKubernetesError as e:
            if e.status == 404:
                raise _not_installed(e) from None
            if e.status != 409:
                raise
            refusal = e
        there = yield from read(namespace, owner.name)
        if there is None:  # it was deleted meanwhile, or this is another conflict, such as one over a quota
            if left <= 0:
                raise refusal
            yield Sleep(GONE_INTERVAL)
            left -= GONE_INTERVAL
            continue
        if there.label(ATTEMPT) != owner.attempt:
            raise RayKubernetesRefusedError(
                f"RayJob {namespace}/{owner.name} is there already, and this task has not made it. Delete it, or "
                f"rename the task: kubectl -n {namespace} delete rayjob {owner.name}",
                status=409,
            )
        if there.is_live:
            return there
        if not there.is_deleting:  # it has ended, and can't make a cluster again
            yield from delete(namespace, there.name, there.uid)
        yield from wait_until_gone(there, patience)


def _not_installed(error: RayKubernetesError) -> RayKubernetesRefusedError:
    if 'namespaces "' in str(error):  # the API server's words for a namespace that is missing
        return RayKubernetesRefusedError(f"{error}; create the namespace, or name another one", status=404)
    return RayKubernetesRefusedError(
        f"{error}; install KubeRay 1.6 or later (its custom resources rayjobs.ray.io and rayclusters.ray.io)",
        status=404,
    )


def set_job(
    namespace: str, name: str, uid: str, submission_id: str, keep_seconds: int, *, reads_result: bool = False
) -> Flow[Lease]:
    """
    Tell KubeRay which job the cluster is for. From then on KubeRay ends the cluster with the job.

    :param keep_seconds: seconds for which the cluster stays after the task has seen the job's end.
    :param reads_result: whether the task reads the job's result from the head after the job's end.
    :raises RayClusterStartError: the object is gone, or another one has its name.
    """
    notice = max(NOTICE_SECONDS, RESULT_SECONDS if reads_result else 0)
    spec = {"jobId": submission_id, "ttlSecondsAfterFinished": keep_seconds + notice}
    return (yield from _patched(namespace, name, uid, spec))


def set_deadline(namespace: str, name: str, uid: str, seconds: int) -> Flow[Lease]:
    """
    Tell KubeRay when to end a cluster that has no job of its own.

    :param seconds: counted from the RayJob's start.
    :raises RayClusterStartError: the object is gone, or another one has its name.
    """
    return (yield from _patched(namespace, name, uid, {"preRunningDeadlineSeconds": seconds}))


def _patched(namespace: str, name: str, uid: str, spec: Mapping[str, Any]) -> Flow[Lease]:
    # The uid is a precondition: the API server refuses a patch that would change it.
    call = Call("patch", RAYJOBS, namespace, {"name": name, "body": {"metadata": {"uid": uid}, "spec": spec}})
    for left in reversed(range(CONFLICTS)):
        try:
            return Lease((yield call))
        except RayKubernetesError as e:
            if e.status not in (404, 409, 422):
                raise
            refusal = e
        # Other conflicts and refusals have the same status: the object itself tells.
        if refusal.status == 404 or (yield from read(namespace, name, uid)) is None:
            raise RayClusterStartError(f"RayJob {namespace}/{name} is gone: its cluster has ended ({refusal})")
        if refusal.status != 409 or not left:
            break
        yield Sleep(GONE_INTERVAL)
    raise refusal


def set_keep(namespace: str, name: str, uid: str, seconds: int) -> Flow[None]:
    """
    Tell KubeRay how long the cluster is to stay after its job's end; it asks for this again and again.

    :param seconds: counted from the job's end.
    """
    patch = {"metadata": {"uid": uid}, "spec": {"ttlSecondsAfterFinished": seconds}}
    try:
        yield Call("patch", RAYJOBS, namespace, {"name": name, "body": patch})
    except RayKubernetesError as e:
        if e.status not in (404, 409, 422):
            raise


def delete(namespace: str, name: str, uid: str) -> Flow[bool]:
    """
    Delete a RayJob, and so its cluster; KubeRay asks the head to stop a running job first.

    :param uid: a precondition: another object of the same name stays.
    :return: whether it was there.
    """
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}}
    body = {**options, "propagationPolicy": "Background"}
    try:
        yield Call("delete", RAYJOBS, namespace, {"name": name, "body": body})
    except RayKubernetesError as e:
        if e.status in (404, 409):
            return False
        raise
    return True


def wait_until_gone(lease: Lease, patience: float) -> Flow[None]:
    """
    Wait until a deleted RayJob is gone: by then KubeRay has asked its job to stop.

    :param patience: seconds to wait.
    :raises RayClusterStartError: it is still there.
    """
    left = patience
    while (yield from read(lease.namespace, lease.name, lease.uid)) is not None:
        if left <= 0:
            raise RayClusterStartError(
                f"RayJob {lease.namespace}/{lease.name} of an earlier try was deleted {patience:.0f} s ago, and is "
                "still there; is KubeRay's operator running?"
            )
        yield Sleep(GONE_INTERVAL)
        left -= GONE_INTERVAL

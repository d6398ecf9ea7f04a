"""
Says what a cluster waits for, from its objects; and whether that can still change.

What Kubernetes says is shown as it is, bounded. Reasons that no retry mends are told apart: the task fails at once.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.diagnosis.pending import ExplainTimes
from airflow_provider_rayjobs.exceptions import RayClusterStartError, RayKubernetesError, RayKubernetesRefusedError
from airflow_provider_rayjobs.kubernetes.calls import (
    EVENTS,
    PODS,
    RAYCLUSTERS,
    Sleep,
    get,
    items_of,
    listed,
    part,
    text_at,
)
from airflow_provider_rayjobs.kubernetes.lease import Lease, read
from airflow_provider_rayjobs.text.safe_text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from airflow_provider_rayjobs.kubernetes.calls import Flow
    from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef

#: Seconds between two looks at a cluster that comes up: at first, and at most.
FIRST_LOOK, LONGEST_LOOK = 1.0, 10.0

#: Longest message of Kubernetes, and most different reasons, in one line.
MOST_MESSAGE, MOST_REASONS = 400, 3

#: Seconds that KubeRay's operator needs at most to take up a RayJob; later it may not be there.
USUAL_DELAY = 15.0

#: Reasons of a container that waits which no time mends.
_FATAL_WAITS = frozenset({"InvalidImageName", "ErrImageNeverPull"})

_IMAGE_WAITS = frozenset({"ErrImagePull", "ImagePullBackOff", *_FATAL_WAITS})

#: Reasons of a container that is simply starting.
_USUAL_WAITS = frozenset({"ContainerCreating", "PodInitializing", ""})


@dataclass(frozen=True)
class Sight:
    """
    The objects of a cluster that is coming up.

    :param lease: its RayJob; None if it is gone.
    :param ray_cluster: its RayCluster; empty if there is none yet.
    :param pods: its pods.
    :param events: the warnings about its pods and its RayCluster, the latest last.
    :param unseen: what could not be read, for lack of a right.
    """

    lease: Lease | None
    ray_cluster: Mapping[str, Any] = field(default_factory=dict)
    pods: Sequence[Mapping[str, Any]] = ()
    events: Sequence[Mapping[str, Any]] = ()
    unseen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reason:
    """
    Why a cluster is not ready.

    :param text: the reason, as one line.
    :param fatal: whether it can't change by itself.
    :param ended: whether KubeRay has ended the cluster, so that a retry gets a new one.
    """

    text: str
    fatal: bool = False
    ended: bool = False


def look(namespace: str, name: str, uid: str) -> Flow[Sight]:
    """Read the objects of a cluster; more than its RayJob only while it comes up."""
    lease = yield from read(namespace, name, uid)
    if lease is None or not lease.is_live or lease.is_ready or not lease.ray_cluster:
        return Sight(lease)
    unseen: list[str] = []
    ray_cluster = yield from _unless_refused(get(RAYCLUSTERS, namespace, lease.ray_cluster), unseen)
    label = f"ray.io/cluster={lease.ray_cluster}"
    pods = items_of((yield from _unless_refused(listed(PODS, namespace, label_selector=label), unseen)), "items")
    events: list[Any] = []
    about = [lease.ray_cluster, *(text_at(pod, "metadata", "name") for pod in pods if not _is_running(pod))]
    for involved in about[:MOST_REASONS]:
        selector = f"involvedObject.name={involved},type=Warning"
        call = listed(EVENTS, namespace, field_selector=selector)
        events += items_of((yield from _unless_refused(call, unseen)), "items")
        if EVENTS in unseen:
            break
    return Sight(lease, ray_cluster or {}, pods, sorted(events, key=_event_time), tuple(dict.fromkeys(unseen)))


def _unless_refused(call: Any, unseen: list[str]) -> Flow[Any]:
    """Make a call whose answer only explains: what is gone or forbidden is left out."""
    try:
        return (yield call)
    except RayKubernetesError as e:
        if e.status == 403:
            unseen.append(call.resource)
        elif e.status != 404:
            raise
        return {}


def _event_time(event: Mapping[str, Any]) -> str:
    return text_at(event, "lastTimestamp") or text_at(event, "eventTime")


def why_not_ready(sight: Sight) -> Reason:
    """Return why a cluster is not ready."""
    lease = sight.lease
    if lease is None:
        return Reason("its RayJob was deleted by somebody else", ended=True)
    if lease.is_deleting:
        return Reason("its RayJob is being deleted by somebody else", ended=True)
    if lease.state == "ValidationFailed":
        return Reason(f"KubeRay refuses the cluster's spec: {_shown(lease.end_reason)}", fatal=True)
    if not lease.is_live:
        return Reason(f"KubeRay has ended it: {_shown(lease.end_reason)}", ended=True)
    if part(lease.body, "spec", "suspend") is True or lease.state in ("Suspending", "Suspended"):
        return Reason("it is suspended: no queue (Kueue) has admitted it yet")
    if not lease.ray_cluster:
        if time.time() - lease.created_at < USUAL_DELAY:
            return Reason("KubeRay has not made its RayCluster yet")
        return Reason("KubeRay has made no RayCluster yet; does its operator run, and watch this namespace?")
    reasons = list(_reasons(sight))
    fatal = [reason for reason in reasons if reason.fatal]
    counted = Counter(reason.text for reason in fatal or reasons)
    texts = [f"{text} ({count} times)" if count > 1 else text for text, count in counted.most_common(MOST_REASONS)]
    if not texts:
        texts = [_progress(sight)]
    return Reason("; ".join(texts), fatal=bool(fatal))


def _reasons(sight: Sight) -> Iterable[Reason]:
    if refused := _refused_pods(sight):
        yield refused
    for pod in sorted(sight.pods, key=lambda pod: _role(pod) != "head"):
        if not _is_running(pod) and (reason := _of_pod(pod, sight.events)):
            yield reason


def _refused_pods(sight: Sight) -> Reason | None:
    """Return why Kubernetes refuses the cluster's pods: a quota (which may become free), or a policy."""
    for condition in items_of(sight.ray_cluster, "status", "conditions"):
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return _refusal(text_at(condition, "message"))
    name = text_at(sight.ray_cluster, "metadata", "name")
    # An event stays for an hour, also when what it tells of has passed: the pods are there, or some of them.
    newest = max((text_at(pod, "metadata", "creationTimestamp") for pod in sight.pods), default="")
    has_none = not sight.pods and PODS not in sight.unseen
    for event in reversed(sight.events):
        if text_at(event, "involvedObject", "name") == name and (not newest or _event_time(event) > newest):
            refusal = _refusal(text_at(event, "message"))
            return replace(refusal, fatal=refusal.fatal and has_none)
    return None


def _refusal(message: str) -> Reason:
    _, exceeded, rest = message.partition("exceeded quota")
    if exceeded:  # what is before names the pod, by a new name each time that KubeRay tries
        return Reason(f"the namespace's quota does not allow its pods: {_shown(exceeded + rest)}")
    return Reason(f"its pods can't be made: {_shown(message)}", fatal="is forbidden" in message)


def _of_pod(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Reason | None:
    role = f"{_role(pod)} pod"
    for condition in items_of(pod, "status", "conditions"):
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return Reason(f"{role} unschedulable: {_shown(text_at(condition, 'message'))}")
    for container in _containers(pod):
        if reason := _of_container(role, container):
            return reason
    if text_at(pod, "status", "phase") == "Failed":
        said = text_at(pod, "status", "message") or text_at(pod, "status", "reason")
        return Reason(f"{role} failed: {_shown(said)}")
    name = text_at(pod, "metadata", "name")
    about = [event for event in events if text_at(event, "involvedObject", "name") == name]
    if about:
        last = about[-1]
        return Reason(f"{role}: {text_at(last, 'reason')}: {_shown(text_at(last, 'message'))}")
    return None


def _of_container(role: str, container: Mapping[str, Any]) -> Reason | None:
    waits = text_at(container, "state", "waiting", "reason")
    message = _shown(text_at(container, "state", "waiting", "message"))
    if waits in _IMAGE_WAITS:
        image = _shown(text_at(container, "image"))
        problem = f"{role}: image {image!r} can't be pulled ({waits}){f': {message}' if message else ''}"
        return Reason(problem, fatal=waits in _FATAL_WAITS)
    if waits in _USUAL_WAITS:
        return None
    last = part(container, "lastState", "terminated")
    ended = ""
    if last:
        ended = f" (ended with exit code {last.get('exitCode')}, {text_at(last, 'reason') or 'no reason'})"
    return Reason(f"{role}: {waits}{ended}{f': {message}' if message else ''}")


def _progress(sight: Sight) -> str:
    """Return what is known of a cluster that simply takes its time."""
    status = part(sight.ray_cluster, "status") or {}
    wanted, there = status.get("desiredWorkerReplicas"), status.get("availableWorkerReplicas")
    starting = Counter(_role(pod) for pod in sight.pods if not _is_running(pod))
    pods = ", ".join(f"{count} {role} pod{'s' if count > 1 else ''}" for role, count in sorted(starting.items()))
    parts = [f"{pods} starting" if pods else ""]
    if isinstance(wanted, int) and wanted:
        parts.append(f"{there if isinstance(there, int) else 0} of {wanted} workers are available")
    if sight.unseen:
        parts.append(f"the connection's user may not read {', '.join(sight.unseen)}, which would tell more")
    return "; ".join(filter(None, parts)) or "its pods are not made yet"


def _containers(pod: Mapping[str, Any]) -> list[Any]:
    return items_of(pod, "status", "initContainerStatuses") + items_of(pod, "status", "containerStatuses")


def _role(pod: Mapping[str, Any]) -> str:
    return text_at(pod, "metadata", "labels", "ray.io/node-type") or "cluster's"


def _is_running(pod: Mapping[str, Any]) -> bool:
    conditions = items_of(pod, "status", "conditions")
    return any(item.get("type") == "Ready" and item.get("status") == "True" for item in conditions)


def _shown(text: str) -> str:
    shown = one_line(text)
    return shown if len(shown) <= MOST_MESSAGE else f"{shown[:MOST_MESSAGE]}…"


def until_ready(ref: ClusterRef, deadlines: Mapping[str, float], wait_log: WaitLog) -> Flow[Lease]:
    """
    Wait until a cluster takes jobs, and say what it waits for.

    :param deadlines: end of each limit by its name, in Unix seconds.
    :return: its RayJob.
    :raises RayKubernetesRefusedError: it waits for something that can't change by itself.
    :raises RayClusterStartError: a limit has passed, or KubeRay has ended it.
    """
    pause = FIRST_LOOK
    while True:
        sight = yield from look(ref.namespace, ref.name, ref.uid)
        if sight.lease is not None and (sight.lease.is_ready or sight.lease.has_succeeded):
            return sight.lease
        reason = why_not_ready(sight)
        if reason.fatal:
            raise RayKubernetesRefusedError(f"{ref}: the cluster can't start: {reason.text}")
        if reason.ended:
            raise RayClusterStartError(f"{ref}: the cluster did not become ready: {reason.text}")
        wait_log.note(reason)
        name, end = min(deadlines.items(), key=lambda item: item[1])
        if (left := end - time.time()) <= 0:
            raise RayClusterStartError(
                f"{ref}: the cluster was not ready in time ({name} has passed); it waits for this: {reason.text}"
            )
        yield Sleep(min(pause, max(left, 0.1)))
        pause = min(pause * 1.3, LONGEST_LOOK)


class WaitLog:
    """
    Logs what a cluster waits for: when the reason changes, and at growing intervals.

    :param log: the task's logger.
    :param public: removes secrets from text.
    """

    def __init__(self, log: Any, public: Callable[[str], str] = str) -> None:
        self._log = log
        self._public = public
        self._began = time.monotonic()
        self._last = ""
        self._times = ExplainTimes()
        #: Each reason that was logged, with the seconds since the begin; the first ones only.
        self.lines: list[str] = []

    def note(self, reason: Reason) -> None:
        """Log a reason, if it is new or due again."""
        due = self._times.is_due()
        if reason.text == self._last and not due:
            return
        changed = reason.text != self._last
        self._last = reason.text
        waited = time.monotonic() - self._began
        text = self._public(reason.text)
        if changed and len(self.lines) < 20:
            self.lines.append(f"after {waited:.0f} s: {text}")
        self._log.info("The cluster waits (%.0f s): %s", waited, text)

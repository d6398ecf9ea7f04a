"""
Plays KubeRay on a real API server: RayJobs, RayClusters and what Kubernetes itself does around them.

It follows what KubeRay's source says (v1.7, InteractiveMode); nobody has compared it with a real KubeRay yet. See
`tools/record_kuberay.py`, which records one. What it does not play: other submission modes, `deletionStrategy`,
batch schedulers, orphaning deletes, pods that die later.
"""

from __future__ import annotations

import calendar
import contextlib
import threading
import time
import traceback
from collections import defaultdict
from typing import TYPE_CHECKING

from tests.kube import objects, validation
from tests.kube.api import ApiError
from tests.kube.clusters import PLAY, Clusters
from tests.kube.heads import job_of, witness_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kube.api import Api, Object
    from tests.kube.heads import Head, Heads
    from tests.kube.network import PodNetwork

FINALIZER = "ray.io/rayjob-finalizer"
OPERATOR_NAME = "ray.io/kuberay-operator"

TERMINAL_JOBS = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})
ENDED = frozenset({"Complete", "Failed"})

#: A value of :data:`tests.kube.clusters.PLAY`: the RayJob is refused.
VALIDATION_FAILED = "ValidationFailed"
#: A value of :data:`tests.kube.clusters.PLAY`: nobody cares for the RayJob, as without an operator.
IGNORED = "ignored"


class KubeRay:
    """
    The controller; it works in a thread of its own while its context is entered.

    :param api: a client of an administrator, which nothing else uses.
    :param network: the network of the pods.
    :param heads: where the heads of the RayClusters run.
    :param period: seconds between two looks at all objects. KubeRay looks at an object every 3 s and at each change.
    :param status_check_timeout: seconds for which a head may fail to tell a job's status.
    """

    def __init__(
        self, api: Api, network: PodNetwork, heads: Heads, period: float = 0.1, status_check_timeout: float = 300.0
    ) -> None:
        self._api = api
        self.heads = heads
        self._period = period
        self._status_check_timeout = status_check_timeout
        self._clusters = Clusters(api, network, heads)
        #: The names of all RayClusters that it has made, in order.
        self.made: list[str] = []
        #: The states that each RayJob was given, by namespace and name: Unix seconds, state, reason.
        self.states: defaultdict[tuple[str, str], list[tuple[float, str, str]]] = defaultdict(list)
        #: What should not have happened to the bench itself.
        self.troubles: list[str] = []
        self._stop = threading.Event()
        self._works = threading.Event()
        self._works.set()
        self._round_lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="kuberay", daemon=True)

    def __enter__(self) -> KubeRay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Delete all RayJobs and RayClusters, end all heads, and stop."""
        self.resume()
        try:
            self._delete_all()
        finally:
            self._stop.set()
            self._thread.join(60)
            for uid in list(self._clusters.runs):
                self._try(self._clusters.release, uid)
            self._clusters.wait_ended()
            self._api.close()

    # For tests

    def pause(self) -> None:
        """Make it do nothing, as if the operator were down. Heads go on to run."""
        with self._round_lock:
            self._works.clear()

    def resume(self) -> None:
        """Let it work again."""
        self._works.set()

    def left(self) -> list[str]:
        """Return the names of the RayClusters for which something runs."""
        return [run.name for run in list(self._clusters.runs.values())]

    def head_of(self, cluster: str) -> Head:
        """
        Return the head of a RayCluster.

        :raises KeyError: if it has none.
        """
        for run in list(self._clusters.runs.values()):
            if run.name == cluster and run.head is not None:
                return run.head
        raise KeyError(cluster)

    def wait(self, condition: Callable[[], object], timeout: float = 60.0) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"the condition does not hold after {timeout} s: {dict(self.states)}")
            time.sleep(0.05)

    # The rounds

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            with self._round_lock:
                if self._works.is_set():
                    self._round()

    def _round(self) -> None:
        try:
            jobs, clusters = self._api.list("rayjobs"), self._api.list("rayclusters")
        except (OSError, ApiError):
            return  # the server is down, or defines the kinds anew
        for job in jobs:
            self._try(self._reconcile_job, job | _KIND_OF_JOB)
        for cluster in clusters:
            self._try(self._clusters.reconcile, cluster | _KIND_OF_CLUSTER)
        self._collect(jobs, clusters)

    def _try(self, step: Callable[..., object], *arguments: object) -> None:
        try:
            step(*arguments)
        except ApiError as e:
            if e.status not in {404, 409}:  # another client was faster: the next round sees it
                self.troubles.append(traceback.format_exc())
        except OSError:
            pass  # the server is down
        except Exception:  # noqa: BLE001 - the test reports it
            self.troubles.append(traceback.format_exc())

    def _collect(self, jobs: list[Object], clusters: list[Object]) -> None:
        """Delete what belongs to objects that are gone, as Kubernetes' garbage collector does."""
        uids = {one["metadata"]["uid"] for one in (*jobs, *clusters)}
        for cluster in clusters:
            meta = cluster["metadata"]
            owners = [owner["uid"] for owner in meta.get("ownerReferences", ())]
            if owners and not uids.intersection(owners):
                self._try(self._api.delete, "rayclusters", meta["namespace"], meta["name"])
            elif "foregroundDeletion" in meta.get("finalizers", ()):
                self._try(self._clusters.release, meta["uid"])
                self._let_go("rayclusters", meta)
        for job in jobs:
            meta = job["metadata"]
            if meta.get("finalizers") == ["foregroundDeletion"]:
                owned = [one["metadata"] for one in clusters if _is_owned_by(one, meta["uid"])]
                for one in owned:
                    self._try(self._api.delete, "rayclusters", one["namespace"], one["name"])
                if not owned:
                    self._let_go("rayjobs", meta)
        for uid in set(self._clusters.runs) - uids:
            self._try(self._clusters.release, uid)

    def _let_go(self, kind: str, meta: Object) -> None:
        left = [name for name in meta["finalizers"] if name != "foregroundDeletion"]
        self._try(self._api.patch, kind, meta["namespace"], meta["name"], {"metadata": {"finalizers": left}})

    def _delete_all(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            jobs, clusters = self._api.list("rayjobs"), self._api.list("rayclusters")
            if not jobs and not clusters and not self._clusters.runs:
                return
            for kind, found in (("rayjobs", jobs), ("rayclusters", clusters)):
                for meta in (one["metadata"] for one in found):
                    if "deletionTimestamp" not in meta:
                        self._api.delete(kind, meta["namespace"], meta["name"])
                    elif meta.get("annotations", {}).get(PLAY) == IGNORED or "managedBy" in meta:
                        self._api.patch(kind, meta["namespace"], meta["name"], {"metadata": {"finalizers": []}})
            time.sleep(0.1)
        raise TimeoutError("RayJobs or RayClusters are left")

    # A RayJob

    def _reconcile_job(self, job: Object) -> None:
        meta, spec = job["metadata"], job.get("spec", {})
        play = meta.get("annotations", {}).get(PLAY, "")
        if play == IGNORED or spec.get("managedBy", OPERATOR_NAME) != OPERATOR_NAME:
            return
        if "deletionTimestamp" in meta:
            self._delete(job)
            return
        problem = validation.problem_of(job)
        if play == VALIDATION_FAILED:
            problem = problem or ("InvalidRayJobSpec", "The RayJob spec is invalid: the test said so")
        state = job.get("status", {}).get("jobDeploymentStatus", "")
        if problem:
            if state != "ValidationFailed":
                self._event(job, problem[0], f"{meta['namespace']}/{meta['name']}: {problem[1]}")
                refused = {"jobDeploymentStatus": "ValidationFailed", "reason": "ValidationFailed"}
                self._write(job, refused | {"message": problem[1]})
            return
        steps: dict[str, Callable[[Object], Object | None]] = {
            "": self._new,
            "Initializing": self._initializing,
            "Waiting": self._waiting,
            "Running": self._running,
            "Suspending": self._suspending,
            "Suspended": self._suspended,
            "Complete": self._ended,
            "Failed": self._ended,
        }
        if state in steps and (changes := steps[state](job)):
            self._write(job, changes)

    def _new(self, job: Object) -> Object:
        meta, spec = job["metadata"], job["spec"]
        if FINALIZER not in meta.get("finalizers", ()):
            names = [*meta.get("finalizers", ()), FINALIZER]
            self._api.patch("rayjobs", meta["namespace"], meta["name"], {"metadata": {"finalizers": names}})
        selected = spec.get("clusterSelector", {}).get("ray.io/cluster")
        cluster = job.get("status", {}).get("rayClusterName")
        return {
            "jobDeploymentStatus": "Initializing",
            "rayClusterName": cluster or selected or f"{meta['name']}-{objects.random_letters()}",
            "startTime": objects.now(),
        }

    def _initializing(self, job: Object) -> Object | None:
        if job["spec"].get("suspend"):
            return {"jobDeploymentStatus": "Suspending"}
        if late := _active_deadline(job) or _pre_running_deadline(job):
            return late
        cluster = self._cluster_of(job)
        if cluster is None:
            return None
        status = cluster.get("status", {})
        if status.get("state") != "ready":
            return {"rayClusterStatus": status}
        service = f"{objects.service_name(cluster)}.{job['metadata']['namespace']}.svc.cluster.local"
        return {"jobDeploymentStatus": "Waiting", "dashboardURL": f"{service}:{objects.DASHBOARD_PORT}"}

    def _waiting(self, job: Object) -> Object | None:
        if late := _pre_running_deadline(job):
            return late
        job_id = job["spec"].get("jobId")
        return {"jobDeploymentStatus": "Running", "jobId": job_id} if job_id else None

    def _running(self, job: Object) -> Object | None:
        status = job["status"]
        if job["spec"].get("suspend"):
            return {"jobDeploymentStatus": "Suspending"}
        if late := _active_deadline(job) or self._status_check_deadline(status):
            return late
        cluster = self._cluster_of(job)  # one that is gone is made anew, without its jobs
        if cluster is None:
            return None
        run = self._clusters.runs.get(cluster["metadata"]["uid"])
        try:
            if run is None or run.head is None:
                raise ConnectionRefusedError("no head")
            run.jobs.add(status["jobId"])
            found = job_of(run.head, status["jobId"])
        except (OSError, RuntimeError):
            if "jobStatusCheckFailureStartTime" in status:
                return None
            return {"jobStatusCheckFailureStartTime": objects.now()}
        if found is None:
            return None  # asked again, without end
        changes = {"jobStatus": found["status"], "message": found.get("message") or ""}
        changes |= {"rayClusterStatus": cluster.get("status", {}), "jobStatusCheckFailureStartTime": None}
        if found["status"] in TERMINAL_JOBS:
            changes["jobDeploymentStatus"] = "Failed" if found["status"] == "FAILED" else "Complete"
        if found["status"] == "FAILED":
            changes["reason"] = "AppFailed"
        times = {"startTime": found.get("start_time"), "endTime": found.get("end_time")}
        changes["rayJobInfo"] = {name: _as_time(value) for name, value in times.items() if value}
        return changes

    def _ended(self, job: Object) -> None:
        spec, status = job["spec"], job["status"]
        if spec.get("clusterSelector") or not spec.get("shutdownAfterJobFinishes"):
            return
        if time.time() >= _seconds(status["endTime"]) + spec["ttlSecondsAfterFinished"]:
            self._delete_cluster(job)

    def _suspending(self, job: Object) -> Object | None:
        if not self._delete_cluster(job):
            return None
        names = ("rayClusterStatus", "rayClusterName", "dashboardURL", "jobId", "message", "reason", "rayJobInfo")
        return {"jobDeploymentStatus": "Suspended", "jobStatus": ""} | dict.fromkeys(names)

    def _suspended(self, job: Object) -> Object | None:
        return None if job["spec"].get("suspend") else {"jobDeploymentStatus": ""}

    def _delete(self, job: Object) -> None:
        """Ask the head to stop the job, and let the object go, whatever the answer."""
        meta, status = job["metadata"], job.get("status", {})
        if FINALIZER not in meta.get("finalizers", ()):
            return
        if status.get("jobStatus") not in TERMINAL_JOBS and status.get("jobId"):
            with contextlib.suppress(KeyError, OSError, RuntimeError):
                witness_of(self.head_of(status["rayClusterName"])).stop_job(status["jobId"])
        left = [name for name in meta["finalizers"] if name != FINALIZER]
        self._api.patch("rayjobs", meta["namespace"], meta["name"], {"metadata": {"finalizers": left}})

    def _status_check_deadline(self, status: Object) -> Object | None:
        since = status.get("jobStatusCheckFailureStartTime")
        if not since or time.time() < _seconds(since) + self._status_check_timeout:
            return None
        told = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(_seconds(since)))
        message = f"Job status checks have been failing since {told}; exceeded timeout of "
        message += f"{self._status_check_timeout:.0f}s"
        return {"jobDeploymentStatus": "Failed", "reason": "JobStatusCheckTimeoutExceeded", "message": message}

    # Its RayCluster

    def _cluster_of(self, job: Object) -> Object | None:
        """Return the RayCluster of a RayJob, which is made if needed; None if it selects one that does not exist."""
        meta, name = job["metadata"], job["status"]["rayClusterName"]
        found = self._api.find("rayclusters", meta["namespace"], name)
        if found is not None:
            return found
        if job["spec"].get("clusterSelector"):
            return None
        made = self._api.create("rayclusters", meta["namespace"], objects.cluster_of(job, name))
        self.made.append(name)
        self._event(job, "CreatedRayCluster", f"Created RayCluster {meta['namespace']}/{name}", "Normal")
        return made

    def _delete_cluster(self, job: Object) -> bool:
        """Delete the RayCluster of a RayJob; return whether it is gone."""
        namespace, name = job["metadata"]["namespace"], job["status"]["rayClusterName"]
        found = self._api.find("rayclusters", namespace, name)
        if found is not None and "deletionTimestamp" not in found["metadata"]:
            self._api.delete("rayclusters", namespace, name)
            self._event(job, "DeletedRayCluster", f"Deleted cluster {namespace}/{name}", "Normal")
        return found is None

    # What it writes

    def _write(self, job: Object, changes: Object) -> None:
        meta, old = job["metadata"], job.get("status", {})
        # An empty text is left out, as in all objects that a program in Go writes.
        given = {name: None if value == "" else value for name, value in changes.items()}
        changes = {name: value for name, value in given.items() if old.get(name) != value}
        # Only these changes are written, as by KubeRay; what else has changed goes with them.
        if not changes.keys() & {"jobStatus", "jobDeploymentStatus", "rayClusterStatus", _FAILING_SINCE}:
            return
        state = changes.get("jobDeploymentStatus")
        if state in ENDED:
            changes["endTime"] = objects.now()
        if state == "Failed":
            changes["failed"] = old.get("failed", 0) + 1
        elif state == "Complete" and changes.get("jobStatus", old.get("jobStatus")) == "SUCCEEDED":
            changes["succeeded"] = old.get("succeeded", 0) + 1
        self._api.patch("rayjobs", meta["namespace"], meta["name"], {"status": changes}, "status")
        if "jobDeploymentStatus" in changes:
            reached = (time.time(), state or "", changes.get("reason") or "")
            self.states[meta["namespace"], meta["name"]].append(reached)

    def _event(self, job: Object, reason: str, message: str, kind: str = "Warning") -> None:
        self._api.create("events", job["metadata"]["namespace"], objects.event_of(job, reason, message, kind))


_KIND_OF_JOB = {"apiVersion": "ray.io/v1", "kind": "RayJob"}
_KIND_OF_CLUSTER = {"apiVersion": "ray.io/v1", "kind": "RayCluster"}
_FAILING_SINCE = "jobStatusCheckFailureStartTime"


def _active_deadline(job: Object) -> Object | None:
    return _deadline(job, "activeDeadlineSeconds", "DeadlineExceeded")


def _pre_running_deadline(job: Object) -> Object | None:
    return _deadline(job, "preRunningDeadlineSeconds", "PreRunningDeadlineExceeded")


def _deadline(job: Object, name: str, reason: str) -> Object | None:
    limit, start = job["spec"].get(name), job["status"]["startTime"]
    if limit is None or time.time() < _seconds(start) + limit:
        return None
    shown = f"{name[0].upper()}{name[1:]}"
    message = f"The RayJob has passed the {name}. StartTime: {start}. {shown}: {limit}"
    return {"jobDeploymentStatus": "Failed", "reason": reason, "message": message}


def _seconds(text: str) -> float:
    return float(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")))


def _as_time(milliseconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(milliseconds / 1000))


def _is_owned_by(one: Object, uid: str) -> bool:
    return any(owner["uid"] == uid for owner in one["metadata"].get("ownerReferences", ()))

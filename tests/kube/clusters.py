"""Plays what makes a RayCluster out of its object: KubeRay's part of it, the scheduler and the kubelet."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.kube import objects
from tests.kube.api import ApiError
from tests.kube.objects import CLUSTER_LABEL, DASHBOARD_PORT

if TYPE_CHECKING:
    from tests.kube.api import Api, Object
    from tests.kube.heads import Head, Heads
    from tests.kube.network import PodNetwork

#: The annotation that tells the bench what to play. KubeRay passes annotations of a RayJob on to its RayCluster, where
#: a test may change or remove it to end a trouble.
PLAY = "bench/play"

UNSCHEDULABLE = "unschedulable"
ERR_IMAGE_PULL = "ErrImagePull"
INVALID_IMAGE_NAME = "InvalidImageName"
CRASH_LOOP = "CrashLoopBackOff"

#: What a scheduler says of a pod for which no node has room.
NO_NODE = (
    "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, "
    "2 Insufficient cpu. preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, "
    "2 No preemption victims found for incoming pod."
)


@dataclass
class Run:
    """What runs for a RayCluster.

    :param namespace: the namespace of the object.
    :param name: the name of the object.
    :param head: the head, once there is room for it.
    :param address: the address of its pod.
    :param service: the service in front of it.
    :param jobs: the ids of jobs that the controller knows of.
    :param told: the events that were reported.
    """

    namespace: str
    name: str
    head: Head | None = None
    address: str = ""
    service: str = ""
    jobs: set[str] = field(default_factory=set)
    told: set[tuple[str, str]] = field(default_factory=set)


class Clusters:
    """Brings RayClusters up.

    :param api: a client with the rights of KubeRay and of Kubernetes' own parts.
    :param network: where the pods get their addresses from.
    :param heads: where the heads run.
    """

    def __init__(self, api: Api, network: PodNetwork, heads: Heads) -> None:
        self._api = api
        self._network = network
        self._heads = heads
        #: What runs, by the uids of the RayClusters.
        self.runs: dict[str, Run] = {}
        #: The heads that were told to end.
        self._ending: list[Head] = []

    def reconcile(self, cluster: Object) -> None:
        """Take the next step for a RayCluster.

        :raises ApiError: if another client was faster; the next round repeats the step.
        """
        meta = cluster["metadata"]
        if "deletionTimestamp" in meta:
            return
        run = self.runs.setdefault(meta["uid"], Run(meta["namespace"], meta["name"]))
        failure = ""
        pods: list[Object] = []
        if not cluster["spec"].get("suspend"):
            token = self._token_of(cluster)
            service = self._service_of(cluster)
            pods = self._pods(cluster)
            try:
                self._make_pods(cluster, pods)
            except ApiError as e:
                failure = f"FailedCreateHeadPod\n{e.message}"
                self.tell(
                    run, cluster, "FailedToCreateHeadPod", f"Failed to create head Pod {run.namespace}/, {e.message}"
                )
            for pod in pods:
                self._run_pod(run, cluster, pod, token)
            self._connect(run, service, pods)
        self._write_status(cluster, pods, failure)

    def release(self, uid: str) -> None:
        """End what runs for a RayCluster that is gone, and delete the objects that it owned."""
        run = self.runs[uid]
        self._network.routes.pop((run.address, DASHBOARD_PORT), None)
        self._network.dashboards.pop((run.namespace, run.service), None)
        if run.head is not None:
            run.head.end(run.jobs)
            self._ending.append(run.head)
            run.head = None
        gone = {uid}
        for kind in ("pods", "services", "secrets", "endpoints"):
            for meta in (one["metadata"] for one in self._api.list(kind, run.namespace)):
                if any(owner["uid"] in gone for owner in meta.get("ownerReferences", ())):
                    gone.add(meta["uid"])
                    options = {"gracePeriodSeconds": 0} if kind == "pods" else {}
                    self._api.delete(kind, run.namespace, meta["name"], **options)
        del self.runs[uid]

    def wait_ended(self) -> None:
        """Wait until all heads that were told to end have ended."""
        for head in self._ending:
            head.wait_ended()
        self._ending.clear()

    def tell(
        self, run: Run, about: Object, reason: str, message: str, kind: str = "Warning", source: str = objects.OPERATOR
    ) -> None:
        """Report an event, once."""
        if (reason, message) not in run.told:
            run.told.add((reason, message))
            event = objects.event_of(about, reason, message, kind, source)
            self._api.create("events", run.namespace, event)

    def _token_of(self, cluster: Object) -> str:
        """Return the token of a cluster that asks for one, from its Secret, which is made if it is KubeRay's own."""
        options, meta = cluster["spec"].get("authOptions"), cluster["metadata"]
        if options is None or options.get("mode") == "disabled" or options.get("enableK8sTokenAuth"):
            return ""
        name = options.get("secretName") or meta["name"]
        secret = self._api.find("secrets", meta["namespace"], name)
        if secret is None:
            if options.get("secretName"):
                return ""  # its pods don't start without it
            token = self._heads.token or base64.b64encode(secrets.token_bytes(32)).decode()
            body = {
                "metadata": {
                    "name": name,
                    "labels": {CLUSTER_LABEL: meta["name"]},
                    "ownerReferences": objects.owned_by(cluster),
                },
                "stringData": {"auth_token": token},
            }
            secret = self._api.create("secrets", meta["namespace"], body)
        return base64.b64decode(secret["data"]["auth_token"]).decode()

    def _service_of(self, cluster: Object) -> Object:
        namespace, name = cluster["metadata"]["namespace"], objects.service_name(cluster)
        found = self._api.find("services", namespace, name)
        return found or self._api.create("services", namespace, objects.service_of(cluster))

    def _pods(self, cluster: Object) -> list[Object]:
        meta = cluster["metadata"]
        pods = self._api.list("pods", meta["namespace"], labelSelector=f"{CLUSTER_LABEL}={meta['name']}")
        # Items of a list have neither.
        return [{"apiVersion": "v1", "kind": "Pod"} | pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def _make_pods(self, cluster: Object, pods: list[Object]) -> None:
        """Make the pods that are missing, and add them to the list."""
        groups = [("head", "headgroup", cluster["spec"]["headGroupSpec"]["template"], 1)]
        for one in cluster["spec"].get("workerGroupSpecs", ()):
            count = 0 if one.get("suspend") else max(one["replicas"], one["minReplicas"])
            groups.append(("worker", one["groupName"], one["template"], min(count, one["maxReplicas"])))
        for node, group, template, count in groups:
            there = sum(pod["metadata"]["labels"]["ray.io/group"] == group for pod in pods)
            for _ in range(there, count):
                body = objects.pod_of(cluster, node, group, template)
                pod = self._api.create("pods", cluster["metadata"]["namespace"], body)
                pods.append(pod)
                message = f"Created {node} Pod {pod['metadata']['namespace']}/{pod['metadata']['name']}"
                event = objects.event_of(cluster, f"Created{node.capitalize()}Pod", message, "Normal")
                self._api.create("events", pod["metadata"]["namespace"], event)

    def _run_pod(self, run: Run, cluster: Object, pod: Object, token: str) -> None:
        """Play the scheduler and the kubelet for one pod."""
        play = cluster["metadata"].get("annotations", {}).get(PLAY, "")
        is_head = pod["metadata"]["labels"]["ray.io/node-type"] == "head"
        image = pod["spec"]["containers"][0].get("image", "")
        if is_head and run.head is None and play != UNSCHEDULABLE:
            waits = _TROUBLES.get(play)
            if waits:
                self._waiting(run, pod, image, *waits)
                return
            run.head = self._heads.take(cluster, token)
            if run.head is not None:
                run.address = self._network.new_address()
                self._network.routes[run.address, DASHBOARD_PORT] = run.head.port
                run.service = objects.service_name(cluster)
                self._network.dashboards[run.namespace, run.service] = run.head.port
        if run.head is None:
            if is_head:
                self.tell(run, pod, "FailedScheduling", NO_NODE, source="default-scheduler")
                _set(pod, "Pending", {"PodScheduled": ("False", "Unschedulable", NO_NODE)}, [])
        elif run.head.is_ready():
            started = {"running": {"startedAt": objects.now()}}
            _set(pod, "Running", _IS_READY, [_container(pod, started, ready=True)])
        elif is_head:
            waiting = {"waiting": {"reason": "ContainerCreating"}}
            _set(pod, "Pending", _not_ready(pod), [_container(pod, waiting)])
        if is_head and run.address:
            pod["status"] |= {"podIP": run.address, "podIPs": [{"ip": run.address}]}
        self._write_pod(pod)

    def _waiting(
        self, run: Run, pod: Object, image: str, reason: str, events: tuple[tuple[str, str, str], ...]
    ) -> None:
        """Leave a pod with a container that can't start."""
        messages = [(kind, name, text.format(image=image)) for kind, name, text in events]
        for kind, name, text in messages:
            self.tell(run, pod, name, text, kind, source="kubelet")
        waiting = {"waiting": {"reason": reason, "message": messages[-1][2]}}
        _set(pod, "Pending", _not_ready(pod), [_container(pod, waiting)])
        self._write_pod(pod)

    def _write_pod(self, pod: Object) -> None:
        meta, status = pod["metadata"], pod.get("status", {})
        old = self._api.get("pods", meta["namespace"], meta["name"])
        if _plain(old.get("status", {})) != _plain(status):
            changed = self._api.patch("pods", meta["namespace"], meta["name"], {"status": status}, "status")
            pod["status"] = changed["status"]

    def _connect(self, run: Run, service: Object, pods: list[Object]) -> None:
        head = next((pod for pod in pods if pod["metadata"]["labels"]["ray.io/node-type"] == "head"), None)
        if head is None or not run.address:
            return
        body = objects.endpoints_of(service, head, run.address)
        name = body["metadata"]["name"]
        old = self._api.find("endpoints", run.namespace, name)
        if old is None:
            self._api.create("endpoints", run.namespace, body)
        elif old["subsets"][0]["addresses"][0]["targetRef"]["uid"] != head["metadata"]["uid"]:
            self._api.patch("endpoints", run.namespace, name, {"subsets": body["subsets"]})

    def _write_status(self, cluster: Object, pods: list[Object], failure: str) -> None:
        old = cluster.get("status", {})
        heads = [pod for pod in pods if pod["metadata"]["labels"]["ray.io/node-type"] == "head"]
        workers = [pod for pod in pods if pod not in heads]
        all_run = bool(heads) and not failure and all(_is_ready(pod) for pod in pods)
        conditions = {one["type"]: one for one in old.get("conditions", ())}
        wanted = {"HeadPodReady": _head_condition(heads)}
        if conditions.get("RayClusterProvisioned", {}).get("status") != "True":
            wanted["RayClusterProvisioned"] = _PROVISIONED if all_run else _PROVISIONING
        suspended = "True" if cluster["spec"].get("suspend") and not pods else "False"
        wanted["RayClusterSuspended"] = (suspended, "RayClusterSuspended", "")
        wanted["RayClusterSuspending"] = ("False", "RayClusterSuspending", "")
        if failure:
            wanted["ReplicaFailure"] = ("True", failure.partition("\n")[0], failure)
        else:
            conditions.pop("ReplicaFailure", None)
        for name, (status, reason, message) in wanted.items():
            kept = conditions.get(name, {})
            since = kept["lastTransitionTime"] if kept.get("status") == status else objects.now()
            values = {"status": status, "reason": reason, "message": message, "lastTransitionTime": since}
            conditions[name] = {"type": name} | values
        new: Object = {
            "conditions": list(conditions.values()),
            "desiredWorkerReplicas": len(workers),
            "availableWorkerReplicas": sum(_is_ready(pod) for pod in workers),
            "readyWorkerReplicas": sum(_is_ready(pod) for pod in workers),
            "head": {"serviceName": objects.service_name(cluster)}
            | ({"podName": heads[0]["metadata"]["name"]} if heads else {})
            | ({"podIP": heads[0]["status"]["podIP"]} if heads and heads[0]["status"].get("podIP") else {}),
            "endpoints": {"dashboard": str(DASHBOARD_PORT)},
            "observedGeneration": cluster["metadata"]["generation"],
        }
        if all_run:
            new["state"] = "ready"  # it stays so, whatever comes
        if any(old.get(name) != value for name, value in new.items()):
            meta = cluster["metadata"]
            new["lastUpdateTime"] = objects.now()
            self._api.patch("rayclusters", meta["namespace"], meta["name"], {"status": new}, "status")


_PROVISIONED = ("True", "AllPodRunningAndReadyFirstTime", "All Ray Pods are ready for the first time")
_PROVISIONING = ("False", "RayClusterPodsProvisioning", "RayCluster Pods are being provisioned for first time")

_IS_READY = dict.fromkeys(("PodScheduled", "Initialized", "ContainersReady", "Ready"), ("True", "", ""))

#: What a kubelet says of a container that can't start: the reason, and the events with their kinds.
_TROUBLES = {
    ERR_IMAGE_PULL: (
        "ErrImagePull",
        (
            ("Normal", "Pulling", 'Pulling image "{image}"'),
            ("Warning", "Failed", "Error: ErrImagePull"),
            (
                "Warning",
                "Failed",
                'Failed to pull image "{image}": rpc error: code = NotFound desc = failed to pull and unpack image '
                '"{image}": failed to resolve reference "{image}": {image}: not found',
            ),
        ),
    ),
    INVALID_IMAGE_NAME: (
        "InvalidImageName",
        (
            ("Warning", "Failed", "Error: InvalidImageName"),
            (
                "Warning",
                "InspectFailed",
                'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": '
                "invalid reference format",
            ),
        ),
    ),
    CRASH_LOOP: (
        "CrashLoopBackOff",
        (("Warning", "BackOff", "Back-off restarting failed container ray-head in pod"),),
    ),
}


def _set(pod: Object, phase: str, conditions: dict[str, tuple[str, str, str]], containers: list[Object]) -> None:
    """Set a pod's status; times of conditions that don't change stay as they are."""
    old = {one["type"]: one for one in pod.get("status", {}).get("conditions", ())}
    listed = []
    for name, (status, reason, message) in conditions.items():
        since = old[name].get("lastTransitionTime") if old.get(name, {}).get("status") == status else objects.now()
        extra = {key: value for key, value in (("reason", reason), ("message", message)) if value}
        listed.append({"type": name, "status": status, "lastTransitionTime": since} | extra)
    pod["status"] = {"phase": phase, "conditions": listed, "containerStatuses": containers}


def _not_ready(pod: Object) -> dict[str, tuple[str, str, str]]:
    names = " ".join(one["name"] for one in pod["spec"]["containers"])
    unready = ("False", "ContainersNotReady", f"containers with unready status: [{names}]")
    return {
        "PodScheduled": ("True", "", ""),
        "Initialized": ("True", "", ""),
        "ContainersReady": unready,
        "Ready": unready,
    }


def _container(pod: Object, state: Object, ready: bool = False) -> Object:
    first = pod["spec"]["containers"][0]
    old = (pod.get("status", {}).get("containerStatuses") or [{}])[0]
    same = old.get("state", {}).keys() == state.keys() and "running" in state
    return {
        "name": first["name"],
        "image": first.get("image", ""),
        "imageID": "",
        "ready": ready,
        "restartCount": 0,
        "started": ready,
        "state": old["state"] if same else state,
    }


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _head_condition(heads: list[Object]) -> tuple[str, str, str]:
    """Return status, reason and message of HeadPodReady, as KubeRay reads them from the pod."""
    if not heads:
        return "False", "HeadPodNotFound", "Head Pod not found"
    status = heads[0].get("status", {})
    ready = next((one for one in status.get("conditions", ()) if one["type"] == "Ready"), None)
    if ready is None:
        return "False", "Unknown", ""
    reason, message = ready.get("reason", ""), ready.get("message", "")
    if ready["status"] == "True":
        return "True", reason or "HeadPodRunningAndReady", message
    if reason == "ContainersNotReady":
        for one in status.get("containerStatuses", ()):
            waiting = one["state"].get("waiting")
            if waiting:
                told = f"{one['name']}: {waiting.get('message', '')}"
                return "False", waiting["reason"], "; ".join(filter(None, [message, told]))
    return "False", reason or "Unknown", message


def _plain(status: Object) -> Object:
    """Return the parts of a pod's status that the bench sets, to compare them."""
    return {name: status.get(name) for name in ("phase", "conditions", "containerStatuses", "podIP")}

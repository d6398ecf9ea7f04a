"""Kubernetes objects as KubeRay and a cluster around it make them."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.kube.api import Object

OPERATOR = "kuberay-operator"
CLUSTER_LABEL = "ray.io/cluster"
DASHBOARD_PORT = 8265

#: Kubernetes' alphabet for random names: without vowels and easily confused characters.
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


def now() -> str:
    """Return the time as Kubernetes writes it, in whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def random_letters(count: int = 5) -> str:
    """Return random characters of a name."""
    return "".join(secrets.choice(_LETTERS) for _ in range(count))


def owned_by(owner: Object) -> list[Object]:
    """Return the references to an object's controller."""
    meta = owner["metadata"]
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"]}
    return [reference | {"controller": True, "blockOwnerDeletion": True}]


def cluster_of(job: Object, name: str) -> Object:
    """Return the RayCluster of a RayJob, to which labels and annotations are passed on."""
    meta, spec = job["metadata"], job["spec"]
    labels = {
        "ray.io/originated-from-cr-name": meta["name"],
        "ray.io/originated-from-crd": "RayJob",
        "ray.io/job-submission-mode": spec["submissionMode"],
    }
    return {
        "apiVersion": job["apiVersion"],
        "kind": "RayCluster",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": meta.get("labels", {}) | labels,
            "annotations": meta.get("annotations", {}),
            "ownerReferences": owned_by(job),
        },
        "spec": spec["rayClusterSpec"],
    }


def labels_of(cluster: Object, node: str, group: str) -> dict[str, str]:
    """
    Return the labels of a pod.

    :param node: ``head`` or ``worker``.
    :param group: the group of nodes.
    """
    name = cluster["metadata"]["name"]
    return {
        CLUSTER_LABEL: name,
        "ray.io/node-type": node,
        "ray.io/group": group,
        "ray.io/identifier": f"{name}-{node}",
        "ray.io/is-ray-node": "yes",
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/created-by": OPERATOR,
    }


def pod_of(cluster: Object, node: str, group: str, template: Object) -> Object:
    """Return a pod of a RayCluster."""
    meta = template.get("metadata", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{cluster['metadata']['name'][:50]}-{node}-",
            "namespace": cluster["metadata"]["namespace"],
            "labels": meta.get("labels", {}) | labels_of(cluster, node, group),
            "annotations": meta.get("annotations", {}),
            "ownerReferences": owned_by(cluster),
        },
        "spec": template["spec"],
    }


def service_name(cluster: Object) -> str:
    """Return the name of the service in front of a RayCluster's head."""
    return str(cluster["spec"]["headGroupSpec"].get("headService", {}).get("metadata", {}).get("name", "")) or (
        f"{cluster['metadata']['name']}-head-svc"
    )


def service_of(cluster: Object) -> Object:
    """Return the service in front of a RayCluster's head. Without an address of its own, as KubeRay makes it."""
    labels = labels_of(cluster, "head", "headgroup")
    del labels["ray.io/group"], labels["ray.io/is-ray-node"]
    ports = {"gcs-server": 6379, "dashboard": DASHBOARD_PORT, "client": 10001, "serve": 8000}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": service_name(cluster), "labels": labels, "ownerReferences": owned_by(cluster)},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels,
            "ports": [{"name": name, "port": port} for name, port in ports.items()],
        },
    }


def endpoints_of(service: Object, pod: Object, address: str) -> Object:
    """Return where a service leads to; in a cluster, a controller of Kubernetes makes this."""
    meta = pod["metadata"]
    target = {"kind": "Pod", "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}
    ports = [{"name": one["name"], "port": one["port"]} for one in service["spec"]["ports"]]
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": service["metadata"]["name"], "ownerReferences": owned_by(service)},
        "subsets": [{"addresses": [{"ip": address, "targetRef": target}], "ports": ports}],
    }


def event_of(about: Object, reason: str, message: str, kind: str = "Warning", source: str = OPERATOR) -> Object:
    """
    Return an event.

    The scheduler and KubeRay report by ``events.k8s.io``: such an event has an ``eventTime``, and null for the first
    and the last time. The kubelet reports in the old way, with a first and a last time, and a count.

    :param kind: ``Normal`` or ``Warning``.
    :param source: what reports it, such as ``kubelet``.
    """
    meta = about["metadata"]
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta['name']}.{secrets.token_hex(8)}", "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
        "reason": reason,
        "message": message,
        "type": kind,
    }
    if source == "kubelet":
        seen = {"firstTimestamp": now(), "lastTimestamp": now(), "count": 1}
        return event | seen | {"source": {"component": source, "host": "node-1"}}
    seconds = time.time()
    precise = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1e6):06}Z"
    by = {"reportingComponent": source, "reportingInstance": f"{source}-0"}
    return event | by | {"eventTime": precise, "action": "Scheduling" if source == "default-scheduler" else "Create"}

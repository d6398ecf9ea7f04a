"""What a test of Kubernetes has: an API server, namespaces, and access to them as an Airflow has it."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.kube import crds
from tests.kube.api import ApiError, path_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kube.api import Api, Object
    from tests.kube.server import KubeServer

#: What an Airflow may do.
ROLE = Path(__file__).parent / "airflow_role.yaml"


@dataclass(frozen=True)
class Access:
    """A namespace, and a service account in it that has the rights of a Role, and no others.

    :param token: of the service account, from the API server.
    :param api: a client with the rights of the service account.
    """

    url: str
    ca: str
    namespace: str
    token: str
    api: Api

    @property
    def kubeconfig(self) -> Object:
        """A kubeconfig, with the certificate and the token inside."""
        cluster = {"server": self.url, "certificate-authority-data": base64.b64encode(self.ca.encode()).decode()}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "bench", "cluster": cluster}],
            "users": [{"name": "airflow", "user": {"token": self.token}}],
            "contexts": [
                {"name": "bench", "context": {"cluster": "bench", "user": "airflow", "namespace": self.namespace}}
            ],
            "current-context": "bench",
        }

    def connection(self, **extra: Any) -> dict[str, Any]:
        """
        Return the fields of an Airflow connection of type `kubernetes`.

        :param extra: other fields of its extra.
        """
        fields = {"kube_config": json.dumps(self.kubeconfig), "namespace": self.namespace, **extra}
        return {"conn_type": "kubernetes", "extra": json.dumps(fields)}


class Kube:
    """An API server that knows RayJobs and RayClusters, and what an administrator does there.

    :param server: the server.
    """

    def __init__(self, server: KubeServer) -> None:
        self.server = server
        self.api = server.api()
        crds.serve(self.api)

    def new_access(self, role: Path = ROLE) -> Access:
        """
        Return a new namespace with a service account.

        :param role: a file with a Role, and perhaps with other objects, which are left out.
        """
        namespace = f"t-{secrets.token_hex(4)}"
        self.api.create("namespaces", "", {"metadata": {"name": namespace}})
        self.api.create("serviceaccounts", namespace, {"metadata": {"name": "airflow"}})
        roles = [one for one in yaml.safe_load_all(role.read_text()) if one and one["kind"] == "Role"]
        for one in roles:
            self.api.create("roles", namespace, one | {"metadata": {"name": one["metadata"]["name"]}})
            subject = {"kind": "ServiceAccount", "name": "airflow", "namespace": namespace}
            bound = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": one["metadata"]["name"]}
            binding = {"metadata": {"name": one["metadata"]["name"]}, "subjects": [subject], "roleRef": bound}
            self.api.create("rolebindings", namespace, binding)
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
        path = path_of("serviceaccounts", namespace, "airflow", "token")
        token = self.api.request("POST", path, asked)["status"]["token"]
        ca = self.server.ca_file.read_text()
        return Access(self.server.url, ca, namespace, token, self.server.api(token))

    def serve_older_kuberay(self) -> None:
        """Define RayJob as KubeRay before 1.6 does, without the deadline of the bring-up."""
        crds.serve(self.api, older=True)

    def serve_this_kuberay(self) -> None:
        """Define RayJob as the newest KubeRay does."""
        crds.serve(self.api)

    def limit(self, namespace: str, **hard: str) -> None:
        """
        Set a quota for a namespace. In a cluster, a controller of Kubernetes counts what is used; here nothing is.

        :param hard: the limits by resource, such as ``pods="0"``.
        """
        spec = {"metadata": {"name": "compute"}, "spec": {"hard": hard}}
        self.api.create("resourcequotas", namespace, spec)
        status = {"status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}
        self.api.patch("resourcequotas", namespace, "compute", status, "status")

    def unlimit(self, namespace: str) -> None:
        """Remove the quota of a namespace."""
        self.api.delete("resourcequotas", namespace, "compute")

    def clear(self, namespace: str) -> None:
        """Delete the RayJobs and RayClusters of a namespace, whether a KubeRay lets them go or not."""
        for kind in ("rayjobs", "rayclusters"):
            for meta in (one["metadata"] for one in self.api.list(kind, namespace)):
                with contextlib.suppress(ApiError):  # it has just gone
                    self.api.patch(kind, namespace, meta["name"], {"metadata": {"finalizers": []}})
                self.api.delete(kind, namespace, meta["name"])

    def events(self, namespace: str) -> list[Object]:
        """Return the events of a namespace."""
        return self.api.list("events", namespace)

    def left(self, namespace: str) -> list[str]:
        """Return what is left in a namespace of RayJobs, RayClusters and their parts, as ``kind/name``."""
        return list(self._left(namespace))

    def _left(self, namespace: str) -> Iterator[str]:
        for kind in ("rayjobs", "rayclusters", "pods", "services", "endpoints", "secrets"):
            try:
                for one in self.api.list(kind, namespace):
                    yield f"{kind}/{one['metadata']['name']}"
            except ApiError as e:
                if e.status != 404:
                    raise


def ray_job(
    name: str, *, cluster: Object | None = None, annotations: dict[str, str] | None = None, **spec: Any
) -> Object:
    """
    Return a RayJob in InteractiveMode with a small cluster.

    :param cluster: fields of its ``rayClusterSpec``.
    :param annotations: its annotations, see :data:`tests.kube.clusters.PLAY`.
    :param spec: fields of its spec.
    """
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"submissionMode": "InteractiveMode", "rayClusterSpec": cluster_spec(**(cluster or {})), **spec},
    }


def cluster_spec(**fields: Any) -> Object:
    """
    Return the spec of a RayCluster with a head alone.

    :param fields: further fields, or others instead.
    """
    container = {"name": "ray-head", "image": "ray.example/ray:2.60.0"}
    return {"headGroupSpec": {"rayStartParams": {}, "template": {"spec": {"containers": [container]}}}, **fields}

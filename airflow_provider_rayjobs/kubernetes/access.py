"""How the head of a cluster is reached: its address, Ray's token, and the API server's proxy."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.cluster import authentication as auth
from airflow_provider_rayjobs.cluster.connection import ClusterConnection
from airflow_provider_rayjobs.cluster.urls import filled, history_problem
from airflow_provider_rayjobs.exceptions import RayClusterStartError, RayKubernetesError, RayKubernetesRefusedError
from airflow_provider_rayjobs.kubernetes.calls import SECRETS, Sleep, get, part, text_at
from airflow_provider_rayjobs.kubernetes.cluster import HISTORY_PLACEHOLDERS, PROXY, SERVICE, head_url
from airflow_provider_rayjobs.kubernetes.lease import read
from airflow_provider_rayjobs.text.ray_messages import LOGS_FOLLOW

if TYPE_CHECKING:
    from airflow_provider_rayjobs.kubernetes.calls import Flow
    from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
    from airflow_provider_rayjobs.kubernetes.lease import Lease

#: Port of the dashboard, which serves the Jobs API.
DASHBOARD_PORT = 8265

#: Path of the API server's objects of a namespace.
_API = ("api", "v1", "namespaces")

#: Key of the token in KubeRay's Secret.
TOKEN_KEY = "auth_token"  # noqa: S105 - its name

#: Seconds to wait for the Secret, and between two looks at it.
SECRET_PATIENCE, SECRET_INTERVAL = 30.0, 2.0

#: Seconds to use a Kubernetes token before it is read again: that of a pod rotates.
KUBE_TOKEN_KEPT = 30.0


@dataclass(frozen=True)
class Head:
    """
    Where the head of a cluster is.

    :param lease: the RayJob.
    :param service: name of the head's service.
    :param token: Ray's token; empty if the cluster needs none.
    """

    lease: Lease
    service: str
    token: str = ""


def find_head(ref: ClusterRef) -> Flow[Head]:
    """
    Read where the head is, and Ray's token.

    :raises RayClusterStartError: the cluster is gone, or has no head yet.
    :raises RayKubernetesRefusedError: a right is missing.
    """
    lease = yield from read(ref.namespace, ref.name, ref.uid)
    if lease is None:
        raise RayClusterStartError(
            f"{ref} is gone, with its cluster: it was deleted, or the time for which it was made is over"
        )
    # KubeRay repeats Ray's message, which quotes the job's log. Here nobody knows what is secret in that.
    reason = lease.end_reason.partition(LOGS_FOLLOW)[0]
    if not lease.ray_cluster:
        raise RayClusterStartError(f"{ref} has no cluster (state {lease.state or 'New'!r}): {reason}")
    if lease.is_deleting or not (lease.is_live or lease.job_id):  # after its job's end the head stays for a while
        raise RayClusterStartError(f"{ref} and its cluster have ended: {reason or 'it was deleted'}")
    service = text_at(lease.body, "status", "rayClusterStatus", "head", "serviceName")
    token = ""
    options = part(lease.body, "spec", "rayClusterSpec", "authOptions")
    if text_at(options, "mode") == "token":
        token = yield from _token(lease, text_at(options, "secretName") or lease.ray_cluster)
    return Head(lease, service or f"{lease.ray_cluster}-head-svc", token)


def _token(lease: Lease, secret: str) -> Flow[str]:
    left = SECRET_PATIENCE
    while True:
        try:
            found = text_at((yield get(SECRETS, lease.namespace, secret)), "data", TOKEN_KEY)
            token = base64.b64decode(found, validate=True).decode().strip()
        except RayKubernetesError as e:
            if e.status != 404 or left <= 0:
                raise
        except (binascii.Error, ValueError):
            raise RayKubernetesRefusedError(
                f"Secret {lease.namespace}/{secret}: its key {TOKEN_KEY!r} holds no text"
            ) from None
        else:
            if problem := auth.token_problem(token):
                raise RayKubernetesRefusedError(
                    f"Secret {lease.namespace}/{secret}: the token in its key {TOKEN_KEY!r} {problem}"
                )
            return token
        yield Sleep(SECRET_INTERVAL)  # KubeRay makes the Secret together with the cluster
        left -= SECRET_INTERVAL


def connection_to(ref: ClusterRef, head: Head, configuration: Any = None) -> ClusterConnection:
    """
    Return how to talk to a head.

    :param configuration: the configuration of a Kubernetes client, for the API server's proxy: its address,
        certificates and token.
    :raises RayKubernetesRefusedError: ``access`` is wrong.
    """
    history_url = history_template(ref, head.lease.ray_cluster)
    headers = {} if ref.access == PROXY or not head.token else auth.with_token({}, head.token)
    if ref.access == PROXY:
        return replace(_through_api_server(ref, head, configuration), history_url=history_url)
    if ref.access == SERVICE:
        given = text_at(head.lease.body, "status", "dashboardURL")
        host = given or f"{head.service}.{ref.namespace}.svc:{DASHBOARD_PORT}"
        address = host if host.startswith(("http://", "https://")) else f"http://{host}"
    else:
        try:
            names = {"namespace": ref.namespace, "cluster": head.lease.ray_cluster, "service": head.service}
            address = head_url(ref.access, **names)
        except ValueError as e:
            raise RayKubernetesRefusedError(str(e)) from e
    return ClusterConnection(
        conn_id=ref.kubernetes_conn_id, address=address.rstrip("/"), headers=headers, history_url=history_url
    )


def history_template(ref: ClusterRef, ray_cluster: str) -> str:
    """
    Return a cluster's ``history_url`` with its names put in; what names the job is still missing.

    :param ray_cluster: name of the RayCluster.
    :raises RayKubernetesRefusedError: ``history_url`` is wrong.
    """
    if not ref.history_url:
        return ""
    if problem := history_problem(ref.history_url, HISTORY_PLACEHOLDERS):
        raise RayKubernetesRefusedError(f"history_url {problem}")
    return filled(ref.history_url, {"namespace": ref.namespace, "cluster": ray_cluster})


def _through_api_server(ref: ClusterRef, head: Head, configuration: Any) -> ClusterConnection:
    """
    Return the way through the API server, which needs the verb ``get`` and others on ``services/proxy``.

    ``Authorization`` is for the API server, so that Ray's token goes into ``X-Ray-Authorization``.
    """
    service = f"{head.service}:{DASHBOARD_PORT}"
    address = "/".join((configuration.host.rstrip("/"), *_API, ref.namespace, "services", service, "proxy"))
    headers = {} if not head.token else {auth.TOKEN_HEADERS[1]: f"Bearer {head.token}"}
    login = None
    if kube_token(configuration):
        source = f"kubernetes {ref.kubernetes_conn_id}"
        login = auth.RotatingToken(lambda: kube_token(configuration), source, KUBE_TOKEN_KEPT)
    verify: bool | str = (configuration.ssl_ca_cert or True) if configuration.verify_ssl else False
    cert = configuration.cert_file
    return ClusterConnection(
        conn_id=ref.kubernetes_conn_id,
        address=address,
        headers=headers,
        login=login,
        verify=verify,
        client_cert=(cert, configuration.key_file or cert) if cert else None,
    )


def kube_token(configuration: Any) -> str:
    """Return the token of a Kubernetes client, renewed if it rotates; empty if it uses none."""
    for name in ("BearerToken", "authorization"):  # the newer clients' name, and the older ones'
        value = configuration.get_api_key_with_prefix(name)
        if value:
            return str(value).removeprefix("Bearer ").removeprefix("bearer ").strip()
    return ""

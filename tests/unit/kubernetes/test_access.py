"""How a head is reached: by its service, the API server's proxy or a URL; with Ray's token from KubeRay's Secret."""

from __future__ import annotations

import base64
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_rayjobs.exceptions import RayClusterStartError, RayKubernetesError, RayKubernetesRefusedError
from airflow_provider_rayjobs.kubernetes.access import Head, connection_to, find_head, kube_token
from airflow_provider_rayjobs.kubernetes.calls import RAYJOBS, SECRETS
from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
from airflow_provider_rayjobs.kubernetes.lease import Lease
from tests.support.kube_calls import Objects

SERVICE = "etl-abcde-head-svc"


def ref(access: str = "service") -> ClusterRef:
    return ClusterRef("kube", "ray", "etl", "uid-1", access)


def rayjob(auth: Any = None, **status: Any) -> dict[str, Any]:
    spec = {"rayClusterSpec": {"authOptions": auth} if auth else {}}
    status = {"jobDeploymentStatus": "Waiting", "rayClusterName": "etl-abcde", **status}
    return {"metadata": {"name": "etl", "namespace": "ray"}, "spec": spec, "status": status}


def objects(body: Any, **secrets: Any) -> Objects:
    kube = Objects()
    kube.add(RAYJOBS, body)
    for name, token in secrets.items():
        kube.add(SECRETS, {"metadata": {"name": name.replace("_", "-")}, "data": {"auth_token": token}})
    return kube


def encoded(token: str) -> str:
    return base64.b64encode(token.encode()).decode()


def test_a_head_without_a_token() -> None:
    head = objects(rayjob()).run(find_head(ref()))
    assert (head.service, head.token) == (SERVICE, "")
    head = objects(rayjob(rayClusterStatus={"head": {"serviceName": "short-svc"}})).run(find_head(ref()))
    assert head.service == "short-svc"


@pytest.mark.parametrize(
    ("options", "secret"), [({"mode": "token"}, "etl_abcde"), ({"mode": "token", "secretName": "own"}, "own")]
)
def test_the_token_is_in_kuberays_secret(options: Any, secret: str) -> None:
    head = objects(rayjob(options), **{secret: encoded("t0ken\n")}).run(find_head(ref()))
    assert head.token == "t0ken"
    assert "t0ken" not in repr(connection_to(ref(), head))


def test_the_secret_is_waited_for() -> None:
    kube = objects(rayjob({"mode": "token"}))
    with pytest.raises(RayKubernetesError, match="not found"):
        kube.run(find_head(ref()))
    assert kube.slept >= 30
    kube = objects(rayjob({"mode": "token"}))
    kube.errors["get", SECRETS] = 500
    with pytest.raises(RayKubernetesError, match="500"):
        kube.run(find_head(ref()))
    assert not kube.slept


@pytest.mark.parametrize(("data", "problem"), [("%%%", "holds no text"), (encoded("a b"), "printable ASCII")])
def test_a_token_that_can_not_be_sent_is_named_without_it(data: str, problem: str) -> None:
    with pytest.raises(RayKubernetesRefusedError, match=f"Secret ray/etl-abcde: .*{problem}"):
        objects(rayjob({"mode": "token"}), etl_abcde=data).run(find_head(ref()))


def test_a_cluster_that_is_gone_is_told() -> None:
    with pytest.raises(RayClusterStartError, match="RayJob ray/etl is gone, with its cluster"):
        Objects().run(find_head(ref()))
    with pytest.raises(RayClusterStartError, match=r"has no cluster \(state 'Failed'\)"):
        objects(rayjob(rayClusterName="", jobDeploymentStatus="Failed")).run(find_head(ref()))

    with pytest.raises(RayClusterStartError, match="have ended: PreRunningDeadlineExceeded"):
        objects(rayjob(jobDeploymentStatus="Failed", reason="PreRunningDeadlineExceeded")).run(find_head(ref()))
    quoting = "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\nsec-9c"
    with pytest.raises(RayClusterStartError, match=r"AppFailed: Job entrypoint command failed with exit code 1$"):
        objects(rayjob(jobDeploymentStatus="Failed", reason="AppFailed", message=quoting)).run(find_head(ref()))
    with_job = rayjob(jobDeploymentStatus="Complete")
    with_job["spec"]["jobId"] = "job"
    assert objects(with_job).run(find_head(ref())).service == SERVICE


def head(token: str = "", **status: Any) -> Head:
    return Head(Lease(rayjob(**status)), SERVICE, token)


@pytest.mark.parametrize(
    ("access", "status", "address"),
    [
        ("service", {}, f"http://{SERVICE}.ray.svc:8265"),
        ("service", {"dashboardURL": "x.ray.svc.cluster.local:8265"}, "http://x.ray.svc.cluster.local:8265"),
        ("https://rays/{namespace}/{cluster}", {}, "https://rays/ray/etl-abcde"),
        ("https://{service}.rays/", {}, f"https://{SERVICE}.rays"),
    ],
)
def test_the_address(access: str, status: dict[str, str], address: str) -> None:
    assert connection_to(ref(access), head(**status)).address == address
    headers = connection_to(ref(access), head("t0ken", **status)).request_headers()
    assert headers == dict.fromkeys(("Authorization", "X-Ray-Authorization"), "Bearer t0ken")


def test_the_history_server_is_told_the_clusters_names() -> None:
    given = replace(ref(), history_url="https://history/{namespace}/{cluster}/{session}/{submission_id}")
    cluster = connection_to(given, head())
    assert cluster.history_page("job 1", "s1") == "https://history/ray/etl-abcde/s1/job%201"
    proxy = SimpleNamespace(
        host="https://kube", ssl_ca_cert=None, verify_ssl=True, cert_file=None, get_api_key_with_prefix=lambda _: None
    )
    assert connection_to(replace(given, access="proxy"), head(), proxy).history_url == cluster.history_url


@pytest.mark.parametrize("url", ["javascript:alert(1)", "https://h/{other}", "https://{cluster}/"])
def test_a_wrong_history_url_is_refused(url: str) -> None:
    with pytest.raises(RayKubernetesRefusedError, match="history_url "):
        connection_to(replace(ref(), history_url=url), head())


def test_a_wrong_template_of_a_url_is_refused() -> None:
    with pytest.raises(RayKubernetesRefusedError, match="may have the fields"):
        connection_to(ref("https://{name}"), head())


def configuration(token: str = "", **fields: Any) -> Any:
    fields = {"verify_ssl": True, "ssl_ca_cert": "/ca", "cert_file": None, "key_file": None, **fields}
    keys = {"BearerToken": f"Bearer {token}"} if token else {}
    return SimpleNamespace(host="https://kube:6443/", get_api_key_with_prefix=keys.get, keys=keys, **fields)


def test_through_the_api_server_both_tokens_have_their_header() -> None:
    client = configuration("kube-1")
    cluster = connection_to(ref("proxy"), head("t0ken"), client)
    assert cluster.address == f"https://kube:6443/api/v1/namespaces/ray/services/{SERVICE}:8265/proxy"
    assert cluster.verify == "/ca"
    expected = {"Authorization": "Bearer kube-1", "X-Ray-Authorization": "Bearer t0ken"}
    assert cluster.request_headers() == expected
    assert {"kube-1", "t0ken"} <= set(cluster.secrets)
    assert "kube-1" in cluster.masked
    client.keys["BearerToken"] = "kube-2"
    assert cluster.login is not None
    cluster.login.drop()
    assert cluster.request_headers()["Authorization"] == "Bearer kube-2"


def test_through_the_api_server_with_a_certificate() -> None:
    client = configuration(verify_ssl=False, cert_file="/cert", key_file="/key")
    cluster = connection_to(ref("proxy"), head(), client)
    assert (cluster.verify, cluster.client_cert, cluster.request_headers()) == (False, ("/cert", "/key"), {})


def test_the_name_of_the_token_in_older_clients() -> None:
    assert kube_token(SimpleNamespace(get_api_key_with_prefix={"authorization": "bearer x"}.get)) == "x"
    assert kube_token(SimpleNamespace(get_api_key_with_prefix=lambda _name: None)) == ""

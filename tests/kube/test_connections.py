"""Each kind of connection to Kubernetes, with the client of a worker and with that of the triggerer."""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.parse
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import kubernetes.client
import kubernetes.config.incluster_config
import kubernetes_asyncio.client
import kubernetes_asyncio.config.incluster_config
import pytest

from airflow_provider_rayjobs.exceptions import RayKubernetesError
from airflow_provider_rayjobs.kubernetes import api as package
from airflow_provider_rayjobs.kubernetes import lease as leases
from airflow_provider_rayjobs.kubernetes.api import KubeApi, async_kube_api
from tests.kube.bench import ray_job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kube.bench import Access

LOG = logging.getLogger("connections")
OLDEST_PROVIDER = version("apache-airflow-providers-cncf-kubernetes") == "10.5.0"


@pytest.fixture
def pod(access: Access, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The variables and files that a pod has."""
    address = urllib.parse.urlsplit(access.url)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(address.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(address.port))
    token, ca = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text(access.token)
    ca.write_text(access.ca)
    monkeypatch.setattr(package, "_SERVICE_ACCOUNT", token)
    for module in (kubernetes.config.incluster_config, kubernetes_asyncio.config.incluster_config):
        monkeypatch.setattr(module, "SERVICE_TOKEN_FILENAME", str(token))
        monkeypatch.setattr(module, "SERVICE_CERT_FILENAME", str(ca))


@pytest.fixture(autouse=True)
def _no_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither this process nor this machine has a configuration that would hide a missing one."""
    for client in (kubernetes.client, kubernetes_asyncio.client):
        monkeypatch.setattr(client.Configuration, "_default", None)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))


def extra_of(kind: str, access: Access, folder: Path) -> dict[str, Any]:
    if kind == "kube_config":
        return {"kube_config": json.dumps(access.kubeconfig)}
    if kind == "kube_config_path":
        (folder / "config").write_text(json.dumps(access.kubeconfig))
        return {"kube_config_path": str(folder / "config")}
    if kind == "disable_verify_ssl":
        config = access.kubeconfig
        del config["clusters"][0]["cluster"]["certificate-authority-data"]
        return {"kube_config": json.dumps(config), "disable_verify_ssl": True}
    return {"in_cluster": True} if kind == "in_cluster" else {}


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize("kind", ["kube_config", "kube_config_path", "disable_verify_ssl", "in_cluster", "pod"])
@pytest.mark.parametrize("client", ["worker", "triggerer"])
def test_a_rayjob_is_read_patched_and_deleted(
    access: Access, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, client: str, kind: str
) -> None:
    if (client, kind) == ("worker", "disable_verify_ssl") and OLDEST_PROVIDER:
        pytest.skip("the provider's own hook loses this field")
    connection = {"conn_type": "kubernetes", "extra": extra_of(kind, access, tmp_path)}
    monkeypatch.setenv("AIRFLOW_CONN_KUBE", json.dumps(connection))
    made = access.api.create("rayjobs", access.namespace, ray_job("mine"))
    uid = made["metadata"]["uid"]

    def flow() -> Any:
        lease = yield from leases.read(access.namespace, "mine")
        changed = yield from leases.set_job(access.namespace, "mine", lease.uid, "job", 0)
        yield from leases.delete(access.namespace, "mine", lease.uid)
        return lease.uid, changed.job_id

    run: Callable[[Any], Any] = by_worker if client == "worker" else by_triggerer
    assert run(flow()) == (uid, "job")
    assert access.api.find("rayjobs", access.namespace, "mine") is None


def by_worker(flow: Any) -> Any:
    return KubeApi("kube", LOG, patience=0).run(flow)


def by_triggerer(flow: Any) -> Any:
    async def running() -> Any:
        async with async_kube_api("kube", LOG, patience=0) as api:
            return await api.run(flow)

    return asyncio.run(running())


@pytest.mark.parametrize("run", [by_worker, by_triggerer])
def test_a_certificate_of_another_authority_is_refused(
    access: Access, monkeypatch: pytest.MonkeyPatch, run: Callable[[Any], Any]
) -> None:
    config = access.kubeconfig
    del config["clusters"][0]["cluster"]["certificate-authority-data"]
    connection = {"conn_type": "kubernetes", "extra": {"kube_config": json.dumps(config)}}
    monkeypatch.setenv("AIRFLOW_CONN_KUBE", json.dumps(connection))
    with pytest.raises(RayKubernetesError, match=r"(?i)certificate"):
        run(leases.read(access.namespace, "mine"))

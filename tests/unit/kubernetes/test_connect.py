"""Reaching and ending a cluster; the calls are made in `tests/kube`."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.kubernetes import connect
from airflow_provider_rayjobs.kubernetes.calls import RAYJOBS, SECRETS
from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
from tests.support.kube_calls import Objects

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LOG = logging.getLogger()


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch) -> Objects:
    """Objects in memory, which both clients reach."""
    found = Objects()

    class Api:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def run(self, flow: Any) -> Any:
            return found.run(flow)

        def configuration(self) -> Any:
            keys: dict[str, str] = {"BearerToken": "kube-token"}
            tls = {"verify_ssl": True, "ssl_ca_cert": None, "cert_file": None, "key_file": None}
            return SimpleNamespace(host="https://kube", get_api_key_with_prefix=keys.get, **tls)

    @contextlib.asynccontextmanager
    async def opened(*_: Any, **__: Any) -> AsyncIterator[Any]:
        async def run(flow: Any) -> Any:
            return found.run(flow)

        yield SimpleNamespace(run=run)

    monkeypatch.setattr(connect, "KubeApi", Api)
    monkeypatch.setattr(connect, "async_kube_api", opened)
    status = {"jobDeploymentStatus": "Waiting", "rayClusterName": "etl-abcde"}
    spec = {"rayClusterSpec": {"authOptions": {"mode": "token"}}}
    found.add(RAYJOBS, {"metadata": {"name": "etl", "namespace": "ray"}, "spec": spec, "status": status})
    token = base64.b64encode(b"ray-token").decode()
    found.add(SECRETS, {"metadata": {"name": "etl-abcde"}, "data": {"auth_token": token}})
    return found


@pytest.mark.usefixtures("kube")
@pytest.mark.parametrize("access", ["service", "proxy"])
def test_both_ways_give_the_same_connection_with_its_secrets_masked(
    access: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked: list[Any] = []
    monkeypatch.setattr(connect, "register_cluster", lambda cluster, *, passing: masked.append((cluster, passing)))
    ref = ClusterRef("kube", "ray", "etl", "uid-1", access)
    first, second = connect.connect(ref, LOG), asyncio.run(connect.async_connect(ref, LOG))
    assert first == second
    assert masked == [(first, True), (second, True)]
    assert first.request_headers()["X-Ray-Authorization"] == "Bearer ray-token"
    assert first.request_headers()["Authorization"] == f"Bearer {'kube' if access == 'proxy' else 'ray'}-token"


def test_a_cluster_is_ended_by_uid(kube: Objects) -> None:
    other, ref = (ClusterRef("kube", "ray", "etl", uid) for uid in ("another", "uid-1"))
    assert not connect.end(other, LOG)
    assert not asyncio.run(connect.async_end(other, LOG))
    assert (RAYJOBS, "etl") in kube.of
    assert asyncio.run(connect.async_end(ref, LOG))
    assert not connect.end(ref, LOG)

"""Fixtures of the tests that need nothing but Python."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.clients import CLIENTS, AiohttpClient, Client, FakeTime, cluster_at
from tests.support.stats import KeptStats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.faulty_proxy import FaultyProxy
    from tests.support.scripted_server import ScriptedRay

AIRFLOW_2 = version("apache-airflow").startswith("2.")

# A busy machine is no failure.
settings.register_profile("unit", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests() -> Iterator[None]:
    """Forget what a test had masked: Airflow 2 masks the shortest of texts, and keeps them for the process."""
    yield
    module = sys.modules.get("airflow.utils.log.secrets_masker")
    if AIRFLOW_2 and module is not None:
        masker = module._secrets_masker()
        masker.patterns.clear()
        masker.replacer = None


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> KeptStats:
    """Keeps the metrics that are sent."""
    from airflow_provider_rayjobs.observability import metrics

    kept = KeptStats()
    monkeypatch.setattr(metrics, "airflow_stats", lambda *, in_triggerer: kept)
    return kept


def _maker(kind: type[Client]) -> Iterator[Callable[..., Any]]:
    made: list[Client] = []

    def make(where: ScriptedRay | FaultyProxy | str, **fields: Any) -> Client:
        made.append(kind(cluster_at(where, **fields), FakeTime()))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture(params=CLIENTS)
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[..., Client]]:
    """Makes clients of a server; a test that uses it runs once with each HTTP library."""
    yield from _maker(CLIENTS[request.param])


@pytest.fixture
def connect_async() -> Iterator[Callable[..., AiohttpClient]]:
    """Makes clients of a server that use aiohttp."""
    yield from _maker(AiohttpClient)


@pytest.fixture
def conn_id(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> str:
    """Id of a connection to a scripted server."""
    monkeypatch.setenv("AIRFLOW_CONN_SCRIPTED", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url}))
    return "scripted"

"""What a job is told of Airflow's transport, as OpenLineage's own client reads it there."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.openlineage.plugins.listener import OpenLineageListener
from openlineage.client import OpenLineageClient

from airflow_provider_rayjobs.observability import lineage

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "the-key-of-lineage"
HTTP = {"type": "http", "url": "http://127.0.0.1:5000", "endpoint": "api/v2/lineage", "timeout": 7.5}


@pytest.fixture(autouse=True)
def _own_configuration(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("OPENLINEAGE")]:
        monkeypatch.delenv(name)
    yield
    for name in [name for name in os.environ if name.startswith("OPENLINEAGE")]:
        monkeypatch.delenv(name)


def read_back(monkeypatch: pytest.MonkeyPatch, transport: dict[str, Any]) -> Any:
    """Return the transport of a client in a job whose Airflow has this one."""
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", json.dumps(transport))
    listener = OpenLineageListener()
    monkeypatch.setattr("airflow.providers.openlineage.plugins.listener.get_openlineage_listener", lambda: listener)
    job = {"metadata": {}, "runtime_env": None}
    for name, value in lineage.with_run_of_task(job, None, parent=False, transport=True)["runtime_env"][
        "env_vars"
    ].items():
        monkeypatch.setenv(name, value)
    return OpenLineageClient().transport


def check_http(transport: Any) -> None:
    assert transport.kind == "http"
    assert (transport.url, transport.endpoint, transport.timeout) == (HTTP["url"], HTTP["endpoint"], HTTP["timeout"])


def test_http_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = read_back(monkeypatch, HTTP)
    check_http(transport)
    assert transport.config.auth.get_bearer() is None
    assert not transport.compression


def test_http_with_all_it_can_have(monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"compression": "gzip", "auth": {"type": "api_key", "apiKey": KEY}, "custom_headers": {"X-A": "b"}}
    transport = read_back(monkeypatch, {**HTTP, **more})
    check_http(transport)
    assert transport.config.auth.get_bearer() == f"Bearer {KEY}"
    assert transport.config.custom_headers == {"X-A": "b"}
    assert str(transport.compression) == "gzip"


def test_composite(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    second = {**HTTP, "auth": {"type": "api_key", "apiKey": KEY}}
    file = {"type": "file", "log_file_path": str(tmp_path / "events")}
    parts = {"a": HTTP, "b": second, "c": file}
    transport = read_back(monkeypatch, {"type": "composite", "continue_on_failure": False, "transports": parts})
    assert transport.kind == "composite"
    assert transport.config.continue_on_failure is False
    assert len(transport.transports) == 2
    for part in transport.transports:
        check_http(part)
    assert sorted(str(part.config.auth.get_bearer()) for part in transport.transports) == [f"Bearer {KEY}", "None"]

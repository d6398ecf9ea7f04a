"""Connections as this Airflow keeps them, and the name of this deployment."""

from __future__ import annotations

import asyncio
import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException, redact
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_rayjobs.compat import connections
from airflow_provider_rayjobs.exceptions import RayConnectionConfigError, RayJobsError
from tests.support.connections import airflow_connection

BASE_URL = "AIRFLOW__API__BASE_URL" if AIRFLOW_V_3_0_PLUS else "AIRFLOW__WEBSERVER__BASE_URL"
API_SERVER = "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"
FERNET_KEY = "AIRFLOW__CORE__FERNET_KEY"

# The name of the deployment


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Names a deployment with these options."""

    def name(base_url: str = "", api_server: str = "", fernet_key: str = "") -> str:
        for variable, value in {BASE_URL: base_url, API_SERVER: api_server, FERNET_KEY: fernet_key}.items():
            monkeypatch.setenv(variable, value)
        return connections.derived_deployment()

    return name


def test_a_deployment_is_named_by_its_public_url(deployment: Any) -> None:
    assert (
        deployment("https://airflow.example/team/", "https://api.example/execution/") == "https://airflow.example/team"
    )
    assert deployment("", "https://api.example/execution/") == "https://api.example/execution"


LOCAL = [
    "",
    "http://localhost:8080",
    "http://127.0.0.1:8080",
    "http://127.1.2.3",
    "http://0.0.0.0:1",
    "http://[::1]:8080",
]


@pytest.mark.parametrize("local", LOCAL)
def test_a_url_that_each_machine_has_names_no_deployment(local: str, deployment: Any) -> None:
    assert deployment(local, "https://api.example") == "https://api.example"
    first, again, second = (deployment(local, local, key) for key in ("one", "one", "two"))
    assert first.startswith("local-")
    assert first == again
    assert first != second
    assert "one" not in first


# Where a process that belongs to no task finds a connection


def keeps(found: Any = None, error: Exception | None = None) -> Any:
    """Return a secrets backend that answers so."""

    def get_connection(conn_id: str) -> Any:
        if error is not None:
            raise error
        return found

    return SimpleNamespace(get_connection=get_connection)


def stored(monkeypatch: pytest.MonkeyPatch, *backends: Any) -> Any:
    monkeypatch.setattr("airflow.configuration.ensure_secrets_loaded", lambda: list(backends))
    return connections.stored_connection("ray_x")


def test_the_first_place_that_knows_a_connection_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stored(monkeypatch, keeps(), keeps("first"), keeps("second")) == "first"
    assert stored(monkeypatch, keeps(error=OSError("away")), keeps("second")) == "second"


def test_a_connection_that_is_nowhere_is_told_from_one_that_could_not_be_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(AirflowNotFoundException, match="The conn_id `ray_x` isn't defined"):
        stored(monkeypatch, keeps(), keeps())
    first, second = OSError("no database\nwith its password"), ValueError("later")
    with pytest.raises(RayJobsError) as caught:
        stored(monkeypatch, keeps(error=first), keeps(), keeps(error=second))
    assert str(caught.value) == "The conn_id `ray_x` can't be looked up: OSError: no database"
    assert caught.value.__cause__ is first


# Reading


def test_the_options_of_this_deployment_are_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(connections, "read_connection", lambda *args, **kwargs: given.update(kwargs))
    monkeypatch.setenv("AIRFLOW__RAY_JOBS__ALLOWED_MODULES", " company.tokens ,, anyscale,")
    monkeypatch.setenv("AIRFLOW__RAY_JOBS__CREDENTIAL_FOLDERS", "")
    connections.load_cluster("ray_x", airflow_connection({"token": "t"}), create=False)
    assert given == {
        "allowed_modules": ["company.tokens", "anyscale"],
        "credential_folders": [],
        "create": False,
    }


def test_secrets_are_masked_before_a_wrong_value_is_told() -> None:
    with pytest.raises(RayConnectionConfigError):
        connections.load_cluster("ray_x", airflow_connection({"token": "tok-5d21c8", "verfy": 1}, host="head"))
    assert redact("is tok-5d21c8") == "is ***"


def test_a_connection_is_read_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    real = connections.load_cluster

    def load(*args: Any) -> Any:
        threads.append(threading.current_thread())
        return real(*args)

    class Hook:
        @staticmethod
        def get_connection(conn_id: str) -> Any:
            threads.append(threading.current_thread())
            return airflow_connection({"token": "tok-77e0b1"}, host=conn_id)

    monkeypatch.setattr(connections, "load_cluster", load)
    hook: Any = Hook()
    cluster = asyncio.run(connections.read_cluster(hook, "head"))
    assert cluster.address == "http://head:8265"
    assert len(threads) == 2
    assert threading.main_thread() not in threads
    assert redact(json.dumps("tok-77e0b1")) == '"***"'

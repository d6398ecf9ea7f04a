"""Addresses that others resolve: Ray's own forms, and the modules of third-party job managers."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_provider_rayjobs.cluster import addresses
from airflow_provider_rayjobs.cluster.connection import ClusterConnection, read_connection
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError, RayConnectionConfigError

NAME = "company_ray.jobs"


def read(host: str, extra: dict[str, Any] | None = None, **fields: Any) -> ClusterConnection:
    connection: Any = Connection(conn_id="ray_x", conn_type="ray_jobs", host=host, extra=json.dumps(extra or {}))
    return read_connection("ray_x", connection, **{"environ": {}, "allowed_modules": {NAME}, **fields})


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A job manager that is asked as Ray's client asks it."""
    module: Any = ModuleType(NAME)
    module.asked = []
    module.answer = {"address": "https://jobs.example:8443/c1/"}

    def get_job_submission_client_cluster_info(address: str, **given: Any) -> SimpleNamespace:
        module.asked.append((address, given))
        if isinstance(module.answer, Exception):
            raise module.answer
        defaults = {name: given[name] for name in ("cookies", "metadata", "headers")}
        return SimpleNamespace(**{**defaults, **module.answer})

    module.get_job_submission_client_cluster_info = get_job_submission_client_cluster_info
    monkeypatch.setitem(sys.modules, NAME, module)
    return module


def test_a_module_gets_what_rays_client_gives_it_and_its_answer_counts(manager: Any) -> None:
    extra = {
        "headers": {"X-H": "1"},
        "cookies": {"c": "2"},
        "metadata": {"m": "3"},
        "create_cluster_if_needed": True,
        "token": "tok",
    }
    manager.answer |= {"headers": {"X-H": "a"}, "cookies": {"c": "b"}, "metadata": {"m": "c"}}
    cluster = read(f"{NAME}://prod/cluster/", extra)
    ((address, given),) = manager.asked
    assert address == "prod/cluster"
    assert given == {
        "create_cluster_if_needed": True,
        "cookies": {"c": "2"},
        "metadata": {"m": "3"},
        "headers": {"X-H": "1"},
    }
    assert cluster.address == "https://jobs.example:8443/c1"
    assert (cluster.cookies, cluster.metadata) == ({"c": "b"}, {"m": "c"})
    # Ray's client adds its token to what the module answers, too.
    assert cluster.headers == {"X-H": "a", "Authorization": "Bearer tok", "X-Ray-Authorization": "Bearer tok"}


def test_a_module_is_given_nothing_where_nothing_is_set(manager: Any) -> None:
    cluster = read(f"{NAME}://prod")
    ((_, given),) = manager.asked
    assert given == {"create_cluster_if_needed": False, "cookies": None, "metadata": None, "headers": None}
    assert (cluster.cookies, cluster.metadata, cluster.headers) == ({}, {}, {})


@pytest.mark.parametrize("create", [True, False])
def test_a_cluster_is_created_only_where_both_the_connection_and_the_caller_want_it(manager: Any, create: bool) -> None:
    read(f"{NAME}://prod", extra={"create_cluster_if_needed": True}, create=create)
    ((_, given),) = manager.asked
    assert given["create_cluster_if_needed"] is create


def test_the_environment_may_name_a_module(manager: Any) -> None:
    assert read("", environ={"RAY_ADDRESS": f"{NAME}://x"}).address == "https://jobs.example:8443/c1"


def test_only_modules_that_the_deployment_allows_are_imported(manager: Any) -> None:
    for allowed in ((), {"company_ray"}, {f"{NAME}.more"}):
        with pytest.raises(RayConnectionConfigError, match=r"option \[ray_jobs\] allowed_modules"):
            read(f"{NAME}://x", allowed_modules=allowed)
    sys.modules.pop("this", None)
    with pytest.raises(RayConnectionConfigError, match="the module 'this' is not allowed"):
        read("this://x")
    assert "this" not in sys.modules
    assert manager.asked == []


def test_the_option_of_airflow_allows_modules(manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_rayjobs.compat import connections
    from airflow_provider_rayjobs.get_provider_info import get_provider_info

    assert "allowed_modules" in get_provider_info()["config"]["ray_jobs"]["options"]
    connection: Any = Connection(conn_id="ray_x", conn_type="ray_jobs", host=f"{NAME}://x")
    with pytest.raises(RayConnectionConfigError, match="allowed_modules"):
        connections.load_cluster("ray_x", connection)
    monkeypatch.setenv("AIRFLOW__RAY_JOBS__ALLOWED_MODULES", f"other , {NAME}")
    assert connections.load_cluster("ray_x", connection).address == "https://jobs.example:8443/c1"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"address": "ftp://x"}, "'ftp' is not supported"),
        ({"address": "http://a b"}, "is not a valid address"),
        ({"headers": {"X": 1}}, "that are not strings"),
        ({"headers": {"X": "a\nhunter2"}}, "the value of 'X' has characters"),
        ({"metadata": {"airflow_task": "x"}}, "keys that begin with 'airflow_' are reserved for the provider"),
    ],
)
def test_what_a_module_answers_is_checked(manager: Any, answer: dict[str, Any], words: str) -> None:
    manager.answer |= answer
    with pytest.raises(RayConnectionConfigError) as caught:
        read(f"{NAME}://x")
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_module_that_fails_is_no_wrong_connection(manager: Any) -> None:
    manager.answer = OSError("the manager is asleep")
    with pytest.raises(
        RayClusterUnreachableError, match="failed to return the cluster's address: OSError: the manager is asleep"
    ):
        read(f"{NAME}://x")
    del manager.get_job_submission_client_cluster_info
    with pytest.raises(RayConnectionConfigError, match="has no function get_job_submission_client_cluster_info"):
        read(f"{NAME}://x")
    with pytest.raises(RayConnectionConfigError, match="'no_such_module_9' can't be imported on this machine"):
        read("no_such_module_9://x", allowed_modules={"no_such_module_9"})


@pytest.mark.parametrize(
    ("host", "environ"), [("ray://head:10001", {}), ("auto", {}), ("", {"RAY_ADDRESS": "head:6379"})]
)
def test_ray_is_asked_in_a_process_that_knows_of_no_other_cluster(
    host: str, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process and its end are real; what stands for Ray's part says what it was given (see tests/integration)."""
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:1")
    monkeypatch.setattr(addresses.importlib.util, "find_spec", lambda name: name)
    text = host or "head:6379"
    code = (
        "import os, sys; assert sys.argv[1] == %r and 'RAY_ADDRESS' not in os.environ; "
        "print('noise'); print('http://10.0.0.9:8265')"
    )
    monkeypatch.setattr(addresses, "_ASK_RAY", code % text)
    assert read(host, environ=environ).address == "http://10.0.0.9:8265"
    monkeypatch.setattr(addresses, "_ASK_RAY", "raise ConnectionError('nobody there')")
    with pytest.raises(RayClusterUnreachableError, match="Ray found no cluster: ConnectionError: nobody there"):
        read(host, environ=environ)
    monkeypatch.setattr(addresses, "_ASK_RAY", "import time; time.sleep(60)")
    monkeypatch.setattr(addresses, "RESOLVE_TIMEOUT", 0.2)
    with pytest.raises(RayClusterUnreachableError, match=r"within 0\.2 s"):
        read(host, environ=environ)

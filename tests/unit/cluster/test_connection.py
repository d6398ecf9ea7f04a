"""What an Airflow connection says about a cluster, and each way in which it can be wrong."""

from __future__ import annotations

import json
import pickle
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.cluster.connection import ClusterConnection, read_connection
from airflow_provider_rayjobs.cluster.fields import FIELDS
from airflow_provider_rayjobs.exceptions import RayConnectionConfigError
from tests.support.connections import airflow_connection, read, refusal, token

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.private_ca import PrivateCA


def test_two_tokens_are_one_too_many(tmp_path: Path) -> None:
    assert "remove one of the two" in refusal("token", {"token": "t"}, host="head", password="p")
    assert "remove one of the two" in refusal("token_file", {"token_file": str(tmp_path)}, host="head", password="p")
    assert "remove one of the two" in refusal("token", {"token": "t", "token_callable": "a.b"}, host="head")


@pytest.mark.parametrize("name", ["authorization", "Authorization"])
def test_a_login_and_an_authorization_are_one_too_many(name: str) -> None:
    assert "remove one of the two" in refusal("headers", {"headers": {name: "x"}}, host="head", login="l", password="p")


def test_everything_that_can_be_said(private_ca: PrivateCA) -> None:
    extra = {
        "token": " tok ",
        "headers": {"X-Team": "a"},
        "cookies": {"session": "s"},
        "metadata": {"owner": "me"},
        "verify": False,
        "connect_timeout": 1,
        "read_timeout": "2.5",
        "unreachable_timeout": 3,
        "max_upload_size": 512,
        "deployment": " prod ",
        "package_folder": "s3://aws@bucket/ray/",
        "dashboard_url": "https://ray.example.com/dash/",
        "history_url": "https://history.example.com/{session}/jobs/{submission_id}",
        "client_cert": str(private_ca.client_cert),
        "client_key": str(private_ca.client_key),
        "create_cluster_if_needed": "False",
    }
    assert set(extra) | {"token_file", "token_callable"} == set(FIELDS)
    cluster = read(extra, host="head")
    assert cluster == ClusterConnection(
        conn_id="ray_x",
        address="http://head:8265",
        headers={"X-Team": "a", "Authorization": "Bearer tok", "X-Ray-Authorization": "Bearer tok"},
        client_cert=(str(private_ca.client_cert), str(private_ca.client_key)),
        cookies={"session": "s"},
        metadata={"owner": "me"},
        verify=False,
        connect_timeout=1.0,
        read_timeout=2.5,
        unreachable_timeout=3.0,
        max_upload_size=512.0,
        deployment="prod",
        package_folder="s3://aws@bucket/ray",
        dashboard_url="https://ray.example.com/dash",
        history_url="https://history.example.com/{session}/jobs/{submission_id}",
    )
    assert set(cluster.secrets) == {"a", "Bearer tok", "tok", "s"}


def test_nothing_said_means_safe_defaults() -> None:
    blank = dict.fromkeys(FIELDS, "")
    assert read(host="head") == read(blank, host="head") == read("", host="head")
    cluster = read(host="head")
    assert (cluster.verify, cluster.headers, cluster.cookies, cluster.metadata) == (True, {}, {}, {})
    assert (cluster.connect_timeout, cluster.read_timeout, cluster.unreachable_timeout) == (10.0, 60.0, 600.0)


def test_repr_hides_headers_and_cookies() -> None:
    cluster = read({"token": "hush1", "headers": {"X": "hush2"}, "cookies": {"c": "hush3"}}, host="head")
    assert "hush" not in repr(cluster)
    assert "hush" not in str(cluster)


def test_a_connection_given_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.providers.common.compat.sdk import BaseHook

    text = json.dumps(
        {"conn_type": "ray_jobs", "host": "head", "port": 9000, "password": "tok", "extra": {"verify": False}}
    )
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", text)
    cluster = read_connection("ray_x", BaseHook.get_connection("ray_x"), {})
    assert (cluster.address, cluster.verify) == ("http://head:9000", False)
    assert cluster.headers == token("tok")


@pytest.mark.parametrize(
    ("uri", "address", "headers"),
    [
        ("ray-jobs://head", "http://head:8265", {}),
        ("ray-jobs://:t%40k@head:9000/https", "https://head:9000", token("t@k")),
        ("ray-jobs://https%3A%2F%2Fhead%2Fp%2Fq?token=a", "https://head/p/q", token("a")),
        ("ray-jobs://head/?headers=%7B%22X%22%3A+%221%22%7D", "http://head:8265", {"X": "1"}),
        ("ray-jobs://head?token=0123456", "http://head:8265", token("0123456")),
        ("RAY-JOBS://head", "http://head:8265", {}),
        ("ray-jobs://head/?__extra__=%7B%22headers%22%3A+%7B%22X%22%3A+%221%22%7D%7D", "http://head:8265", {"X": "1"}),
    ],
)
def test_a_connection_given_as_uri(
    uri: str, address: str, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.common.compat.sdk import BaseHook

    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", uri)
    cluster = read_connection("ray_x", BaseHook.get_connection("ray_x"), {})
    assert (cluster.address, cluster.headers) == (address, headers)


@pytest.mark.parametrize(
    ("conn_type", "words"),
    [
        (
            "postgres",
            "Connection 'ray_x' has the type 'postgres', not 'ray_jobs'; use another connection, or change it: as a ",
        ),
        ("http", "has the type 'http', not 'ray_jobs'"),
        ("generic", "has the type 'generic', not 'ray_jobs'"),
        ("ray", "has the type 'ray', not 'ray_jobs'"),
        ("", "Connection 'ray_x' has no type; it must have the type 'ray_jobs': as a URI, write ray-jobs://"),
        (None, "Connection 'ray_x' has no type"),
    ],
)
def test_a_connection_of_another_type_is_refused(conn_type: str | None, words: str) -> None:
    connection = airflow_connection({"verfy": 1}, host="head", password="hunter2")
    connection.conn_type = conn_type
    with pytest.raises(RayConnectionConfigError) as caught:
        read_connection("ray_x", connection, {})
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("ray_jobs://head:8265", "has no type"),  # Airflow splits no scheme with an underscore
        ("ray_jobs://me:hunter2@head:8265", "has no type"),
        ("ray_jobs://:hunter2@head:8265/?token=hunter2", "has no type"),
        ("ray_jobs://", "has no type"),
        ("//me:hunter2@head:8265", "has no type"),
        ("head:8265", "has the type 'head', not 'ray_jobs'"),
        ("ray-jobs:/hunter2", "field 'host': is empty, although schema is set; set it to the cluster's host: "),
        ("ray-jobs://:hunter2@", "field 'host': is empty, although password is set"),
        ("ray-jobs://me:hunter2@/hunter2?token=hunter2", "although schema, login, password, token are set"),
    ],
)
def test_a_uri_without_a_cluster_is_no_other_cluster(uri: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.providers.common.compat.sdk import BaseHook

    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", uri)
    connection = BaseHook.get_connection("ray_x")
    with pytest.raises(RayConnectionConfigError) as caught:
        read_connection("ray_x", connection, {"RAY_ADDRESS": "http://another:8265"})
    assert words in str(caught.value)
    assert "as a URI, write ray-jobs://host:port with a hyphen" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"login": "me", "password": "hunter2"}, "login, password are set"),
        ({"schema": "https"}, "schema is set"),
        ({"host": " ", "password": "hunter2"}, "password is set"),
        ({"extra": {"token": "hunter2", "deployment": ""}}, "token is set"),
        ({"extra": {"verify": False}}, "verify is set"),
        ({"extra": {"verify": False, "token": "hunter2"}}, "verify, token are set"),
        ({"extra": {"headers": {"X": "hunter2"}, "unreachable_timeout": 3}}, "headers, unreachable_timeout are set"),
    ],
)
def test_what_is_set_without_a_host_goes_to_no_other_cluster(fields: dict[str, Any], names: str) -> None:
    for environ in ({}, {"RAY_ADDRESS": "http://another:8265"}):
        message = refusal("host", environ=environ, **fields)
        assert f"is empty, although {names}; set it to the cluster's host: as a URI, write " in message
        assert "hunter2" not in message
    assert read(port=9000, **{**fields, "schema": None}).address == "http://localhost:9000"


def test_a_connection_in_which_nothing_is_set_is_that_of_the_environment() -> None:
    blank = {**dict.fromkeys(FIELDS, ""), "create_cluster_if_needed": False, "headers": {}, "read_timeout": None}
    for extra in (None, "", "{}", blank):
        assert read(extra, host="").address == "http://localhost:8265"
        assert read(extra, environ={"RAY_ADDRESS": "http://second:1"}).address == "http://second:1"


def test_a_password_that_no_header_can_carry_is_refused() -> None:
    # Airflow's own connection can't hold these: 2.11 fails when it is to encrypt them.
    for login, password in (("me", "\ud800"), ("me\0", "x"), ("\udcff", "x")):
        fields = {"host": "head", "port": None, "schema": None, "login": login, "password": password, "extra": ""}
        connection = SimpleNamespace(conn_type="ray_jobs", **fields)
        with pytest.raises(
            RayConnectionConfigError, match="must not contain NUL or lone surrogates, and neither must the login"
        ) as caught:
            read_connection("ray_x", connection, {})
        assert caught.value.field == "password"

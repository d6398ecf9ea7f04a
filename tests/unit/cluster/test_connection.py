"""What an Airflow connection says about a cluster, and each way in which it can be wrong."""

from __future__ import annotations

import json
import pickle
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_provider_rayjobs.cluster.connection import ClusterConnection, read_connection
from airflow_provider_rayjobs.cluster.fields import FIELDS
from airflow_provider_rayjobs.compat import connections
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError, RayConnectionConfigError
from airflow_provider_rayjobs.text.json_levels import MOST_LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.private_ca import PrivateCA


def airflow_connection(extra: Any = None, **fields: Any) -> Any:
    text = extra if extra is None or isinstance(extra, str) else json.dumps(extra)
    return Connection(conn_id="ray_x", conn_type="ray_jobs", extra=text, **fields)


def read(extra: Any = None, environ: dict[str, str] | None = None, **fields: Any) -> ClusterConnection:
    return read_connection("ray_x", airflow_connection(extra, **fields), environ or {})


def token(value: str) -> dict[str, str]:
    """Return the headers that carry a token."""
    return {"Authorization": f"Bearer {value}", "X-Ray-Authorization": f"Bearer {value}"}


def refusal(field: str, extra: Any = None, environ: dict[str, str] | None = None, **fields: Any) -> str:
    """Read what is wrong; the message names the connection and the field."""
    with pytest.raises(RayConnectionConfigError) as caught:
        read(extra, environ, **fields)
    assert (caught.value.conn_id, caught.value.field) == ("ray_x", field)
    assert str(caught.value).startswith(f"Connection 'ray_x', field {field!r}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("fields", "address"),
    [
        ({"host": "head"}, "http://head:8265"),
        ({"host": " head "}, "http://head:8265"),
        ({"host": "head:9000"}, "http://head:9000"),
        ({"host": "head", "port": 9000}, "http://head:9000"),
        ({"host": "head:9000", "port": 9000}, "http://head:9000"),
        ({"host": "10.0.0.1"}, "http://10.0.0.1:8265"),
        ({"host": "head", "schema": "https"}, "https://head:8265"),
        ({"host": "head", "schema": "HTTPS", "port": 443}, "https://head:443"),
        ({"host": "head", "schema": "https://"}, "https://head:8265"),
        ({"host": "head:9000/ray/"}, "http://head:9000/ray"),
        ({"host": "http://head"}, "http://head"),
        ({"host": "http://head:9000/"}, "http://head:9000"),
        ({"host": "https://example.com/team/ray/"}, "https://example.com/team/ray"),
        ({"host": "https://example.com", "port": 8443}, "https://example.com:8443"),
        ({"host": "https://example.com/a%20b"}, "https://example.com/a%20b"),
        ({"host": "::1"}, "http://[::1]:8265"),
        ({"host": "[::1]"}, "http://[::1]:8265"),
        ({"host": "[::1]:9000"}, "http://[::1]:9000"),
        ({"host": "http://[::1]:9000/p"}, "http://[::1]:9000/p"),
        ({"host": "::1", "port": 9000}, "http://[::1]:9000"),
        ({}, "http://localhost:8265"),
        ({"port": 9000}, "http://localhost:9000"),
    ],
)
def test_every_form_of_address(fields: dict[str, Any], address: str) -> None:
    assert read(**fields).address == address


def test_the_environment_counts_only_when_the_host_is_empty() -> None:
    environ = {"RAY_ADDRESS": "http://second:1", "RAY_API_SERVER_ADDRESS": "https://first:2/p"}
    assert read(environ=environ).address == "https://first:2/p"
    assert read(environ={"RAY_ADDRESS": "http://second:1"}).address == "http://second:1"
    assert read(environ={"RAY_API_SERVER_ADDRESS": ""}).address == "http://localhost:8265"
    assert read(environ=environ, host="head").address == "http://head:8265"
    assert read(environ=environ, port=1).address == "http://localhost:1"


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"host": "ray://head:10001"}, "host", "'ray', which is not installed here; write http://head:8265"),
        ({"host": "auto"}, "host", "'ray', which is not installed here; write http://HEAD:8265"),
        ({"host": "ray://head", "port": 10001}, "port", "must be empty with this form of host"),
        ({"host": "company.ray://x", "schema": "https"}, "schema", "must be empty with this form of host"),
        ({"host": "company.ray://x"}, "host", "option [ray_jobs] allowed_modules"),
        ({"host": "htpp://head"}, "host", "the module 'htpp' is not allowed; to allow it"),
        ({"host": "head 1"}, "host", "is not a valid address"),
        ({"host": "http://"}, "host", "is not a valid address"),
        ({"host": "http://head:8265/#/jobs"}, "host", "is not a valid address"),
        ({"host": "http://head?x=1"}, "host", "is not a valid address"),
        ({"host": "head:port"}, "host", "is not a valid address"),
        ({"host": "head:70000"}, "host", "is not a valid address"),
        ({"host": "http://[::1"}, "host", "is not a valid address"),
        ({"host": "head:0"}, "port", "must be between 1 and 65535, not 0"),
        ({"host": "head", "port": 0}, "port", "must be between 1 and 65535, not 0"),
        ({"host": "head", "port": 70000}, "port", "must be between 1 and 65535, not 70000"),
        ({"host": "head:9000", "port": 9001}, "port", "is 9001, but the host has port 9000"),
        ({"host": "head", "schema": "ray"}, "schema", "must be http or https"),
        ({"host": "head", "login": "me"}, "login", "is set, but the password is empty; for a token, set only"),
        ({"environ": {"RAY_ADDRESS": "ray://head:10001"}}, "RAY_ADDRESS", "write http://head:8265"),
        ({"environ": {"RAY_ADDRESS": "head:6379"}}, "RAY_ADDRESS", "write http://head:8265"),
        ({"environ": {"RAY_API_SERVER_ADDRESS": "auto"}}, "RAY_API_SERVER_ADDRESS", "write http://HEAD:8265"),
    ],
)
def test_a_wrong_address_is_named_with_what_to_write(fields: dict[str, Any], field: str, words: str) -> None:
    assert words in refusal(field, **fields)


@pytest.mark.parametrize(
    "host",
    [
        "https://user:hunter2@head",
        "https://user:hunter2@head:port",
        "https://user:hun/hunter2@head",
        "hunter2@head",
        "http://head/p?token=hunter2",
        "http://head:port/p?token=hunter2#x",
        "http://head#hunter2",
    ],
)
def test_a_secret_in_the_host_is_refused_and_not_shown(host: str) -> None:
    assert "hunter2" not in refusal("host", host=host)


@pytest.mark.parametrize(
    ("extra", "field", "words"),
    [
        (
            {"verfy": False},
            "verfy",
            "is not a known key; the extra may contain client_cert, client_key, connect_timeout",
        ),
        ({"token_file": "token-by-mistake"}, "token_file", "the file does not exist on this machine"),
        ({"token_file": "/no/such/token"}, "token_file", "'/no/such/token' does not exist on this machine"),
        ({"token_callable": "os.getcwd"}, "token_callable", "the module 'os' is not allowed; to allow it"),
        ({"client_cert": "/no/such.pem"}, "client_cert", "'/no/such.pem' does not exist on this machine"),
        ({"client_key": "/no/such.key"}, "client_key", "is set without client_cert"),
        ({"create_cluster_if_needed": "maybe"}, "create_cluster_if_needed", "must be true or false, not 'maybe'"),
        ({"headers": {"cookie": "a=b"}, "cookies": {"c": "d"}}, "headers", "contains Cookie although cookies are set"),
        ({"token": ["t"]}, "token", "must be a string"),
        ({"token": "a b"}, "token", "must contain only printable ASCII characters without spaces"),
        ({"token": "ä"}, "token", "must contain only printable ASCII characters without spaces"),
        ({"headers": ["x"]}, "headers", "must be a JSON object; expected: object of HTTP headers"),
        ({"headers": "{"}, "headers", "is not valid JSON"),
        ({"headers": {"X": ["a"]}}, "headers", "the value of 'X' must be a string"),
        ({"headers": {"X": "a\nb"}}, "headers", "the value of 'X' has characters"),
        ({"headers": {"X": " a"}}, "headers", "the value of 'X' has characters"),
        ({"headers": {"X": "ü"}}, "headers", "the value of 'X' has characters"),
        ({"headers": {"X Y": "a"}}, "headers", "'X Y' has characters"),
        ({"headers": {"X:": "a"}}, "headers", "'X:' has characters"),
        ({"headers": {"": "a"}}, "headers", "'' has characters"),
        ({"cookies": {"c": "a;b"}}, "cookies", "the value of 'c' has characters"),
        ({"cookies": {"c": "a\r\nb"}}, "cookies", "the value of 'c' has characters"),
        ({"cookies": {"c=": "a"}}, "cookies", "'c=' has characters"),
        ({"cookies": "x"}, "cookies", "is not valid JSON"),
        ({"metadata": {"k": None}}, "metadata", "the value of 'k' must be a string"),
        (
            {"metadata": {"airflow_task": "x"}},
            "metadata",
            "keys that begin with 'airflow_' are reserved for the provider",
        ),
        ({"metadata": "[]"}, "metadata", "must be a JSON object"),
        ({"connect_timeout": 0}, "connect_timeout", "must be a positive number, not '0'; expected: seconds"),
        ({"read_timeout": "soon"}, "read_timeout", "must be a positive number, not 'soon'"),
        ({"read_timeout": True}, "read_timeout", "must be a positive number, not True"),
        ({"read_timeout": [1]}, "read_timeout", "must be a positive number"),
        ({"unreachable_timeout": float("inf")}, "unreachable_timeout", "must be a positive number, not 'Infinity'"),
        ({"unreachable_timeout": -1}, "unreachable_timeout", "must be a positive number, not '-1'"),
        ({"verify": "/no/such/ca.pem"}, "verify", "'/no/such/ca.pem' does not exist on this machine"),
        ({"verify": 1}, "verify", "'1' does not exist on this machine; expected: true, false, or the path"),
        ({"deployment": {"a": 1}}, "deployment", "must be a string"),
    ],
)
def test_a_wrong_extra_is_named_with_what_to_write(extra: dict[str, Any], field: str, words: str) -> None:
    assert words in refusal(field, extra, host="head")


def test_two_tokens_are_one_too_many(tmp_path: Path) -> None:
    assert "remove one of the two" in refusal("token", {"token": "t"}, host="head", password="p")
    assert "remove one of the two" in refusal("token_file", {"token_file": str(tmp_path)}, host="head", password="p")
    assert "remove one of the two" in refusal("token", {"token": "t", "token_callable": "a.b"}, host="head")


@pytest.mark.parametrize("name", ["authorization", "Authorization"])
def test_a_login_and_an_authorization_are_one_too_many(name: str) -> None:
    assert "remove one of the two" in refusal("headers", {"headers": {name: "x"}}, host="head", login="l", password="p")


def test_no_refusal_shows_the_value_of_a_secret() -> None:
    for extra in (
        {"token": "hunter2 x"},
        {"headers": {"X": "hunter2\n"}},
        {"cookies": {"X": "hunter2;"}},
        {"headers": '{"X": "hunter2"'},
        {"headers": {"Cookie": "hunter2"}, "cookies": {"c": "hunter2"}},
        {"token": "hunter2", "token_file": "x"},
    ):
        with pytest.raises(RayConnectionConfigError) as caught:
            read(extra, host="head")
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("extra", ['{"verify": false', "verify=false", "[1]", '"text"', "5"])
def test_an_extra_that_is_no_json_object_is_refused_and_never_ignored(extra: str) -> None:
    unset = dict.fromkeys(("port", "schema", "login", "password"))
    connection = SimpleNamespace(conn_type="ray_jobs", host="head", extra=extra, **unset)
    with pytest.raises(RayConnectionConfigError, match=r"'ray_x', field 'extra': must be a JSON object"):
        read_connection("ray_x", connection, {})


@pytest.mark.parametrize("depth", [MOST_LEVELS, 300, 600, 950, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_an_extra_of_any_depth_is_refused_in_words(depth: int, opening: str, closing: str) -> None:
    """Python's json gives up on the deepest; other code would on those that it takes."""
    deep = opening * depth + "1" + closing * depth
    unset = dict.fromkeys(("port", "schema", "login", "password"))
    for extra, problem in (
        (f'{{"headers": {deep}}}', "field 'extra': must be a JSON object"),
        (
            json.dumps({"headers": deep}),
            "field 'headers': (is not valid JSON|.*must be a string|must be a JSON object)",
        ),
    ):
        connection = SimpleNamespace(conn_type="ray_jobs", host="head", extra=extra, **unset)
        with pytest.raises(RayConnectionConfigError, match=problem):
            connections.load_cluster("ray_x", connection)


@pytest.mark.parametrize("nasty", ["a\0", "\ud800", "a\udcff"])
@pytest.mark.parametrize(
    ("field", "make"),
    [
        *((key, lambda text: text) for key in FIELDS),
        *((key, lambda text: {"X": text}) for key in ("headers", "cookies", "metadata")),
        *((key, lambda text: {text: "x"}) for key in ("headers", "cookies", "metadata")),
        *((key, lambda text: json.dumps({"X": text})) for key in ("headers", "cookies", "metadata")),
        ("metadata", lambda text: json.dumps({text: "x"})),
        ("metadata", lambda text: {"X": ["x", {"y": text}]}),
    ],
)
def test_what_airflow_can_not_store_is_refused_in_every_field(
    nasty: str, field: str, make: Callable[[str], Any]
) -> None:
    message = refusal(field, {field: make(nasty)}, host="head")
    assert message.endswith(": must not contain NUL or lone surrogates")
    message.encode()
    assert "\0" not in message


def test_a_broken_extra_of_airflows_own_connection_is_refused() -> None:
    connection = airflow_connection(host="head")
    connection.extra = '{"verify": false'
    with pytest.raises(RayConnectionConfigError, match="must be a JSON object"):
        read_connection("ray_x", connection, {})


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
        "dashboard_url": "https://ray.example.com/dash/",
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
        dashboard_url="https://ray.example.com/dash",
    )
    assert set(cluster.secrets) == {"a", "Bearer tok", "tok", "s"}


def test_nothing_said_means_safe_defaults() -> None:
    blank = dict.fromkeys(FIELDS, "")
    assert read(host="head") == read(blank, host="head") == read("", host="head")
    cluster = read(host="head")
    assert (cluster.verify, cluster.headers, cluster.cookies, cluster.metadata) == (True, {}, {}, {})
    assert (cluster.connect_timeout, cluster.read_timeout, cluster.unreachable_timeout) == (10.0, 60.0, 600.0)


def test_objects_may_be_json_text_as_a_form_gives_them() -> None:
    extra = {"headers": '{"X": "1"}', "cookies": '{"c": "2"}', "metadata": '{"m": "3"}', "read_timeout": "7"}
    cluster = read(extra, host="head")
    assert (cluster.headers, cluster.cookies, cluster.metadata) == ({"X": "1"}, {"c": "2"}, {"m": "3"})
    assert cluster.read_timeout == 7.0


def test_every_form_of_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.pem").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, meant in (
        (True, True),
        (False, False),
        ("true", True),
        (" FALSE ", False),
        (str(tmp_path), str(tmp_path)),
        (f" {tmp_path}/ca.pem ", f"{tmp_path}/ca.pem"),
        ("~/ca.pem", f"{tmp_path}/ca.pem"),
    ):
        assert read({"verify": given}, host="head").verify == meant


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


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("123456", "123456"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("-0", "-0"),
        ("NaN", "NaN"),
        ("true", "true"),
        ("false", "false"),
        ('"0123"', "0123"),
    ],
)
def test_a_number_is_taken_for_its_text(given: str, text: str) -> None:
    extra = f'{{"token": {given}, "deployment": {given}, "headers": {{"X": {given}}}, "metadata": {{"m": {given}}}}}'
    cluster = read(extra, host="head")
    assert cluster.headers == {"X": text, **token(text)}
    assert (cluster.deployment, cluster.metadata) == (text, {"m": text})
    nested = json.dumps({"cookies": f'{{"c": {given}}}'})  # as a form gives it
    assert read(nested, host="head").cookies == {"c": text}


@pytest.mark.parametrize("given", ["1.10", "1e5", "-0.0"])
@pytest.mark.parametrize(
    "place", ['"token": {}', '"deployment": {}', '"headers": {{"X": {}}}', '"metadata": "{{\\"m\\": {}}}"']
)
def test_a_number_whose_text_airflow_may_have_changed_is_refused(given: str, place: str) -> None:
    ends = r" must be a string, not a number; write the connection as JSON, and the value with quotes$"
    with pytest.raises(RayConnectionConfigError, match=ends):
        read(f"{{{place.format(given)}}}", host="head")
    assert read(f'{{"read_timeout": {given.strip("-")}1}}', host="head").read_timeout > 0


def test_a_uri_says_the_same_however_airflow_reads_its_query() -> None:
    """Airflow's database class makes numbers, booleans and objects of texts, the class of its SDK none."""
    from airflow.models.connection import Connection as Stored

    query = "token=123456&verify=false&read_timeout=2.5&headers=%7B%22X%22%3A+1%7D&metadata=%7B%22m%22%3A+true%7D"
    cluster = read_connection("ray_x", Stored(conn_id="ray_x", uri=f"ray-jobs://head?{query}"), {})
    assert cluster.headers == {"X": "1", **token("123456")}
    assert (cluster.verify, cluster.read_timeout, cluster.metadata) == (False, 2.5, {"m": "true"})


def test_a_password_that_no_header_can_carry_is_refused() -> None:
    # Airflow's own connection can't hold these: 2.11 fails when it is to encrypt them.
    for login, password in (("me", "\ud800"), ("me\0", "x"), ("\udcff", "x")):
        fields = {"host": "head", "port": None, "schema": None, "login": login, "password": password, "extra": ""}
        connection = SimpleNamespace(conn_type="ray_jobs", **fields)
        with pytest.raises(RayConnectionConfigError, match="password and login must not contain NUL") as caught:
            read_connection("ray_x", connection, {})
        assert caught.value.field == "password"


# The folders from which credentials may come


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("allowed", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text("token-1")
    return tmp_path / "allowed", tmp_path / "elsewhere"


def read_within(folder: Path, extra: dict[str, str]) -> ClusterConnection:
    return read_connection("ray_x", airflow_connection(extra, host="head"), {}, credential_folders=[str(folder)])


@pytest.mark.parametrize("key", ["token_file", "verify", "client_cert"])
def test_credentials_come_from_the_folders_that_the_deployment_lists(folders: tuple[Path, Path], key: str) -> None:
    allowed, elsewhere = folders
    for path in (elsewhere / "token", allowed / ".." / "elsewhere" / "token"):
        with pytest.raises(RayConnectionConfigError, match=r"option \[ray_jobs\] credential_folders") as caught:
            read_within(allowed, {key: str(path)})
        assert caught.value.field == key
    if key != "client_cert":
        read_within(allowed, {key: str(allowed / "token")})
    read({"token_file": str(elsewhere / "token")}, host="head")  # nothing is listed


def test_a_link_counts_by_where_it_leads_whenever_the_token_is_read(folders: tuple[Path, Path]) -> None:
    allowed, elsewhere = folders
    (allowed / "..data").mkdir()  # as Kubernetes projects a token
    (allowed / "..data" / "token").write_text("token-2")
    link = allowed / "link"
    link.symlink_to(allowed / "..data" / "token")
    cluster = read_within(allowed, {"token_file": str(link)})
    assert cluster.request_headers()["Authorization"] == "Bearer token-2"
    link.unlink()
    link.symlink_to(elsewhere / "token")
    with pytest.raises(RayClusterUnreachableError, match="is not in a folder that credentials may come from") as caught:
        cluster.request_headers()
    assert "token-1" not in str(caught.value)
    with pytest.raises(RayConnectionConfigError):
        read_within(allowed, {"token_file": str(link)})

"""The extra of a connection: every form that a value may have, and each way in which it can be wrong."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.cluster.connection import ClusterConnection, read_connection
from airflow_provider_rayjobs.cluster.fields import FIELDS
from airflow_provider_rayjobs.compat import connections
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError, RayConnectionConfigError
from airflow_provider_rayjobs.text.json_levels import MOST_LEVELS
from tests.support.connections import airflow_connection, read, refusal, token

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
        ({"package_folder": "/mnt/x"}, "package_folder", "must begin with s3://, gs://, file://; expected: URL of"),
        ({"package_folder": "https://b/x"}, "package_folder", "must begin with s3://, gs://, file://"),
        ({"package_folder": "s3://key:secret@b/x"}, "package_folder", "must not contain a password; write the id"),
        ({"package_folder": "s3://conn@/x"}, "package_folder", "must have a bucket, as in s3://conn_id@bucket/prefix"),
        ({"package_folder": "file://mnt/x"}, "package_folder", "must have an absolute path, as in file:///mounted"),
        ({"package_folder": "file:///"}, "package_folder", "must have an absolute path"),
        ({"package_folder": "file:///mnt/a b"}, "package_folder", "may contain letters, digits and . _ - / only"),
        ({"package_folder": "s3://b/x?a=b"}, "package_folder", "may contain letters, digits and . _ - / only"),
        ({"package_folder": "s3://b/../c"}, "package_folder", "may contain letters, digits and . _ - / only"),
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

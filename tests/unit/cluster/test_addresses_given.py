"""Addresses as a connection or the environment gives them, and what is none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.connections import read, refusal


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

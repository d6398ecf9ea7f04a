"""Errors of ``requests`` and ``aiohttp``: each becomes one of ours, which names the cause and shows no secret."""

from __future__ import annotations

import contextlib
import socket
import ssl
import traceback
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import requests
import urllib3

from airflow_provider_rayjobs import exceptions as errors
from airflow_provider_rayjobs.client import foreign_errors
from tests.support.clients import cluster_at, failure
from tests.support.forward_proxy import ForwardProxy
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.clients import Client

    Connect = Callable[..., Client]


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose queue of connections is full, so that one more is neither accepted nor refused."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def test_a_connection_is_waited_for_within_the_connect_timeout(full_port: int, connect: Connect) -> None:
    error = failure(connect(f"http://127.0.0.1:{full_port}", connect_timeout=0.1))
    assert isinstance(error, errors.RayClusterUnreachableError)
    assert not error.maybe_sent
    assert "no connection within 0.1 s; check the connection's host, port, and firewalls" in str(error)


def test_a_wrong_host_name_is_named_as_such(connect: Connect) -> None:
    error = failure(connect("http://ray-head.invalid:8265"))
    assert isinstance(error, errors.RayClusterUnreachableError)
    assert not error.maybe_sent
    assert "host name not found; check the connection's host" in str(error)


def test_a_closed_port_is_named_as_such(connect: Connect) -> None:
    error = failure(connect(f"http://127.0.0.1:{free_port()}"))
    assert isinstance(error, errors.RayClusterUnreachableError)
    assert not error.maybe_sent
    assert "connection refused; check the connection's host and port" in str(error)


@pytest.fixture
def refusing_proxy() -> Iterator[str]:
    """The address of a proxy, with a login that it refuses."""
    with ForwardProxy("somebody:other-secret") as proxy:
        yield f"http://somebody:proxy-secret@127.0.0.1:{proxy.port}"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_traceback_shows_the_login_of_a_proxy(
    scheme: str, refusing_proxy: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{scheme}_proxy", refusing_proxy)
    error = failure(connect(f"{scheme}://ray.example:8265"))
    assert isinstance(error, errors.RayClusterUnreachableError)
    shown = "".join(traceback.format_exception(error))
    assert "proxy-secret" not in shown
    assert "407" in shown


# Errors that no server here can be made to cause

CLUSTER = cluster_at("http://ray:8265", connect_timeout=2.0, read_timeout=5.0)


@pytest.mark.parametrize(
    ("error", "kind", "words", "sent"),
    [
        (
            requests.exceptions.SSLError("bad certificate"),
            errors.RayTLSError,
            "the TLS handshake failed (bad certificate)",
            False,
        ),
        (requests.exceptions.ConnectTimeout("x"), errors.RayClusterUnreachableError, "no connection within 2 s", False),
        (requests.exceptions.ReadTimeout("x"), errors.RayClusterUnreachableError, "no answer within 5 s", True),
        (requests.exceptions.ProxyError("x"), errors.RayClusterUnreachableError, "the HTTP proxy of this", False),
        (requests.exceptions.ConnectionError("x"), errors.RayClusterUnreachableError, "the connection was lost", True),
        (urllib3.exceptions.ProtocolError("x"), errors.RayClusterUnreachableError, "the connection was lost", True),
        (
            requests.exceptions.InvalidHeader("x"),
            errors.RayProtocolError,
            "the request can't be sent, or its answer not read",
            None,
        ),
    ],
)
def test_an_error_of_requests_is_one_of_ours(error: Any, kind: type[Exception], words: str, sent: bool | None) -> None:
    found = foreign_errors.translate_requests(CLUSTER, error)
    assert type(found) is kind
    assert str(found).startswith(f"http://ray:8265: {words}")
    assert getattr(found, "maybe_sent", None) is sent


@pytest.mark.parametrize(
    ("error", "kind", "words", "sent"),
    [
        (ssl.SSLError("bad certificate"), errors.RayTLSError, "the TLS handshake failed", False),
        (aiohttp.ConnectionTimeoutError("x"), errors.RayClusterUnreachableError, "no connection within 2 s", False),
        (aiohttp.ServerTimeoutError("x"), errors.RayClusterUnreachableError, "no answer within 5 s", True),
        (TimeoutError("x"), errors.RayClusterUnreachableError, "no answer within 5 s", True),
        (OSError("x"), errors.RayClusterUnreachableError, "the connection was lost", True),
        (aiohttp.ServerDisconnectedError(), errors.RayClusterUnreachableError, "the connection was lost", True),
        (aiohttp.InvalidURL("http://a:hush@"), errors.RayProtocolError, "the request can't be sent: its URL", None),
    ],
)
def test_an_error_of_aiohttp_is_one_of_ours(error: Any, kind: type[Exception], words: str, sent: bool | None) -> None:
    with pytest.raises(errors.RayJobsError) as caught, foreign_errors.translating_aiohttp(CLUSTER):
        raise error
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"http://ray:8265: {words}")
    assert "hush" not in str(caught.value)
    assert getattr(caught.value, "maybe_sent", None) is sent
    # The original is not shown: it may hold a password.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("error", [errors.RayAPIError("ours"), errors.RayJobTimeoutError("ours"), KeyError("a defect")])
def test_what_is_no_error_of_aiohttp_stays_as_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, foreign_errors.translating_aiohttp(CLUSTER):
        raise error
    assert caught.value is error

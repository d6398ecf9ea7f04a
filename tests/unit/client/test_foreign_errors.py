"""Errors of ``requests`` and ``aiohttp``: each becomes one of ours, which names the cause and shows no secret."""

from __future__ import annotations

import contextlib
import socket
import traceback
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs import exceptions as errors
from tests.support.clients import failure
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
    assert "no connection within 0.1 s; check host, port and firewall" in str(error)


def test_a_wrong_host_name_is_named_as_such(connect: Connect) -> None:
    error = failure(connect("http://ray-head.invalid:8265"))
    assert isinstance(error, errors.RayClusterUnreachableError)
    assert not error.maybe_sent
    assert "the host name is not known; check the connection's host" in str(error)


def test_a_closed_port_is_named_as_such(connect: Connect) -> None:
    error = failure(connect(f"http://127.0.0.1:{free_port()}"))
    assert isinstance(error, errors.RayClusterUnreachableError)
    assert not error.maybe_sent
    assert "nothing accepts connections there; check host and port" in str(error)


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

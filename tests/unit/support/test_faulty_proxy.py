"""What a plain client sees of each fault, and what arrives at the upstream."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import faults
from tests.support.faulty_proxy import FaultyProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


class Upstream:
    """Keeps every byte that it gets, per connection, and answers requests of a known length."""

    def __init__(self) -> None:
        self.arrived: list[bytes] = []
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.port = self._sock.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        for sock in (self._sock, *self._connections):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._sock.accept()
            except OSError:
                return
            self._connections.append(connection)
            self.arrived.append(b"")
            thread = threading.Thread(target=self._talk, args=(connection, len(self.arrived) - 1))
            self._threads.append(thread)
            thread.start()

    def _talk(self, connection: socket.socket, number: int) -> None:
        upgraded = False
        try:
            while data := connection.recv(65536):
                self.arrived[number] += data
                if upgraded:
                    connection.sendall(data.upper())
                elif b"Upgrade: websocket" in self.arrived[number]:
                    upgraded = True
                    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
                elif self._whole(self.arrived[number]):
                    connection.sendall(REPLY)
        except OSError:
            pass

    @staticmethod
    def _whole(data: bytes) -> bool:
        head, blank, body = data.partition(b"\r\n\r\n")
        if not blank:
            return False
        if b"chunked" in head:
            return body.endswith(b"0\r\n\r\n")
        _, named, rest = head.partition(b"Content-Length: ")
        return len(body) == (int(rest.split(b"\r\n")[0]) if named else 0)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    upstream = Upstream()
    yield upstream
    upstream.close()


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[FaultyProxy]:
    with FaultyProxy("127.0.0.1", upstream.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultyProxy) -> Iterator[http.client.HTTPConnection]:
    client = http.client.HTTPConnection(proxy.host, proxy.port, timeout=5)
    yield client
    client.close()


def ask(
    client: http.client.HTTPConnection, method: str = "POST", path: str = "/api/jobs/", body: bytes = b"job"
) -> tuple[int, bytes]:
    client.request(method, path, body)
    response = client.getresponse()
    return response.status, response.read()


def read_until_reset(sock: socket.socket) -> bytes:
    """Return what came before the reset; an orderly end is a failure."""
    seen = b""
    while True:
        try:
            data = sock.recv(100)
        except ConnectionResetError:
            return seen
        assert data, "the connection was closed, not reset"
        seen += data


def opened_stream(proxy: FaultyProxy) -> socket.socket:
    sock = socket.create_connection((proxy.host, proxy.port), timeout=5)
    sock.sendall(b"GET /api/jobs/a/logs/tail HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert b"101" in head
    return sock


def test_without_rules_requests_pass_and_the_connection_is_kept(
    proxy: FaultyProxy, client: http.client.HTTPConnection, upstream: Upstream
) -> None:
    assert ask(client) == (200, b"hello")
    kept = client.sock
    assert ask(client, "GET", "/api/version?x=1", b"") == (200, b"hello")
    assert client.sock is kept
    assert [(one.method, one.path, one.fault, one.upstream_status) for one in proxy.requests] == [
        ("POST", "/api/jobs/", "", 200),
        ("GET", "/api/version?x=1", "", 200),
    ]
    assert upstream.arrived[0].endswith(b"\r\n\r\njob")


def test_chunked_body_passes_unchanged(client: http.client.HTTPConnection, upstream: Upstream) -> None:
    client.request("PUT", "/api/packages/gcs/a.zip", iter([b"abc", b"defgh"]), encode_chunked=True)
    assert client.getresponse().read() == b"hello"
    assert upstream.arrived[0].endswith(b"\r\n\r\n3\r\nabc\r\n5\r\ndefgh\r\n0\r\n\r\n")
    assert ask(client) == (200, b"hello")


def test_large_bodies_pass(client: http.client.HTTPConnection, upstream: Upstream) -> None:
    body = bytes(3_000_000)
    assert ask(client, "PUT", "/api/packages/gcs/a.zip", body) == (200, b"hello")
    assert upstream.arrived[0].endswith(body)


def test_refuse(proxy: FaultyProxy, client: http.client.HTTPConnection, upstream: Upstream) -> None:
    proxy.on(faults.refuse(), times=1)
    with pytest.raises(ConnectionError):
        ask(client)
    assert upstream.arrived == []
    client.close()
    assert ask(client) == (200, b"hello")
    assert [one.fault for one in proxy.requests] == ["refuse", ""]


def test_cut_request_before_anything_arrives(
    proxy: FaultyProxy, client: http.client.HTTPConnection, upstream: Upstream
) -> None:
    proxy.on(faults.cut_request_after(0))
    with pytest.raises(ConnectionResetError):
        ask(client)
    assert upstream.arrived == []
    assert not proxy.requests[0].forwarded


def test_cut_request_in_the_middle(proxy: FaultyProxy, client: http.client.HTTPConnection, upstream: Upstream) -> None:
    proxy.on(faults.cut_request_after(20))
    with pytest.raises(ConnectionResetError):
        ask(client)
    proxy.wait_for(lambda _: any(upstream.arrived))
    assert upstream.arrived == [b"POST /api/jobs/ HTTP"]


def test_swallow_response_leaves_the_request_done(
    proxy: FaultyProxy, client: http.client.HTTPConnection, upstream: Upstream
) -> None:
    proxy.on(faults.swallow_response())
    with pytest.raises(ConnectionResetError):
        ask(client)
    assert upstream.arrived[0].endswith(b"job")
    assert proxy.requests[0].upstream_status == 200


@pytest.mark.parametrize("kept", [0, 10])
def test_cut_response_within_its_head(proxy: FaultyProxy, upstream: Upstream, kept: int) -> None:
    proxy.on(faults.cut_response_after(kept))
    with socket.create_connection((proxy.host, proxy.port), timeout=5) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        seen = read_until_reset(sock)
    assert seen == REPLY[:kept]


def test_cut_response_within_its_body(proxy: FaultyProxy, client: http.client.HTTPConnection) -> None:
    proxy.on(faults.cut_response_after(len(REPLY) - 2))
    client.request("GET", "/")
    response = client.getresponse()
    with pytest.raises(ConnectionResetError):
        response.read()


def test_delayed_request_arrives_after_the_client_gave_up(proxy: FaultyProxy, upstream: Upstream) -> None:
    proxy.on(faults.delay_request(0.4))
    client = http.client.HTTPConnection(proxy.host, proxy.port, timeout=0.1)
    with pytest.raises(TimeoutError):
        ask(client)
    client.close()
    assert upstream.arrived == []
    proxy.wait_for(lambda log: log[0].done)
    assert upstream.arrived[0].endswith(b"job")


def test_delayed_response(proxy: FaultyProxy, client: http.client.HTTPConnection, upstream: Upstream) -> None:
    proxy.on(faults.delay_response(0.2))
    begin = time.monotonic()
    client.request("POST", "/api/jobs/", b"job")
    proxy.wait_for(lambda log: log and log[0].upstream_status == 200)
    assert time.monotonic() - begin < 0.2
    assert client.getresponse().read() == b"hello"
    assert time.monotonic() - begin >= 0.2


def test_hang(proxy: FaultyProxy, upstream: Upstream) -> None:
    proxy.on(faults.hang())
    client = http.client.HTTPConnection(proxy.host, proxy.port, timeout=0.2)
    with pytest.raises(TimeoutError):
        ask(client)
    assert not proxy.requests[0].done
    client.close()
    proxy.wait_for(lambda log: log[0].done)
    assert upstream.arrived == []


def test_answer_in_place_of_the_upstream(
    proxy: FaultyProxy, client: http.client.HTTPConnection, upstream: Upstream
) -> None:
    proxy.on(faults.answer(503, "<p>later</p>", headers=(("Retry-After", "2"),)), times=1)
    client.request("POST", "/api/jobs/", b"job")
    response = client.getresponse()
    assert (response.status, response.read()) == (503, b"<p>later</p>")
    assert (response.headers["Retry-After"], response.headers["Content-Type"]) == ("2", "text/html")
    assert upstream.arrived == []
    assert ask(client) == (200, b"hello")


def test_forward_then_answer(proxy: FaultyProxy, client: http.client.HTTPConnection, upstream: Upstream) -> None:
    proxy.on(faults.forward_then_answer(502))
    assert ask(client)[0] == 502
    assert upstream.arrived[0].endswith(b"job")
    assert proxy.requests[0].upstream_status == 200


def test_stream_passes_both_ways_and_its_end_too(proxy: FaultyProxy) -> None:
    with opened_stream(proxy) as sock:
        sock.sendall(b"abc")
        assert sock.recv(100) == b"ABC"
        assert not proxy.requests[0].done
    proxy.wait_for(lambda log: log[0].done)


def test_cut_stream(proxy: FaultyProxy) -> None:
    rule = proxy.on(faults.cut_stream_after(5), path=".*/tail", times=1)
    with opened_stream(proxy) as sock:
        sock.sendall(b"abcdefgh")
        seen = read_until_reset(sock)
    assert seen == b"ABCDE"
    with opened_stream(proxy) as sock:
        sock.sendall(b"abcdefgh")
        assert sock.recv(100) == b"ABCDEFGH"
    assert rule.hits == 1


def test_stalled_stream(proxy: FaultyProxy) -> None:
    proxy.on(faults.stall_stream_after(2))
    with opened_stream(proxy) as sock:
        sock.sendall(b"abcd")
        assert sock.recv(100) == b"AB"
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(100)
    proxy.wait_for(lambda log: log[0].done)


def test_down_resets_what_is_open_and_refuses_what_is_new(
    proxy: FaultyProxy, client: http.client.HTTPConnection
) -> None:
    assert ask(client) == (200, b"hello")
    with opened_stream(proxy) as sock:
        proxy.down()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    with pytest.raises(ConnectionResetError):
        ask(client)
    client.close()
    with pytest.raises(ConnectionRefusedError):
        ask(client)
    client.close()
    proxy.up()
    assert ask(client) == (200, b"hello")


def test_upstream_gone_is_a_reset_not_an_end(
    proxy: FaultyProxy, client: http.client.HTTPConnection, upstream: Upstream
) -> None:
    upstream.close()
    with pytest.raises(ConnectionResetError):
        ask(client)


def test_rules_choose_by_method_path_and_occurrence(proxy: FaultyProxy, client: http.client.HTTPConnection) -> None:
    proxy.rules = [
        faults.Rule(faults.answer(429), method="POST", first=2, times=2),
        faults.Rule(faults.answer(504), path="/api/jobs/a"),
    ]
    assert [ask(client)[0] for _ in range(4)] == [200, 429, 429, 200]
    assert ask(client, "GET", "/api/jobs/a")[0] == 504
    assert ask(client, "GET", "/api/jobs/ab")[0] == 200
    assert [rule.hits for rule in proxy.rules] == [2, 1]
    proxy.clear()
    assert ask(client, "GET", "/api/jobs/a")[0] == 200

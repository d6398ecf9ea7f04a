"""Both senders: what they repeat, how long they wait, what they send, and what they say when it fails."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import io
import json
import logging
import re
import socket
import threading
import time
import tracemalloc
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs import exceptions as errors
from airflow_provider_rayjobs.client import (
    aiohttp_transport,
    exchange,
    listing,
    log_files,
    requests_transport,
    retries,
    turns,
    verbs,
)
from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
from airflow_provider_rayjobs.client.exchange import Request
from airflow_provider_rayjobs.client.package_store import put_package
from airflow_provider_rayjobs.client.submission import Submission
from airflow_provider_rayjobs.cluster.authentication import RotatingToken
from tests.support import answers
from tests.support.clients import AiohttpClient, FakeTime, RequestsClient, cluster_at, failure, until
from tests.support.hostile_head import HostileHead
from tests.support.scripted_server import ScriptedRay, Tail

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.support.answers import Answer
    from tests.support.clients import Client

    Connect = Callable[..., Client]

TOKEN = "tok-9f8e7d6c"
CREDENTIALS = {
    "headers": {"Authorization": f"Bearer {TOKEN}", "X-Team": "team-secret"},
    "cookies": {"session": "cookie-secret", "b": "second-cookie"},
}
SECRETS = (TOKEN, "team-secret", "cookie-secret", "second-cookie")


# What is repeated


@pytest.mark.parametrize(
    "answer",
    [
        answers.drop(),
        answers.default().but(cut_after=3),
        answers.too_many(),
        *map(answers.bad_gateway, (502, 503, 504)),
        answers.no_agent(),
    ],
    ids=["reset", "cut", "429", "502", "503", "504", "no agent"],
)
@pytest.mark.parametrize("verb", [verbs.get_job_info, verbs.stop_job])
def test_a_read_or_stop_rides_out_lost_contact(
    verb: Callable[[str], exchange.Flow[Any]], answer: Answer, scripted_ray: ScriptedRay, connect: Connect
) -> None:
    scripted_ray.add_job("a")
    scripted_ray.script(".*", ".*", answer, answer)
    assert connect(scripted_ray).run(verb("a")) is not None
    assert len(scripted_ray.received) == 3


def test_a_delete_whose_answer_was_lost_finds_the_job_gone(scripted_ray: ScriptedRay, connect: Connect) -> None:
    scripted_ray.add_job("a", "SUCCEEDED")
    scripted_ray.script("DELETE", ".*", answers.lost())
    with pytest.raises(errors.RayJobNotFoundError):
        connect(scripted_ray).run(verbs.delete_job("a"))
    assert scripted_ray.jobs == {}


def test_attempts_and_their_waits_are_bounded(scripted_ray: ScriptedRay, connect: Connect) -> None:
    scripted_ray.script(".*", ".*", answers.bad_gateway(503), forever=True)
    client = connect(scripted_ray)
    assert isinstance(failure(client), errors.RayClusterUnreachableError)
    assert len(scripted_ray.received) == retries.ATTEMPTS
    assert client.transport.counts.requests == retries.ATTEMPTS
    assert len(client.time.slept) == retries.ATTEMPTS - 1
    assert 3.0 < sum(client.time.slept) < 6.0
    assert all(0 < wait <= retries.LONGEST_WAIT + retries.FIRST_WAIT for wait in client.time.slept)


def test_what_may_not_be_repeated_is_sent_once(scripted_ray: ScriptedRay, connect: Connect) -> None:
    def flow() -> exchange.Flow[int]:
        return (yield Request("POST", "/x", repeatable=False)).status

    scripted_ray.script(".*", ".*", answers.bad_gateway(502), answers.drop(), forever=True)
    assert connect(scripted_ray).run(flow()) == 502
    assert isinstance(failure(connect(scripted_ray), flow()), errors.RayClusterUnreachableError)
    assert len(scripted_ray.received) == 2


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (answers.bad_request("TypeError: odd"), errors.RayRequestRefusedError, "TypeError: odd"),
        (answers.unauthorized(), errors.RayAuthError, "connection 'ray_test' has none"),
        (answers.not_found("a"), errors.RayJobNotFoundError, "Job a does not exist"),
        (answers.internal_error(), errors.RayAPIError, "Failed to look up actor"),
        (answers.html(), errors.RayProtocolError, "a web page; check that the connection's host, port"),
        (answers.truncated_json(), errors.RayProtocolError, "truncated JSON"),
    ],
)
def test_what_the_cluster_answers_for_good_is_not_repeated(
    answer: Answer, kind: type[Exception], words: str, scripted_ray: ScriptedRay, connect: Connect
) -> None:
    scripted_ray.script(".*", ".*", answer, forever=True)
    error = failure(connect(scripted_ray))
    assert type(error) is kind
    assert words in str(error)
    assert len(scripted_ray.received) == 1


def test_a_redirect_to_a_login_page_is_not_followed(scripted_ray: ScriptedRay, connect: Connect) -> None:
    with ScriptedRay() as login:
        moved = answers.text(302, "").but(headers=(("Location", f"{login.url}/login"),))
        scripted_ray.script("GET", "/api/version", moved)
        error = failure(connect(scripted_ray, **CREDENTIALS))
        assert login.received == []
        assert f"redirect to {login.url}/login" in str(error)


# No answer


def test_a_late_answer_is_waited_for_within_the_read_timeout(scripted_ray: ScriptedRay, connect: Connect) -> None:
    scripted_ray.script(".*", ".*", answers.default(delay=5), forever=True)
    error = failure(connect(scripted_ray, read_timeout=0.1))
    assert isinstance(error, errors.RayClusterUnreachableError)
    assert error.maybe_sent
    assert "no answer within 0.1 s" in str(error)
    assert len(scripted_ray.received) == retries.ATTEMPTS


def test_a_lost_answer_may_have_been_sent(scripted_ray: ScriptedRay, connect: Connect) -> None:
    scripted_ray.script(".*", ".*", answers.drop(), forever=True)
    error = failure(connect(scripted_ray))
    assert isinstance(error, errors.RayClusterUnreachableError)
    assert error.maybe_sent
    assert "the connection was lost" in str(error)


@pytest.fixture
def no_http() -> Iterator[str]:
    """The address of something that speaks another protocol."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client:
                        client.recv(65536)
                        client.sendall(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_another_protocol_behind_the_port_never_makes_the_token_show(no_http: str, connect: Connect) -> None:
    message = str(failure(connect(no_http, **CREDENTIALS)))
    assert not [secret for secret in SECRETS if secret in message]


# What is sent, and what is never shown


async def read_stream(client: AiohttpClient, path: str = "/api/jobs/a/logs/tail") -> list[str]:
    async with client.transport.stream(path) as messages:
        return [text async for text in messages]


def ask_everything(client: Client) -> None:
    submission = Submission("true", "b")
    client.run(verbs.submit_job(submission, lambda job: True, patience=0))
    for verb in (verbs.get_job_info, log_files.get_job_logs, verbs.stop_job, verbs.delete_job):
        client.run(verb("a"))
    client.run(listing.list_jobs())
    client.run(verbs.get_version())


def test_headers_cookies_and_token_go_with_every_request(scripted_ray: ScriptedRay, connect: Connect) -> None:
    scripted_ray.add_job("a", "SUCCEEDED")
    scripted_ray.token = TOKEN
    client = connect(scripted_ray, **CREDENTIALS)
    if isinstance(client, AiohttpClient):
        client.call(read_stream(client))
    ask_everything(client)
    for one in scripted_ray.received:
        assert one.headers["authorization"] == f"Bearer {TOKEN}"
        assert one.headers["x-team"] == "team-secret"
        pairs = dict(pair.split("=") for pair in one.headers["cookie"].split("; "))
        assert pairs == CREDENTIALS["cookies"]


@pytest.mark.parametrize("headers", [CREDENTIALS["headers"], {}], ids=["token", "no token"])
def test_netrc_never_replaces_nor_adds_credentials(
    headers: dict[str, str],
    scripted_ray: ScriptedRay,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password netrc-secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    scripted_ray.add_job("a", "SUCCEEDED")
    client = connect(scripted_ray, headers=headers)
    if isinstance(client, AiohttpClient):
        client.call(read_stream(client))
    ask_everything(client)
    assert {one.headers.get("authorization") for one in scripted_ray.received} == {headers.get("Authorization")}
    monkeypatch.undo()


def test_the_environments_proxy_is_used_unless_it_is_excepted(
    scripted_ray: ScriptedRay, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", scripted_ray.url)
    scripted_ray.script("GET", "http://ray.example:8265/api/version", answers.as_json({"ray_version": "x"}))
    assert connect("http://ray.example:8265").run(verbs.get_version()).ray_version == "x"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert connect(scripted_ray).run(verbs.get_version()).ray_version == "2.60.0"


@pytest.mark.parametrize("status", [400, 401, 413, 500, 503])
def test_no_secret_of_the_request_shows_in_a_message_or_a_log(
    status: int, scripted_ray: ScriptedRay, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    echo = answers.text(status, f"ValueError: {TOKEN} {CREDENTIALS} API_KEY=env-secret")
    scripted_ray.script("POST", ".*", echo, forever=True)
    client = connect(scripted_ray, **CREDENTIALS)
    runtime_env = {"env_vars": {"API_KEY": "env-secret"}}
    submission = Submission("true", "a", runtime_env=runtime_env)
    flow = verbs.submit_job(submission, lambda job: True, patience=1, clock=client.time.clock)
    with caplog.at_level(logging.DEBUG):
        shown = str(failure(client, flow)) + repr(client.transport.cluster)
    assert not [secret for secret in (*SECRETS, "env-secret") if secret in shown + caplog.text]


def test_basic_credentials_are_secret_in_both_their_forms(scripted_ray: ScriptedRay, connect: Connect) -> None:
    basic = base64.b64encode(b"user:word").decode()
    scripted_ray.script(".*", ".*", answers.text(500, f"no: {basic} Basic {basic}"))
    message = str(failure(connect(scripted_ray, headers={"Authorization": f"Basic {basic}"})))
    assert basic not in message


def test_one_tcp_connection_serves_many_requests(scripted_ray: ScriptedRay, connect: Connect) -> None:
    client = connect(scripted_ray)
    for _ in range(5):
        client.run(verbs.get_version())
    assert len(scripted_ray.received) == 5
    assert len({one.peer for one in scripted_ray.received}) == 1


def test_a_request_in_a_signal_handler_is_sent_once_and_bounded(scripted_ray: ScriptedRay) -> None:
    scripted_ray.script(".*", ".*", answers.default(delay=5), forever=True)
    client = RequestsClient(cluster_at(scripted_ray, read_timeout=60), FakeTime())
    with pytest.raises(errors.RayClusterUnreachableError):
        client.transport.send_once(Request("POST", "/api/jobs/a/stop"), timeout=0.1)
    client.close()
    assert len(scripted_ray.received) == 1


# Streams


def test_a_stream_that_is_not_opened_or_broken_is_lost_contact(
    scripted_ray: ScriptedRay, connect_async: Callable[..., AiohttpClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_ray.add_job("a")
    scripted_ray.append_log("a", ["x" * 100])
    client = connect_async(scripted_ray, **CREDENTIALS)
    scripted_ray.script("GET", ".*/tail", answers.bad_gateway(502))
    scripted_ray.tails(Tail(after=1, code=1009), Tail(after=1, code=1011), Tail(after=1, abort=True))
    for words in ("refused with HTTP 502", "code 1009", "code 1011", "code 1006"):
        with pytest.raises(errors.RayClusterUnreachableError, match=words) as caught:
            client.call(read_stream(client))
        assert str(caught.value).startswith(scripted_ray.url + ": ")
        assert TOKEN not in str(caught.value)
    scripted_ray.tails(Tail(after=1, code=1000), Tail(after=1, code=1001))
    assert [client.call(read_stream(client)) for _ in range(2)] == [["x" * 100]] * 2
    monkeypatch.setattr(aiohttp_transport, "MAX_WEBSOCKET_MESSAGE", 50)
    with pytest.raises(errors.RayClusterUnreachableError, match="1009"):
        client.call(read_stream(client))


def test_a_long_answer_that_is_no_success_or_breaks_off_is_its_error(
    scripted_ray: ScriptedRay, connect: Connect
) -> None:
    def read() -> exchange.Flow[None]:
        return log_files.read_json_log("a", lambda: lambda text: None)

    client = connect(scripted_ray)
    with pytest.raises(errors.RayJobNotFoundError, match="Job a does not exist"):
        client.run(read())
    cut = answers.as_json({"logs": "x" * 9999}).but(cut_after=200)
    scripted_ray.script("GET", ".*/logs", answers.html(302), cut, forever=True)
    with pytest.raises(errors.RayProtocolError, match="a redirect to nowhere"):
        client.run(read())
    with pytest.raises(errors.RayClusterUnreachableError, match="the connection was lost"):
        client.run(read())


@pytest.fixture
def hostile() -> Iterator[HostileHead]:
    with HostileHead() as head:
        yield head


def test_a_stream_that_is_left_waits_for_no_farewell_of_a_head_that_sends_on(
    hostile: HostileHead, connect_async: Callable[..., AiohttpClient]
) -> None:
    client = connect_async(hostile.url)
    received: list[str] = []

    async def read() -> None:
        async with client.transport.stream(verbs.job_path("log of short messages") + "/logs/tail") as messages:
            async for text in messages:
                received.append(text)
                await asyncio.sleep(0)

    async def main() -> None:
        reading = asyncio.create_task(read())
        await asyncio.wait_for(until(lambda: received), 30)
        reading.cancel()
        await asyncio.wait({reading}, timeout=5)
        assert reading.cancelled()

    client.call(main())


def test_pings_without_end_leave_the_loop_to_others(
    hostile: HostileHead, connect_async: Callable[..., AiohttpClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: of each turn of the loop, they get a run's worth by a clock that moves when it is read."""
    from aiohttp import ClientWebSocketResponse

    now, turn, answered = 1000.0, 0, Counter[int]()
    pong = ClientWebSocketResponse.pong

    def clock() -> float:
        nonlocal now
        now += turns.LONGEST_RUN / 8
        return now

    async def counted(self: ClientWebSocketResponse, message: bytes = b"") -> None:
        answered[turn] += 1
        await pong(self, message)

    async def read_on(messages: AsyncIterator[str]) -> None:
        async for _ in messages:
            pass

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def main() -> None:
        client = connect_async(hostile.url)
        tasks = [asyncio.create_task(count_turns())]
        async with client.transport.stream(verbs.job_path("log of pings") + "/logs/tail") as messages:
            tasks.append(asyncio.create_task(read_on(messages)))
            await asyncio.wait_for(until(lambda: answered.total() > 2000), 30)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await client.transport.close()

    monkeypatch.setattr(turns, "time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr(ClientWebSocketResponse, "pong", counted)
    asyncio.run(main())
    assert max(answered.values()) <= 8


# A token that does not come


def test_a_token_that_does_not_come_holds_up_nothing_else(
    scripted_ray: ScriptedRay, connect_async: Callable[..., AiohttpClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    asked, go_on = threading.Event(), threading.Event()

    def hanging() -> str:
        asked.set()
        go_on.wait(30)
        return TOKEN

    slow = connect_async(scripted_ray, token=RotatingToken(hanging, "slow"), read_timeout=0.3)

    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))  # which looks names up, too
        asking = [asyncio.create_task(slow.transport.run(verbs.get_version())) for _ in range(3)]
        quick = AiohttpTransport(cluster_at(scripted_ray, token=RotatingToken(lambda: TOKEN, "quick")))
        try:
            await asyncio.wait_for(until(asked.is_set), 30)
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "done"), 5) == "done"
            assert (await asyncio.wait_for(quick.run(verbs.get_version()), 10)).ray_version == "2.60.0"
            errors_of = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), 20)
        finally:
            go_on.set()
            await quick.close()
        for error in errors_of:
            assert isinstance(error, errors.RayClusterUnreachableError)
            assert not error.maybe_sent
            assert (
                str(error)
                == f"{scripted_ray.url}: got no token within 0.3 s; check the connection's token_file or token_callable"
            )

    slow.call(main())
    assert len(scripted_ray.received) == 1  # of the other


# Bounds


def zipped(size: int) -> answers.Answer:
    return answers.Answer(200, gzip.compress(bytes(size)), "application/json", headers=(("Content-Encoding", "gzip"),))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (zipped(64_000_000), "it has more than 4,194,304 bytes"),
        (answers.text(200, "x" * 5_000_000), "it has more than 4,194,304 bytes"),
        (answers.text(500, "x" * 5_000_000), "it has more than 4,194,304 bytes"),
        (answers.text(200, "{}").but(headers=(("Content-Encoding", "br"),)), "the encoding 'br'"),
        (answers.text(200, "{}").but(headers=(("Content-Encoding", "gzip"),)), "can't be decompressed"),
        (answers.text(200, "[" * 20_000), "nested too deeply"),
        (answers.text(200, "[" + "0," * 100_000 + "0]"), "more than 60,000 parts"),
        (answers.text(200, "1" * 5000), "4300 digits"),
    ],
    ids=["bomb", "large", "large error", "brotli", "no gzip", "deep", "parts", "digits"],
)
def test_an_answer_that_has_no_bounds_is_an_error_at_once(
    answer: Answer, words: str, scripted_ray: ScriptedRay, connect: Connect
) -> None:
    scripted_ray.script(".*", ".*", answer, forever=True)
    client = connect(scripted_ray)
    tracemalloc.start()
    try:
        error = failure(client)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(error, errors.RayProtocolError)
    assert words in str(error)
    assert len(scripted_ray.received) == 1
    assert peak < 40_000_000


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate"])
def test_a_compressed_answer_is_read(encoding: str, scripted_ray: ScriptedRay, connect: Connect) -> None:
    body = b'{"ray_version": "' + b"x" * 150 + b'"}'
    packed = {
        "gzip": gzip.compress(body),
        "deflate": zlib.compress(body),
        "raw deflate": zlib.compress(body, wbits=-zlib.MAX_WBITS),
    }[encoding]
    headers = (("Content-Encoding", encoding.removeprefix("raw ")),)
    scripted_ray.script(".*", ".*", answers.Answer(200, packed, "application/json", headers=headers))
    assert connect(scripted_ray).run(verbs.get_version()).ray_version == "x" * 150
    assert scripted_ray.received[0].headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("left", [12, 60, -9, -8, -1])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw deflate"])
def test_a_compressed_answer_that_is_cut_is_an_error(
    encoding: str, left: int, scripted_ray: ScriptedRay, connect: Connect
) -> None:
    """Even where all of its text is there: its end may be missing."""
    job = {
        "type": "SUBMISSION",
        "submission_id": "a",
        "status": "RUNNING",
        "message": "".join(map(chr, range(33, 126))),
    }
    bodies = {"jobs/a": job, "jobs/a/logs": {"logs": job["message"]}, "jobs/": [job]}
    headers = (("Content-Encoding", encoding.removeprefix("raw ")),)
    for path, body in bodies.items():
        pack = zlib.compressobj(wbits={"gzip": 31, "deflate": 15, "raw deflate": -15}[encoding])
        data = pack.compress(json.dumps(body).encode()) + pack.flush()
        scripted_ray.script("GET", f"/api/{path}", answers.Answer(200, data[:left], headers=headers))
    client = connect(scripted_ray)
    for flow in (
        verbs.get_job_info("a"),
        log_files.read_json_log("a", lambda: lambda text: None),
        listing.list_jobs(),
    ):
        error = failure(client, flow)
        assert isinstance(error, errors.RayProtocolError)
        assert "it is incomplete" in str(error)
    assert len(scripted_ray.received) == 3


def listening(stack: contextlib.ExitStack, answer: Callable[[socket.socket], None]) -> str:
    """Start a server that answers each connection in a thread, until the stack is closed; return its address."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=[server.accept()[0]], daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    stack.callback(server.shutdown, socket.SHUT_RDWR)
    return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def dribbler() -> Iterator[Callable[[bytes], str]]:
    """Starts servers that send a text's last byte over and over, a few times in a second; gives their addresses."""
    stop = threading.Event()
    with contextlib.ExitStack() as stack:

        def start(text: bytes) -> str:
            def dribble(client: socket.socket) -> None:
                with client, contextlib.suppress(OSError):
                    client.recv(65536)
                    client.sendall(text)
                    while not stop.wait(0.05):
                        client.sendall(text[-1:])

            return listening(stack, dribble)

        yield start
        stop.set()


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 200 OK\r\nX-Header: a",
        b"HTTP/1.1 200 OK\r\n\r\n ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n ",
    ],
    ids=["headers", "no length", "length", "chunked"],
)
def test_an_answer_that_never_ends_is_cut_off_in_time(
    text: bytes, dribbler: Callable[[bytes], str], connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    client = connect(dribbler(text), connect_timeout=0.1, read_timeout=0.3)
    began = time.monotonic()
    error = failure(client)
    assert time.monotonic() - began < 5
    assert isinstance(error, errors.RayClusterUnreachableError)
    assert "no complete answer within 0.4 s" in str(error)


def test_a_stream_whose_opening_never_ends_is_given_up(
    dribbler: Callable[[bytes], str], connect_async: Callable[..., AiohttpClient]
) -> None:
    client = connect_async(dribbler(b"HTTP/1.1 101 Yes\r\nX-Header: a"), connect_timeout=0.1, read_timeout=0.3)
    with pytest.raises(errors.RayClusterUnreachableError, match=r"no complete answer within 0\.4 s"):
        client.call(read_stream(client))


# Uploads


class Package(io.BytesIO):
    """A body of a given size."""

    def __len__(self) -> int:
        return len(self.getbuffer())


SIZE = 16 * 1024 * 1024


@pytest.fixture
def slow_reader() -> Iterator[Callable[[int], str]]:
    """Starts servers that take a request's first bytes slowly, some 5 MB a second; gives their addresses."""
    with contextlib.ExitStack() as stack:

        def start(slow: int) -> str:
            def take(client: socket.socket) -> None:
                with client, contextlib.suppress(OSError), client.makefile("rb") as file:
                    while (line := file.readline()).strip():
                        if match := re.match(rb"content-length: (\d+)", line.lower()):
                            left = int(match[1])
                    taken = 0
                    while taken < left and (data := file.read(min(256 * 1024, left - taken))):
                        taken += len(data)
                        if taken < slow:
                            time.sleep(0.05)
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

            return listening(stack, take)

        yield start


def upload(address: str) -> bool:
    client = RequestsClient(cluster_at(address, connect_timeout=0.1, read_timeout=0.9), FakeTime())
    try:
        return client.run(put_package("p.zip", lambda: Package(bytes(SIZE))))
    finally:
        client.close()


def test_an_upload_is_granted_time_for_its_size(
    slow_reader: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests_transport, "SLOWEST_FORWARDING", 1_000_000_000)
    monkeypatch.setattr(retries, "ATTEMPTS", 3)  # a busy machine
    assert upload(slow_reader(8 * 1024 * 1024))


def test_an_upload_that_is_slower_than_granted_is_ended(
    slow_reader: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests_transport, "SLOWEST_UPLOAD", 8 * SIZE)
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    with pytest.raises(errors.RayClusterUnreachableError, match=r"no complete answer within 1\.125 s"):
        upload(slow_reader(SIZE))


def test_an_answer_to_an_upload_is_waited_for_no_longer_than_a_proxy_may_take_to_hand_it_on(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests_transport, "SLOWEST_FORWARDING", 10 * SIZE)
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    scripted_ray.script("PUT", ".*", answers.default(delay=8))
    with pytest.raises(errors.RayClusterUnreachableError, match="no answer within"):
        upload(scripted_ray.url)

"""Both senders: what they repeat, how long they wait, what they send, and what they say when it fails."""

from __future__ import annotations

import base64
import contextlib
import logging
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs import exceptions as errors
from airflow_provider_rayjobs import protocol, transport
from airflow_provider_rayjobs.protocol import Request
from tests.support import answers
from tests.support.clients import AiohttpClient, FakeTime, RequestsClient, cluster_at
from tests.support.ports import free_port
from tests.support.scripted_server import ScriptedRay, Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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


def failure(client: Client, flow: protocol.Flow[Any] | None = None) -> errors.RayJobsError:
    """Run a flow that fails; its message is one line that begins with the address."""
    with pytest.raises(errors.RayJobsError) as caught:
        client.run(protocol.get_version() if flow is None else flow)
    message = str(caught.value)
    assert message.startswith(client.transport.cluster.address + ": ")
    assert "\n" not in message
    return caught.value


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
@pytest.mark.parametrize("verb", [protocol.get_job_info, protocol.stop_job])
def test_a_read_or_stop_rides_out_lost_contact(
    verb: Callable[[str], protocol.Flow[Any]], answer: Answer, scripted_ray: ScriptedRay, connect: Connect
) -> None:
    scripted_ray.add_job("a")
    scripted_ray.script(".*", ".*", answer, answer)
    assert connect(scripted_ray).run(verb("a")) is not None
    assert len(scripted_ray.received) == 3


def test_a_delete_whose_answer_was_lost_finds_the_job_gone(scripted_ray: ScriptedRay, connect: Connect) -> None:
    scripted_ray.add_job("a", "SUCCEEDED")
    scripted_ray.script("DELETE", ".*", answers.lost())
    with pytest.raises(errors.RayJobNotFoundError):
        connect(scripted_ray).run(protocol.delete_job("a"))
    assert scripted_ray.jobs == {}


def test_attempts_and_their_waits_are_bounded(scripted_ray: ScriptedRay, connect: Connect) -> None:
    scripted_ray.script(".*", ".*", answers.bad_gateway(503), forever=True)
    client = connect(scripted_ray)
    assert isinstance(failure(client), errors.RayClusterUnreachableError)
    assert len(scripted_ray.received) == transport.ATTEMPTS
    assert len(client.time.slept) == transport.ATTEMPTS - 1
    assert 3.0 < sum(client.time.slept) < 6.0
    assert all(0 < wait <= transport.LONGEST_WAIT + transport.FIRST_WAIT for wait in client.time.slept)


def test_what_may_not_be_repeated_is_sent_once(scripted_ray: ScriptedRay, connect: Connect) -> None:
    def flow() -> protocol.Flow[int]:
        return (yield Request("POST", "/x", repeatable=False)).status

    scripted_ray.script(".*", ".*", answers.bad_gateway(502), answers.drop(), forever=True)
    assert connect(scripted_ray).run(flow()) == 502
    assert isinstance(failure(connect(scripted_ray), flow()), errors.RayClusterUnreachableError)
    assert len(scripted_ray.received) == 2


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (answers.bad_request("TypeError: odd"), errors.RayRequestRefusedError, "TypeError: odd"),
        (answers.unauthorized(), errors.RayAuthError, "connection 'ray_test' has no token"),
        (answers.not_found("a"), errors.RayJobNotFoundError, "Job a does not exist"),
        (answers.internal_error(), errors.RayAPIError, "Failed to look up actor"),
        (answers.html(), errors.RayProtocolError, "a web page; check that host, port"),
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
    assert len(scripted_ray.received) == transport.ATTEMPTS


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


def test_a_lost_answer_may_have_been_sent(scripted_ray: ScriptedRay, connect: Connect) -> None:
    scripted_ray.script(".*", ".*", answers.drop(), forever=True)
    error = failure(connect(scripted_ray))
    assert isinstance(error, errors.RayClusterUnreachableError)
    assert error.maybe_sent
    assert "the connection broke" in str(error)


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


async def read_body(client: AiohttpClient, path: str = "/api/jobs/a/logs") -> bytes:
    async with client.transport.body(path) as chunks:
        return b"".join([chunk async for chunk in chunks])


def ask_everything(client: Client) -> None:
    submission = protocol.Submission("true", "b")
    client.run(protocol.submit_job(submission, lambda job: True, patience=0))
    for verb in (protocol.get_job_info, protocol.get_job_logs, protocol.stop_job, protocol.delete_job):
        client.run(verb("a"))
    client.run(protocol.list_jobs())
    client.run(protocol.get_version())


def test_headers_cookies_and_token_go_with_every_request(scripted_ray: ScriptedRay, connect: Connect) -> None:
    scripted_ray.add_job("a", "SUCCEEDED")
    scripted_ray.token = TOKEN
    client = connect(scripted_ray, **CREDENTIALS)
    if isinstance(client, AiohttpClient):
        client.call(read_stream(client))
        client.call(read_body(client))
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
        client.call(read_body(client))
    ask_everything(client)
    assert {one.headers.get("authorization") for one in scripted_ray.received} == {headers.get("Authorization")}
    monkeypatch.undo()


def test_the_environments_proxy_is_used_unless_it_is_excepted(
    scripted_ray: ScriptedRay, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", scripted_ray.url)
    scripted_ray.script("GET", "http://ray.example:8265/api/version", answers.as_json({"ray_version": "x"}))
    assert connect("http://ray.example:8265").run(protocol.get_version()).ray_version == "x"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert connect(scripted_ray).run(protocol.get_version()).ray_version == "2.60.0"


@pytest.mark.parametrize("status", [400, 401, 413, 500, 503])
def test_no_secret_of_the_request_shows_in_a_message_or_a_log(
    status: int, scripted_ray: ScriptedRay, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    echo = answers.text(status, f"ValueError: {TOKEN} {CREDENTIALS} API_KEY=env-secret")
    scripted_ray.script("POST", ".*", echo, forever=True)
    client = connect(scripted_ray, **CREDENTIALS)
    runtime_env = {"env_vars": {"API_KEY": "env-secret"}}
    submission = protocol.Submission("true", "a", runtime_env=runtime_env)
    flow = protocol.submit_job(submission, lambda job: True, patience=1, clock=client.time.clock)
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
        client.run(protocol.get_version())
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
    monkeypatch.setattr(transport, "MAX_WEBSOCKET_MESSAGE", 50)
    with pytest.raises(errors.RayClusterUnreachableError, match="1009"):
        client.call(read_stream(client))


def test_a_body_that_is_no_success_is_its_error(
    scripted_ray: ScriptedRay, connect_async: Callable[..., AiohttpClient]
) -> None:
    client = connect_async(scripted_ray)
    with pytest.raises(errors.RayJobNotFoundError, match="Job a does not exist"):
        client.call(read_body(client))
    scripted_ray.script("GET", ".*/logs", answers.html(302), answers.as_json({"logs": "x" * 9999}).but(cut_after=200))
    with pytest.raises(errors.RayProtocolError, match="a redirect to nowhere"):
        client.call(read_body(client))
    with pytest.raises(errors.RayClusterUnreachableError, match="the connection broke"):
        client.call(read_body(client))

"""What both senders carry to be let in, token by token, and what of it Airflow masks."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import Connection, redact

from airflow_provider_rayjobs import exceptions
from airflow_provider_rayjobs.client import exchange, verbs
from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
from airflow_provider_rayjobs.cluster import authentication
from airflow_provider_rayjobs.cluster.connection import ClusterConnection, read_connection
from airflow_provider_rayjobs.compat import masking
from airflow_provider_rayjobs.hooks import RayJobAsyncHook
from tests.support import answers
from tests.support.clients import FakeTime, RequestsClient, until
from tests.support.reverse_proxy import ReverseProxy
from tests.support.scripted_server import ScriptedRay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.clients import Client

    Connect = Callable[..., Client]

VERSION = "2.60.0"


def read(extra: dict[str, Any] | None = None, allowed: Any = (), **fields: Any) -> ClusterConnection:
    given: Any = Connection(conn_id="ray_x", conn_type="ray_jobs", extra=json.dumps(extra or {}), **fields)
    return read_connection("ray_x", given, {}, allowed)


def version(client: Client) -> str:
    return client.run(verbs.get_version()).ray_version


@pytest.fixture
def connect_to(connect: Connect) -> Callable[..., Client]:
    """Makes clients of clusters that connections name."""

    def make(cluster: ClusterConnection) -> Client:
        fields = ("conn_id", "headers", "cookies", "token", "verify", "client_cert")
        return connect(cluster.address, **{name: getattr(cluster, name) for name in fields})

    return make


@pytest.fixture
def guarded() -> Iterator[ScriptedRay]:
    """A head in token mode."""
    with ScriptedRay(token="token-of-ray-1") as server:
        yield server


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that gives tokens."""
    module: Any = ModuleType("company_tokens")
    module.threads = []
    module.next = lambda: "token-of-ray-1"

    def current() -> Any:
        module.threads.append(threading.current_thread())
        return module.next()

    module.current = current
    monkeypatch.setitem(sys.modules, "company_tokens", module)
    return module


CALLABLE = {"token_callable": "company_tokens.current"}
ALLOWED = {"company_tokens"}


# One token, two headers


@pytest.mark.parametrize("fields", [{"password": "token-of-ray-1"}, {"extra": {"token": "token-of-ray-1"}}])
def test_a_token_reaches_the_head_through_a_proxy_that_eats_authorization(
    fields: dict[str, Any], guarded: ScriptedRay, connect_to: Callable[..., Client]
) -> None:
    assert version(connect_to(read(host=guarded.url, **fields))) == VERSION
    with ReverseProxy(guarded.host, guarded.port, "/team/ray") as proxy:
        assert version(connect_to(read(host=proxy.url, **fields))) == VERSION
    assert [one.headers.get("authorization") for one in guarded.received] == ["Bearer token-of-ray-1", None]


def test_basic_auth_is_for_the_proxy_and_the_token_for_the_head(
    guarded: ScriptedRay, connect_to: Callable[..., Client]
) -> None:
    basic = "Basic " + base64.b64encode("me:pä:ss".encode()).decode()
    with ReverseProxy(guarded.host, guarded.port, "/ray", headers={"authorization": basic}) as proxy:
        cluster = read({"token": "token-of-ray-1"}, host=proxy.url, login="me", password="pä:ss")
        assert version(connect_to(cluster)) == VERSION
        with pytest.raises(exceptions.RayAuthError, match="401"):
            version(connect_to(read({"token": "token-of-ray-1"}, host=proxy.url)))


def test_an_authorization_and_a_cookie_of_the_authors_are_for_the_proxy(
    guarded: ScriptedRay, connect_to: Callable[..., Client]
) -> None:
    demanded = {"authorization": "Bearer gateway", "cookie": "a=1; session=xyz"}
    with ReverseProxy(guarded.host, guarded.port, headers=demanded) as proxy:
        extra = {
            "token": "token-of-ray-1",
            "headers": {"Authorization": "Bearer gateway"},
            "cookies": {"a": "1", "session": "xyz"},
        }
        assert version(connect_to(read(extra, host=proxy.url))) == VERSION


# Why it is not let in

NO_TOKEN = (
    "this Ray cluster requires a token; connection 'ray_x' has none. Put it into the connection's password (with "
    "a login: into the extra 'token'), or set the extra 'token_file' to the path of a file with it. The token is in "
    "~/.ray/auth_token on the head's machine (`ray get-auth-token` prints it); with KubeRay, in the Secret with the "
    "RayCluster's name, under the key auth_token. Ray requires one by default from 2.61 on, and from 2.59 on if that "
    "file existed when the head started"
)
REFUSED = (
    "the cluster refused the token of connection 'ray_x'; the right one is in ~/.ray/auth_token on the head's machine"
)
GENERAL = "the credentials were refused; check the token, login, headers and cookies of connection 'ray_x'"
PROXYS = answers.html(401)


@pytest.mark.parametrize(
    ("fields", "answer", "status", "words"),
    [
        ({}, None, 401, NO_TOKEN),
        ({"extra": {"headers": {"X-Team": "a"}}}, None, 401, NO_TOKEN),
        ({"login": "me", "password": "the token, as a login's"}, None, 403, NO_TOKEN),
        ({"password": "wrong-token"}, None, 403, REFUSED),
        ({"login": "me", "password": "word", "extra": {"token": "wrong-token"}}, answers.forbidden(), 403, REFUSED),
        ({"extra": {"cookies": {"ray-authentication-token": "wrong"}}}, answers.forbidden(), 403, REFUSED),
        (
            {"password": "wrong-token"},
            answers.unauthorized(),
            401,
            "Ray received no token, although connection 'ray_x' has",
        ),
        ({}, PROXYS, 401, "the cluster, or a proxy in front of it, requires credentials; connection 'ray_x' has none."),
        ({"login": "me", "password": "word"}, PROXYS, 401, GENERAL),
        ({"password": "wrong-token"}, PROXYS, 401, GENERAL),
        ({}, answers.html(403), 403, GENERAL),
    ],
)
def test_what_is_missing_or_refused_is_told(
    fields: dict[str, Any], answer: Any, status: int, words: str, guarded: ScriptedRay, connect_to: Any
) -> None:
    if answer is not None:
        guarded.script("GET", ".*", answer)
    with pytest.raises(exceptions.RayAuthError) as caught:
        version(connect_to(read(host=guarded.url, **fields)))
    assert str(caught.value).startswith(f"{guarded.url}: HTTP {status}: {words}")
    assert caught.value.status == status


@pytest.mark.parametrize(("fields", "words"), [({}, "requires credentials"), ({"password": "wrong-token"}, GENERAL)])
def test_a_log_stream_that_is_refused_tells_it_alike(
    fields: dict[str, Any], words: str, guarded: ScriptedRay, connect_async: Any
) -> None:
    guarded.add_job("a", "SUCCEEDED")
    cluster = read(host=guarded.url, **fields)
    client = connect_async(guarded, conn_id="ray_x", headers=cluster.headers)

    async def tail() -> None:
        async with client.transport.stream("/api/jobs/a/logs/tail"):
            pass

    with pytest.raises(exceptions.RayAuthError, match=words):
        client.call(tail())


def test_cookies_that_a_server_sets_are_not_kept(scripted_ray: ScriptedRay, connect: Connect) -> None:
    setting = answers.default().but(headers=(("Set-Cookie", "session=theirs; Path=/"),))
    scripted_ray.script("GET", "/api/version", setting)
    client = connect(scripted_ray, cookies={"session": "ours"})
    version(client)
    version(client)
    assert {one.headers.get("cookie") for one in scripted_ray.received} == {"session=ours"}


# Tokens that change


def test_a_token_file_is_read_anew_whenever_it_changes(
    guarded: ScriptedRay, connect_to: Callable[..., Client], tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("token-of-ray-1\n")
    client = connect_to(read({"token_file": str(file)}, host=guarded.url))
    assert version(client) == VERSION
    # The same length, within the same moment: neither size nor time need tell.
    guarded.token = "token-of-ray-2"
    file.write_text("token-of-ray-2\n")
    assert version(client) == VERSION


@pytest.mark.parametrize("content", [None, b"", b"a b", b"\xff\xfe", b"x\0y"])
def test_a_token_file_that_is_unusable_for_a_moment_is_tried_again(
    content: bytes | None, guarded: ScriptedRay, connect_to: Callable[..., Client], tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("token-of-ray-1")
    client = connect_to(read({"token_file": str(file)}, host=guarded.url))
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(exceptions.RayClusterUnreachableError, match="can't get the connection's token") as caught:
        version(client)
    assert not caught.value.maybe_sent
    assert len(client.time.slept) == 4
    assert guarded.received == []
    file.write_text("token-of-ray-1")
    assert version(client) == VERSION


def test_a_callable_is_asked_again_after_a_while_and_when_its_token_is_refused(
    guarded: ScriptedRay, connect_to: Callable[..., Client], tokens: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect_to(read(CALLABLE, ALLOWED, host=guarded.url))
    assert tokens.threads == []
    version(client)
    version(client)
    assert len(tokens.threads) == 1
    guarded.token = "token-of-ray-2"
    tokens.next = lambda: " token-of-ray-2\n"
    version(client)
    assert len(tokens.threads) == 2
    now = time.monotonic()
    monkeypatch.setattr(authentication, "time", SimpleNamespace(monotonic=lambda: now + authentication.TOKEN_KEPT))
    version(client)
    assert len(tokens.threads) == 3


def test_many_who_need_a_token_at_once_ask_for_one(tokens: Any) -> None:
    def slow() -> str:
        time.sleep(0.2)
        return "token-of-ray-1"

    tokens.next = slow
    token = read(CALLABLE, ALLOWED, host="head").token
    assert token is not None
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: token.current(), range(8))) == {"token-of-ray-1"}
    assert len(tokens.threads) == 1


def test_a_token_that_was_refused_while_it_was_asked_for_is_not_kept(tokens: Any) -> None:
    token = read(CALLABLE, ALLOWED, host="head").token
    assert token is not None

    def refused_meanwhile() -> str:
        token.drop()
        return "token-of-yesterday"

    tokens.next = refused_meanwhile
    assert token.current() == "token-of-yesterday"
    tokens.next = lambda: "token-of-ray-1"
    assert token.current() == "token-of-ray-1"


def test_a_token_that_was_replaced_a_moment_ago_is_asked_for_again(
    guarded: ScriptedRay, connect_to: Callable[..., Client], tokens: Any
) -> None:
    given = ["token-of-yesterday", "token-of-ray-1"]
    tokens.next = lambda: given.pop(0)
    client = connect_to(read(CALLABLE, ALLOWED, host=guarded.url))
    assert version(client) == VERSION
    assert client.time.slept == [1.0]


def test_a_kill_while_a_token_is_asked_for_is_no_lost_contact(
    guarded: ScriptedRay, connect_to: Callable[..., Client], tokens: Any
) -> None:
    def kill() -> str:
        raise exceptions.RayJobStoppedError("The task was killed")

    tokens.next = kill
    with pytest.raises(exceptions.RayJobStoppedError):
        version(connect_to(read(CALLABLE, ALLOWED, host=guarded.url)))
    assert guarded.received == []


def test_connections_with_other_tokens_are_not_equal(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("token-of-ray-1")
    a, again, b = (read({"token_file": str(tmp_path / name)}, host="head") for name in "aab")
    assert a == again
    assert a != b


@pytest.mark.parametrize("wrong", [None, b"token", "", "two words"])
def test_a_callable_without_a_usable_token_is_tried_again(
    wrong: Any, guarded: ScriptedRay, connect_to: Callable[..., Client], tokens: Any
) -> None:
    given = [wrong, wrong, "token-of-ray-1"]
    tokens.next = lambda: given.pop(0)
    client = connect_to(read(CALLABLE, ALLOWED, host=guarded.url))
    assert version(client) == VERSION
    assert len(client.time.slept) == 2


def test_a_callable_that_raises_is_told_as_lost_contact(
    guarded: ScriptedRay, connect_to: Callable[..., Client], tokens: Any
) -> None:
    def fail() -> str:
        raise OSError("no ticket")

    tokens.next = fail
    with pytest.raises(
        exceptions.RayClusterUnreachableError, match="can't get the connection's token: OSError: no ticket"
    ):
        version(connect_to(read(CALLABLE, ALLOWED, host=guarded.url)))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("company_tokens.nothing", "'company_tokens' has no function 'nothing'"),
        ("company_tokens.threads", "'company_tokens' has no function 'threads'"),
        ("current", "the module '' is not allowed"),
        ("company.tokens.current", "the module 'company.tokens' is not allowed"),
    ],
)
def test_a_callable_must_be_there_and_allowed(tokens: Any, path: str, words: str) -> None:
    with pytest.raises(exceptions.RayConnectionConfigError) as caught:
        read({"token_callable": path}, ALLOWED, host="head")
    assert words in str(caught.value)


def test_a_slow_callable_does_not_block_the_event_loop(guarded: ScriptedRay, tokens: Any) -> None:
    release = threading.Event()

    def wait() -> str:
        assert release.wait(20)
        return "token-of-ray-1"

    tokens.next = wait

    async def both() -> str:
        transport = AiohttpTransport(read(CALLABLE, ALLOWED, host=guarded.url))
        asking = asyncio.ensure_future(transport.run(verbs.get_version()))
        try:
            await until(lambda: tokens.threads)
            release.set()  # only a loop that still runs gets here
            return (await asking).ray_version
        finally:
            await transport.close()

    assert asyncio.run(both()) == VERSION
    assert threading.main_thread() not in tokens.threads


def test_a_signal_handler_takes_the_last_token_and_asks_nobody(guarded: ScriptedRay, tokens: Any) -> None:
    client = RequestsClient(read(CALLABLE, ALLOWED, host=guarded.url), FakeTime())
    version(client)
    tokens.next = lambda: pytest.fail("asked")
    assert client.transport.send_once(exchange.Request("GET", "/api/version"), timeout=3).status == 200
    client.close()


def test_the_stream_of_a_log_carries_the_credentials(guarded: ScriptedRay, tokens: Any) -> None:
    guarded.add_job("a", "SUCCEEDED")
    guarded.append_log("a", ["hello\n"])

    async def tail() -> list[str]:
        transport = AiohttpTransport(read(CALLABLE, ALLOWED, host=guarded.url))
        try:
            async with transport.stream("/api/jobs/a/logs/tail") as messages:
                return [text async for text in messages]
        finally:
            await transport.close()

    assert "hello" in "".join(asyncio.run(tail()))


# Masking


def test_each_new_token_is_masked_before_it_is_sent(guarded: ScriptedRay, tokens: Any) -> None:
    seen = []
    cluster = read(CALLABLE, ALLOWED, host=guarded.url)
    masking.register_cluster(cluster)
    for number in range(3):
        guarded.token = f"9d3e77-secret-{number}"
        tokens.next = lambda token=guarded.token: token
        assert cluster.token is not None
        cluster.token.drop()
        cluster.request_headers()
        seen.append(redact(f"is {guarded.token}"))
    assert seen == ["is ***"] * 3
    assert "9d3e77-secret-2" in cluster.secrets


def test_a_token_that_is_asked_for_on_a_loop_is_masked_too(
    guarded: ScriptedRay, tokens: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded.token = "b81c44-secret"
    tokens.next = lambda: "b81c44-secret"
    monkeypatch.setenv("AIRFLOW__RAY_JOBS__ALLOWED_MODULES", "company_tokens")
    monkeypatch.setenv(
        "AIRFLOW_CONN_RAY_X", json.dumps({"conn_type": "ray_jobs", "host": guarded.url, "extra": CALLABLE})
    )

    async def ask() -> str:
        hook = RayJobAsyncHook("ray_x")
        try:
            return await hook.get_version()
        finally:
            await hook.close()

    assert asyncio.run(ask()) == VERSION
    assert redact("is b81c44-secret") == "is ***"


def test_an_error_shows_no_token_that_was_asked_for(guarded: ScriptedRay, connect_to: Any, tokens: Any) -> None:
    tokens.next = lambda: "token-that-is-wrong"
    echo = answers.text(403, "Forbidden: token-that-is-wrong")
    guarded.script("GET", ".*", echo)
    with pytest.raises(exceptions.RayAuthError) as caught:
        version(connect_to(read(CALLABLE, ALLOWED, host=guarded.url)))
    assert "token-that-is-wrong" not in str(caught.value)

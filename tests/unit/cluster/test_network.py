"""The environment's HTTP proxies: both clients go the same way, whatever the variables say."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs import exceptions
from airflow_provider_rayjobs.client import verbs
from tests.support.forward_proxy import ForwardProxy
from tests.support.scripted_server import ScriptedRay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.clients import AiohttpClient, Client
    from tests.support.private_ca import PrivateCA

    Connect = Callable[..., Client]

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _no_proxy_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(params=["", "somebody:proxy-word"], ids=["open", "login"])
def proxy(request: pytest.FixtureRequest) -> Iterator[ForwardProxy]:
    with ForwardProxy(request.param) as forward:
        yield forward


@pytest.fixture
def tls_ray(private_ca: PrivateCA) -> Iterator[ScriptedRay]:
    with ScriptedRay(tls=private_ca.server_context()) as server:
        yield server


def ask(client: Client) -> None:
    assert client.run(verbs.get_version()).ray_version == "2.60.0"


@pytest.mark.parametrize(
    ("variables", "through"),
    [
        ({"HTTP_PROXY": "PROXY"}, True),
        ({"http_proxy": "PROXY"}, True),
        ({"ALL_PROXY": "PROXY"}, True),
        ({"ALL_PROXY": NOWHERE, "HTTP_PROXY": "PROXY"}, True),
        ({"HTTPS_PROXY": NOWHERE}, False),
        ({"HTTP_PROXY": ""}, False),
        ({"HTTP_PROXY": NOWHERE, "NO_PROXY": "*"}, False),
        ({"HTTP_PROXY": NOWHERE, "NO_PROXY": "example.com, 127.0.0.1"}, False),
        ({"HTTP_PROXY": NOWHERE, "NO_PROXY": "127.0.0.0/8"}, False),
        ({"ALL_PROXY": NOWHERE, "no_proxy": "127.0.0.1"}, False),
        ({"HTTP_PROXY": "PROXY", "NO_PROXY": "127.0.0.1:1,ray.example"}, True),
    ],
)
def test_the_variables_mean_the_same_to_both_clients(
    variables: dict[str, str],
    through: bool,
    proxy: ForwardProxy,
    scripted_ray: ScriptedRay,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("PROXY", proxy.url))
    ask(connect(scripted_ray))
    assert proxy.carried == ([f"GET {scripted_ray.url}/api/version"] if through else [])


def test_a_proxy_may_be_named_without_a_scheme(
    scripted_ray: ScriptedRay, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy() as proxy:
        for slashes in ("", "//"):
            monkeypatch.setenv("HTTP_PROXY", f"{slashes}{proxy.host}:{proxy.port}")
            ask(connect(scripted_ray))
        assert len(proxy.carried) == 2


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_tls_goes_through_a_tunnel_whose_proxy_sees_nothing(
    variable: str,
    proxy: ForwardProxy,
    tls_ray: ScriptedRay,
    private_ca: PrivateCA,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, proxy.url)
    client = connect(tls_ray, verify=str(private_ca.ca_file), headers={"Authorization": "Bearer tok"})
    ask(client)
    assert proxy.carried == [f"CONNECT 127.0.0.1:{tls_ray.port}"]
    (received,) = tls_ray.received
    assert received.headers["authorization"] == "Bearer tok"
    assert "proxy-authorization" not in received.headers


def test_the_stream_of_a_log_goes_through_the_proxy(
    proxy: ForwardProxy,
    tls_ray: ScriptedRay,
    private_ca: PrivateCA,
    connect_async: Callable[..., AiohttpClient],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    tls_ray.add_job("a", "SUCCEEDED")
    tls_ray.append_log("a", ["hello\n"])
    client = connect_async(tls_ray, verify=str(private_ca.ca_file))

    async def tail() -> str:
        async with client.transport.stream("/api/jobs/a/logs/tail") as messages:
            return "".join([text async for text in messages])

    assert client.call(tail()) == "hello\n"
    assert len(proxy.carried) == 1


def test_a_proxy_that_refuses_is_named_without_its_password(
    scripted_ray: ScriptedRay, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://somebody:proxy-word@127.0.0.1:9")
    with pytest.raises(exceptions.RayClusterUnreachableError) as caught:
        ask(connect(scripted_ray))
    assert "proxy-word" not in f"{caught.value!r} {caught.value.__cause__!r}"
    monkeypatch.setenv("HTTP_PROXY", "socks5://somebody:proxy-word@127.0.0.1:9")
    with pytest.raises(exceptions.RayConnectionConfigError, match="has the scheme socks5, but only") as wrong:
        ask(connect(scripted_ray))
    assert "proxy-word" not in str(wrong.value)


def test_a_proxy_that_refuses_a_login_is_told_without_its_password(
    tls_ray: ScriptedRay, private_ca: PrivateCA, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(login="me:right") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("me:right", "me:proxy-word"))
        with pytest.raises(exceptions.RayClusterUnreachableError) as caught:
            ask(connect(tls_ray, verify=str(private_ca.ca_file)))
    assert "proxy-word" not in f"{caught.value!r}"
    assert "407" in str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("socks5h://me:proxy-word@127.0.0.1:9", "ALL_PROXY) has the scheme socks5h, but only http and https"),
        ("ftp://me:proxy-word@127.0.0.1:9", "ALL_PROXY) has the scheme ftp, but only http and https"),
        ("http://me:proxy-word@", "ALL_PROXY) is not of the form"),
        ("http://me:proxy-word@:9", "ALL_PROXY) is not of the form"),
        ("http://me:proxy-word@127.0.0.1:0", "ALL_PROXY) is not of the form"),
        ("http://me:proxy-word@127.0.0.1:99999", "ALL_PROXY) is not of the form"),
        ("http://me:proxy-word@127.0.0.1:port", "ALL_PROXY) is not of the form"),
        ("http://me:proxy-word@[::1:9", "ALL_PROXY) is not of the form"),
        ("http://me:a/proxy-word@127.0.0.1:9", "ALL_PROXY) is not of the form"),
        ("http://me:/proxy-word@127.0.0.1:9", "ALL_PROXY) is not of the form"),
        ("http://me:12/proxy-word@127.0.0.1:9", "ALL_PROXY) is not of the form"),
        ("http://me:12?proxy-word@127.0.0.1:9", "ALL_PROXY) is not of the form"),
        ("http://me:12#proxy-word@127.0.0.1:9", "ALL_PROXY) is not of the form"),
        ("http://me:[proxy-word@127.0.0.1:9", "ALL_PROXY) is not of the form"),
        ("me:a/proxy-word@127.0.0.1:9", "ALL_PROXY) is not of the form"),
        ("me:a://proxy-word@127.0.0.1:9", "ALL_PROXY) is not of the form"),
        ("http://me:proxy-word@127.0.0.1 :9", "ALL_PROXY) is not of the form"),
        ("me:a?proxy-word@127.0.0.1:9", "ALL_PROXY) is not of the form"),
    ],
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_a_proxy_whose_url_is_wrong_is_named_by_its_variable_and_never_shown(
    variable: str, url: str, words: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, url)
    scheme = "https" if variable == "HTTPS_PROXY" else "http"
    with pytest.raises(exceptions.RayConnectionConfigError, match="'ray_test', field 'host'") as caught:
        ask(connect(f"{scheme}://ray.example:8265"))
    assert variable in str(caught.value)
    assert words in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value))
    assert "proxy-word" not in shown
    assert "127.0.0.1" not in shown


def test_a_password_with_an_at_sign_is_taken_as_it_is_written(
    scripted_ray: ScriptedRay, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy("me:proxy@word") as proxy:
        for password in ("proxy@word", "proxy%40word"):
            monkeypatch.setenv("HTTP_PROXY", f"http://me:{password}@{proxy.host}:{proxy.port}")
            ask(connect(scripted_ray))
        assert len(proxy.carried) == 2

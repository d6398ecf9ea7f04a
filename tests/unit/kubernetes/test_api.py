"""Without the extra: what is said. With it, the tests in `tests/kube` use the real API server."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import json
import logging
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.exceptions import RayKubernetesError, RayKubernetesRefusedError
from airflow_provider_rayjobs.kubernetes import api
from airflow_provider_rayjobs.kubernetes.api import FIRST_PAUSE, LONGEST_PAUSE, KubeApi, _Patience, async_kube_api
from airflow_provider_rayjobs.kubernetes.calls import RAYJOBS, Call, Sleep, get

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def without_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("airflow.providers.cncf"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)


@pytest.mark.usefixtures("without_extra")
def test_without_the_extra_the_command_is_told() -> None:
    with pytest.raises(RayKubernetesRefusedError, match=r"pip install 'airflow-provider-rayjobs\[kubernetes\]'"):
        KubeApi("kube", logging.getLogger())

    async def opened() -> None:
        async with async_kube_api("kube", logging.getLogger()):
            pass

    with pytest.raises(RayKubernetesRefusedError, match=r"pip install 'airflow-provider-rayjobs\[kubernetes\]'"):
        asyncio.run(opened())


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which clients were opened, and closed."""
    events: list[str] = []

    async def opened(conn_id: str, stack: contextlib.AsyncExitStack) -> Any:
        number = len(events)
        events.append(f"open {conn_id} {number}")
        stack.callback(lambda: events.append(f"close {number}"))
        await asyncio.sleep(0.01)
        if conn_id == "wrong":
            raise RayKubernetesRefusedError("wrong")
        return number

    async def call(self: Any, api_client: Any, _: Any) -> Any:
        await asyncio.sleep(0.01)
        return api_client

    monkeypatch.setattr(api, "_open", opened)
    monkeypatch.setattr(api.AsyncKubeApi, "_call", call)
    monkeypatch.setattr(api, "_translated", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(api, "LINGER", 0.1)
    return events


async def used_client(conn_id: str = "kube") -> int:
    async with async_kube_api(conn_id, logging.getLogger()) as kube:

        def flow() -> Any:
            return (yield get("pods", "ray", "x"))

        number: int = await kube.run(flow())
        return number


def test_the_users_of_a_connection_share_a_client_until_some_time_after_the_last(clients: list[str]) -> None:
    async def main() -> None:
        cancelled = asyncio.create_task(used_client())
        await asyncio.sleep(0.005)
        cancelled.cancel()
        assert set(await asyncio.gather(*[used_client() for _ in range(100)])) == {0}
        await used_client("other")
        await asyncio.sleep(0.5)
        assert len(asyncio.all_tasks()) == 1
        assert await used_client() == 4

    asyncio.run(main())
    assert clients == ["open kube 0", "open other 1", "close 0", "close 1", "open kube 4", "close 4"]


def test_a_client_is_renewed_after_some_time(clients: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A long wait would otherwise outlive the token of a pod."""
    monkeypatch.setattr(api, "CLIENT_AGE", 0.2)

    async def main() -> None:
        async with async_kube_api("kube", logging.getLogger()) as kube:

            def flow() -> Any:
                first = yield get("pods", "ray", "x")
                yield Sleep(0.3)
                return first, (yield get("pods", "ray", "x"))

            first, second = await kube.run(flow())
            assert first != second

    asyncio.run(main())
    assert sum(event.startswith("open") for event in clients) == 2


def test_a_connection_that_could_not_be_used_is_tried_again(clients: list[str]) -> None:
    async def main() -> None:
        for _ in range(2):
            with pytest.raises(RayKubernetesRefusedError, match="wrong"):
                await used_client("wrong")

    asyncio.run(main())
    assert sum(event.startswith("open") for event in clients) == 2


def test_the_clients_are_not_imported_on_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    importing: list[threading.Thread] = []

    def imported() -> None:
        importing.append(threading.current_thread())
        raise RayKubernetesRefusedError("enough")

    monkeypatch.setattr(api, "_import_clients", imported)
    with pytest.raises(RayKubernetesRefusedError, match="enough"):
        asyncio.run(used_client())
    assert importing
    assert threading.main_thread() not in importing


def patience(seconds: float = 300.0) -> _Patience:
    return _Patience("kube", logging.getLogger(), seconds)


def test_lost_contact_is_retried_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    waits = patience()
    pauses = [waits.pause(RayKubernetesError("gone")) for _ in range(6)]
    assert pauses[0] == FIRST_PAUSE
    assert pauses[-1] == LONGEST_PAUSE
    waits.back()
    waits.back()
    assert [record.getMessage() for record in caplog.records] == [
        "gone; retrying for up to 300 s",
        "Kubernetes answers again after 0 s",
    ]


@pytest.mark.parametrize("status", [None, 429, 500, 503])
def test_what_may_pass_is_retried(status: int | None) -> None:
    assert patience().pause(RayKubernetesError("later", status=status)) == FIRST_PAUSE
    with pytest.raises(RayKubernetesError, match="later"):
        patience(0).pause(RayKubernetesError("later", status=status))


@pytest.mark.parametrize(
    "error",
    [
        RayKubernetesError("no", status=404),
        RayKubernetesError("no", status=409),
        RayKubernetesRefusedError("no", status=403),
        RayKubernetesRefusedError("no"),
    ],
)
def test_what_stays_is_raised_at_once(error: RayKubernetesError) -> None:
    with pytest.raises(RayKubernetesError, match="no") as caught:
        patience().pause(error)
    assert caught.value is error


NO_RIGHT = (
    'rayjobs.ray.io is forbidden: User "system:serviceaccount:airflow:worker" cannot create resource "rayjobs" in API '
    'group "ray.io" in the namespace "ray"'
)
QUOTA = (
    'rayjobs.ray.io "etl" is forbidden: exceeded quota: objects, requested: count/rayjobs.ray.io=1, used: '
    "count/rayjobs.ray.io=50, limited: count/rayjobs.ray.io=50"
)
ENDING = (
    'rayjobs.ray.io "etl" is forbidden: unable to create new content in namespace ray because it is being terminated'
)
WEBHOOK = 'admission webhook "validation.gatekeeper.sh" denied the request: the User "x" cannot do this without a label'


@pytest.mark.parametrize(
    ("said", "kind", "advice"),
    [
        (NO_RIGHT, RayKubernetesRefusedError, "give the connection's user a Role with the verb 'create' on 'rayjobs'"),
        (QUOTA, RayKubernetesError, "a retry may find room, or raise the quota"),
        (ENDING, RayKubernetesRefusedError, ""),
        (WEBHOOK, RayKubernetesRefusedError, ""),
    ],
)
def test_a_refusal_is_told_by_its_words(said: str, kind: type, advice: str) -> None:
    answer = SimpleNamespace(status=403, reason="Forbidden", body=json.dumps({"kind": "Status", "message": said}))
    error = api._error_of("Kubernetes", Call("create", RAYJOBS, "ray"), answer)
    assert type(error) is kind
    assert said in str(error)
    assert advice in str(error)
    assert ("Role" in str(error)) is (said == NO_RIGHT)
    with pytest.raises(RayKubernetesError, match="403"):  # not within the patience for one call
        patience().pause(error)


@pytest.mark.parametrize("status", [404, 409, 410])
def test_what_flows_handle_is_not_refused_for_good(status: int) -> None:
    answer = SimpleNamespace(status=status, reason="", body="")
    assert type(api._error_of("Kubernetes", get("pods", "ray", "x"), answer)) is RayKubernetesError


def test_a_pods_own_credentials_are_used_if_the_connection_names_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    monkeypatch.setattr(api, "_SERVICE_ACCOUNT", token)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert not api._is_in_pod({})
    token.touch()
    assert api._is_in_pod({})
    assert not api._is_in_pod({"kube_config": "{}"})
    assert not api._is_in_pod({"extra__kubernetes__kube_config_path": "/x"})
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert not api._is_in_pod({})

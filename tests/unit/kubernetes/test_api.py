"""Without the extra: what is said. With it, the tests in `tests/kube` use the real API server."""

from __future__ import annotations

import asyncio
import builtins
import logging
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.exceptions import RayKubernetesError, RayKubernetesRefusedError
from airflow_provider_rayjobs.kubernetes import api
from airflow_provider_rayjobs.kubernetes.api import FIRST_PAUSE, LONGEST_PAUSE, KubeApi, _Patience, async_kube_api

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

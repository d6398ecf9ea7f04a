"""Local files of the operator's runtime_env: packed before there is a submission, and broken off by a kill."""

from __future__ import annotations

import json
import os
import signal
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_rayjobs.compat import versions
from airflow_provider_rayjobs.exceptions import RayJobInterruptedError, RayPackageError
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.tasks.guard import refused_for_good
from tests.support import answers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.scripted_server import ScriptedRay


#: Of a try that another will follow; no Airflow can be asked about it.
CONTEXT: Any = {"ti": SimpleNamespace(try_number=1, max_tries=1, hostname="", pid=1, task=SimpleNamespace(retries=1))}


@pytest.fixture
def operator(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> RaySubmitJobOperator:
    connection = {"conn_type": "ray_jobs", "host": scripted_ray.url, "extra": {"max_upload_size": 0.1}}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(connection))
    return RaySubmitJobOperator(task_id="t", entrypoint="true", ray_conn_id="ray_x", runtime_env={"working_dir": "/no"})


@pytest.fixture
def alarm(operator: RaySubmitJobOperator) -> Iterator[None]:
    """A signal handler as Airflow's, after half a second."""

    def handler(*_: object) -> None:
        operator.on_kill()
        for terminated in versions.TERMINATED:  # as Airflow 2's own does
            raise terminated("Task received SIGTERM signal")

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_package_error_says_that_nothing_was_submitted(operator: Any) -> None:
    with pytest.raises(
        RayPackageError, match=r"^Nothing was submitted: runtime_env\['working_dir'\]: there is no folder"
    ):
        operator._prepare(operator.runtime_env)


def test_a_package_that_is_too_large_is_not_retried(operator: Any, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(range(256)) * 1000)
    with (tmp_path / "random").open("wb") as file:
        file.write(os.urandom(200_000))
    with (
        pytest.raises(AirflowFailException, match=r"^Nothing was submitted: .*The largest of its 2 files"),
        refused_for_good(),
    ):
        operator._prepare({"working_dir": str(tmp_path)})


@pytest.mark.usefixtures("alarm")
def test_a_kill_breaks_the_upload_off(operator: Any, scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("print(1)")
    scripted_ray.script("PUT", ".*", answers.default(delay=8))
    started = time.monotonic()
    guard = operator._new_guard(CONTEXT)
    with (
        pytest.raises(versions.TERMINATED or RayJobInterruptedError, match=r"it had no Ray job yet|SIGTERM"),
        guard.guarding(),
        operator._waiting_for_cluster(),
    ):
        operator._prepare({"working_dir": str(tmp_path)})
    assert time.monotonic() - started < 7
    assert not scripted_ray.received_on("POST")


def test_after_a_kill_nothing_is_packed(operator: Any, scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    guard = operator._new_guard(CONTEXT)
    operator.on_kill()
    with (
        pytest.raises(RayJobInterruptedError, match="it had no Ray job yet"),
        guard.guarding(),
        operator._waiting_for_cluster(),
    ):
        operator._prepare({"working_dir": str(tmp_path)})
    assert not scripted_ray.received


def test_a_secret_that_ray_may_change_is_told_by_its_name(operator: Any, caplog: pytest.LogCaptureFixture) -> None:
    operator.secret_env_vars = {"LOGIN": "tr0ub$HOME&3", "BRACES": "a${X}b", "PLAIN": "5$ and $", "OTHER": "x"}
    env_vars = {**operator.secret_env_vars, "A_PASSWORD": "x$y", "PATH": "$PATH:/x"}
    warned: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operator.log, "warning", lambda text, *args: warned.append(text % args))
        operator._warn_of_expansion({"env_vars": env_vars})
    assert sorted(text.partition("variable ")[2].partition(",")[0] for text in warned) == [
        "A_PASSWORD",
        "BRACES",
        "LOGIN",
    ]
    assert "tr0ub" not in "".join(warned)

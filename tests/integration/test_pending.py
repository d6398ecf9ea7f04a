"""Why a job is PENDING, as a real head reports it: resources that are not there, that are in use, and slow set-ups."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
from airflow_provider_rayjobs.following.poller import Poller
from airflow_provider_rayjobs.following.watcher import JobWatcher, Watch
from airflow_provider_rayjobs.hooks import RayJobHook
from tests.support.ray_head import RayHead, require_ray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.alone]

#: The fake provider of Ray's own tests: a node is another process on this machine.
AUTOSCALER: dict[str, Any] = {
    "cluster_name": "fake",
    "max_workers": 1,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 5,
    "provider": {"type": "fake_multinode"},
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "gpu": {"resources": {"CPU": 1, "GPU": 4}, "node_config": {}, "min_workers": 0, "max_workers": 1},
    },
    "head_node_type": "ray.head.default",
    "auth": {},
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "initialization_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "rsync_exclude": [],
    "rsync_filter": [],
}


def reason_of(head: RayHead, submission_id: str, monkeypatch: pytest.MonkeyPatch, within: float = 15.0) -> str:
    """Return what a task's log says of a job that is PENDING, within some seconds of its submission."""
    lines: list[str] = []

    class Log:
        def info(self, text: str, *args: object) -> None:
            lines.append(text % args)

        warning = info

    async def follow() -> None:
        cluster = RayJobHook("ray_x").cluster
        async with Poller(AiohttpTransport(cluster)) as poller:
            watch = Watch(submission_id, time.time(), stream_logs=False)
            running = asyncio.ensure_future(JobWatcher(poller, watch, Log()).run())
            try:
                async with asyncio.timeout(within):
                    while not any(line.startswith("PENDING for") for line in lines):  # noqa: ASYNC110 - a plain wait
                        await asyncio.sleep(0.1)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(head.connection()))
    asyncio.run(follow())
    return next(line for line in lines if line.startswith("PENDING for"))


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    """A head that reports its resources."""
    with RayHead(num_cpus=2, ray_bin=require_ray(), monitor=True) as made:
        yield made


@pytest.fixture
def submit(head: RayHead, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Submits jobs, and stops them at the end."""
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(head.connection()))
    hook = RayJobHook("ray_x")
    made: list[str] = []

    def submit(**fields: Any) -> str:
        made.append(
            hook.submit_job(submission_id=f"pending-{uuid.uuid4().hex[:12]}", **{"entrypoint": "true"} | fields)
        )
        return made[-1]

    yield submit
    for submission_id in made:
        hook.stop_job(submission_id)
    hook.close()


def test_what_no_node_has(head: RayHead, submit: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    found = reason_of(head, submit(entrypoint_num_gpus=4), monkeypatch)
    wanted = (
        r"PENDING for 1\d s: needs 4 GPU on one node, but no node has 4 GPU \(at most 0 GPU\), and there is no auto"
    )
    assert re.match(wanted, found), found
    assert "Ray: Job has not started yet" in found


def test_what_is_in_use(head: RayHead, submit: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    free = head.num_cpus
    submit(entrypoint="sleep 60", entrypoint_num_cpus=free)
    time.sleep(3)
    found = reason_of(head, submit(entrypoint_num_cpus=free), monkeypatch)
    assert f"needs {free} CPU on one node, free are 0 CPU of {free} CPU" in found


def test_a_slow_set_up(
    head: RayHead, submit: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "setup.py").write_text(
        "import time\nfrom setuptools import setup\ntime.sleep(40)\nsetup(name='slow', version='1', py_modules=[])\n"
    )
    options = ["--no-index", "--no-build-isolation"]
    env = {"pip": {"packages": [str(tmp_path)], "pip_install_options": options}}
    found = reason_of(head, submit(runtime_env=env), monkeypatch)
    assert "its runtime environment is being set up" in found


def test_an_autoscaler_that_starts_a_node_is_told_from_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "autoscaler.yaml").write_text(json.dumps(AUTOSCALER))
    env = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    arguments = (f"--autoscaling-config={tmp_path / 'autoscaler.yaml'}",)
    with RayHead(num_cpus=1, env=env, extra_args=arguments, ray_bin=require_ray(), monitor=True) as head:
        monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(head.connection()))
        hook = RayJobHook("ray_x")
        hook.submit_job(entrypoint="true", submission_id="never", entrypoint_num_gpus=8)
        found = reason_of(head, "never", monkeypatch)
        assert "no node has 8 GPU (at most 0 GPU); the autoscaler starts no node for it" in found
        hook.submit_job(entrypoint="true", submission_id="later", entrypoint_num_gpus=4)
        found = reason_of(head, "later", monkeypatch)
        assert "no node has 4 GPU (at most 0 GPU); the autoscaler is starting a node" in found
        hook.close()

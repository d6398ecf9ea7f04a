"""Fixtures that tests of several modules of this room share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.packaging.stores import ClusterStore
from airflow_provider_rayjobs.packaging.upload import prepare_runtime_env
from tests.support.clients import FakeTime, RequestsClient, cluster_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.scripted_server import ScriptedRay


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a bit of everything."""
    root = tmp_path / "code"
    (root / "lib/deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "lib/grüße.py").write_text("print(1)\n" * 500)
    (root / "lib/deep/random.bin").write_bytes(os.urandom(5000))
    (root / "nothing").write_bytes(b"")
    for path in (root, root / "lib", root / "lib/deep"):
        path.chmod(0o755)
    return root


@pytest.fixture
def prepare(scripted_ray: ScriptedRay) -> Iterator[Callable[..., dict[str, Any]]]:
    """Makes runtime_envs ready for a scripted server."""
    client = RequestsClient(cluster_at(scripted_ray), FakeTime())

    def call(runtime_env: dict[str, Any], limit: int = 100 << 20, **environ: str) -> dict[str, Any]:
        return prepare_runtime_env(runtime_env, ClusterStore(client.run, limit, scripted_ray.url), environ=environ)

    yield call
    client.close()

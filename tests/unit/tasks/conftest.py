"""The hook that tests of several modules of this room share."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.client import verbs
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.tasks import stopping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.scripted_server import ScriptedRay


@pytest.fixture
def hook(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayJobHook]:
    connection = {"conn_type": "ray_jobs", "host": scripted_ray.url, "extra": {"metadata": {"team": "t"}}}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(connection))
    quick = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: time.sleep(seconds / 20))
    monkeypatch.setattr(stopping, "time", quick)
    monkeypatch.setattr(verbs, "SUBMIT_GRACE", (0.01,))
    made = RayJobHook("ray_x")
    yield made
    made.close()

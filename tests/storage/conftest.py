"""A server with S3's API, an Airflow connection to it, and a Ray head whose nodes can read from it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.storage.s3 import S3
from tests.support.ray_head import RayHead

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
ENVS = HERE.parents[1] / ".envs"

#: Only the environment of `make storage` has what Airflow needs for S3.
collect_ignore_glob = [] if importlib.util.find_spec("s3fs") else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.storage)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with S3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def ray_s3(s3: S3) -> Iterator[RayHead]:
    """A head whose nodes have smart_open and boto3, and credentials."""
    with RayHead(env=s3.environment, ray_bin=ENVS / "storage-ray/bin/ray") as head:
        yield head


@pytest.fixture
def bucket(s3: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of the test's own, which the Airflow connection ``aws_x`` can reach."""
    monkeypatch.setenv("AIRFLOW_CONN_AWS_X", json.dumps(s3.connection))
    return s3.new_bucket()

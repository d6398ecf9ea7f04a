"""Servers with the APIs of S3 and Google Cloud Storage, connections to them, and a head whose nodes read from both."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.storage.gcs import GCS
from tests.storage.s3 import S3
from tests.support.ray_head import RayHead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.storage.server import Server

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
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GCS]:
    with GCS(tmp_path_factory.mktemp("gcs")) as server:
        # For the whole session: gcsfs reads one of them when it is imported.
        os.environ.update(server.environment)
        yield server
        for name in server.environment:
            del os.environ[name]


@pytest.fixture(scope="session")
def storage_head(s3: S3, gcs: GCS) -> Iterator[RayHead]:
    """A head whose nodes have smart_open and the clients of both vendors, and credentials."""
    with RayHead(env=s3.environment | gcs.environment, ray_bin=ENVS / "storage-ray/bin/ray") as head:
        yield head


class Bucket(NamedTuple):
    """A bucket of a test's own, which an Airflow connection can reach."""

    server: Server
    name: str

    @property
    def folder(self) -> str:
        """URL of a folder in it, for Airflow."""
        return f"{self.server.scheme}://{self.server.conn_id}@{self.name}/ray"

    @property
    def objects(self) -> dict[str, int]:
        """Its objects and their sizes."""
        return self.server.objects(self.name)

    @property
    def requests(self) -> list[str]:
        """The methods of all requests so far to its objects."""
        return self.server.requests(self.name)


@pytest.fixture(params=["s3", "gcs"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    server: Server = request.getfixturevalue(request.param)
    monkeypatch.setenv(f"AIRFLOW_CONN_{server.conn_id.upper()}", json.dumps(server.connection))
    return Bucket(server, server.new_bucket())

"""A Ray head with Serve, applications to deploy to it, and an Airflow connection."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ports import free_port
from tests.support.ray_head import RayHead

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
RAY = HERE.parents[1] / ".envs/serve-ray/bin/ray"

#: Only after `make serve` has made the environment.
collect_ignore_glob = [] if RAY.is_file() else ["test_*.py"]

#: What the environment variable MODE breaks; V is the version that it answers with.
CODE = """
import os

from ray import serve


@serve.deployment
class Hello:
    def __init__(self):
        if os.environ["MODE"] == "raises":
            raise RuntimeError("the model is not there: " + os.environ.get("API_TOKEN", ""))

    def check_health(self):
        if os.environ["MODE"] == "sick":
            raise RuntimeError("no GPU memory left")

    def __call__(self, request):
        return "version " + os.environ["V"]


app = Hello.bind()
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.serve)


class Serve:
    """Serve on a head of its own."""

    def __init__(self, head: RayHead, folder: Path) -> None:
        self.head = head
        self.port = free_port()
        self.code = folder / "code.zip"
        with zipfile.ZipFile(self.code, "w") as archive:
            archive.writestr("hello/hello.py", CODE)

    def application(
        self, name: str, version: str, mode: str = "", path: str = "hello:app", **env: str
    ) -> dict[str, Any]:
        variables = {"V": version, "MODE": mode, **env}
        return {
            "name": name,
            "route_prefix": f"/{name}",
            "import_path": path,
            "runtime_env": {"working_dir": f"file://{self.code}", "env_vars": variables},
        }

    def config(self, *applications: dict[str, Any]) -> dict[str, Any]:
        """Return a config that starts Serve on the loopback address."""
        return {
            "proxy_location": "HeadOnly",
            "http_options": {"host": "127.0.0.1", "port": self.port},
            "applications": list(applications),
        }

    def answer(self, name: str) -> str:
        """Return what an application answers; the error if it does not."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{name}", timeout=10) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, TimeoutError) as e:
            return repr(e)


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with RayHead(num_cpus=8, ray_bin=RAY) as head:
        yield Serve(head, tmp_path_factory.mktemp("serve"))


@pytest.fixture(autouse=True)
def _connection(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(serve.head.connection()))

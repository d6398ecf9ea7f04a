"""An Airflow whose OpenLineage events go to a file, and to a server that asks for a key."""

from __future__ import annotations

import importlib.util
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.airflow_env import AirflowEnv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.databases import Database
    from tests.support.ray_head import RayHead

HERE = Path(__file__).parent

KEY = "the-key-of-the-backend"

#: Only the environments of `make lineage` have Airflow's OpenLineage provider.
collect_ignore_glob = [] if importlib.util.find_spec("openlineage") else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.lineage)


@pytest.fixture(scope="session")
def events_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lineage") / "events.jsonl"


class Backend(ThreadingHTTPServer):
    """Takes events, and keeps them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.events: list[dict[str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: Backend

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        allowed = self.headers["Authorization"] == f"Bearer {KEY}"
        if allowed:
            self.server.events.append(json.loads(body))
        self.send_response(200 if allowed else 401)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="session")
def backend() -> Iterator[Backend]:
    with Backend() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="session")
def airflow_env(
    tmp_path_factory: pytest.TempPathFactory,
    ray_head: RayHead,
    new_database: Callable[[Path], Database],
    events_file: Path,
    backend: Backend,
) -> Iterator[AirflowEnv]:
    home = tmp_path_factory.mktemp("airflow")
    shutil.copytree(HERE / "dags", home / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    file = {"type": "file", "log_file_path": str(events_file), "append": True}
    http = {"type": "http", "url": backend.url, "auth": {"type": "api_key", "apiKey": KEY}}
    settings = {
        "NAMESPACE": "tests",
        "TRANSPORT": json.dumps({"type": "composite", "transports": {"file": file, "http": http}}),
        "SPARK_INJECT_PARENT_JOB_INFO": "True",
        "EXECUTION_TIMEOUT": "60",  # on a busy machine
    }
    env = {f"AIRFLOW__OPENLINEAGE__{name}": value for name, value in settings.items()}
    airflow = AirflowEnv(home, home / "dags", new_database(home), env=env)
    airflow.start()
    airflow.add_connection("ray_default", **ray_head.connection())
    yield airflow
    airflow.stop()

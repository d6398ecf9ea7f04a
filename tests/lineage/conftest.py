"""An Airflow whose OpenLineage events go to a file."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.airflow_env import AirflowEnv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.databases import Database
    from tests.support.ray_head import RayHead

HERE = Path(__file__).parent

#: Only the environments of `make lineage` have Airflow's OpenLineage provider.
collect_ignore_glob = [] if importlib.util.find_spec("openlineage") else ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.lineage)


@pytest.fixture(scope="session")
def events_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lineage") / "events.jsonl"


@pytest.fixture(scope="session")
def airflow_env(
    tmp_path_factory: pytest.TempPathFactory,
    ray_head: RayHead,
    new_database: Callable[[Path], Database],
    events_file: Path,
) -> Iterator[AirflowEnv]:
    home = tmp_path_factory.mktemp("airflow")
    shutil.copytree(HERE / "dags", home / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    settings = {
        "NAMESPACE": "tests",
        "TRANSPORT": json.dumps({"type": "file", "log_file_path": str(events_file), "append": True}),
        "SPARK_INJECT_PARENT_JOB_INFO": "True",
        "EXECUTION_TIMEOUT": "60",  # on a busy machine
    }
    env = {f"AIRFLOW__OPENLINEAGE__{name}": value for name, value in settings.items()}
    airflow = AirflowEnv(home, home / "dags", new_database(home), env=env)
    airflow.start()
    airflow.add_connection("ray_default", **ray_head.connection())
    yield airflow
    airflow.stop()

"""An Airflow of its own for the tests in this directory, started once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.airflow_env import AirflowEnv
from tests.support.airflow_processes import airflow_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.databases import Database

HERE = Path(__file__).parent

_SIGKILL = "Airflow 3.0.6 fails a task whose process alone is killed by SIGKILL, and does not try it again"
#: What Airflow 3.0 can't do; docs/versions.md says so.
NOT_ON_3_0 = {
    "test_killed_task_is_tried_again[runner]": _SIGKILL,
    "test_lost_worker_leaves_one_job_that_the_next_try_follows[runner]": _SIGKILL,
    "test_worker_lost_after_the_end_runs_nothing_twice": _SIGKILL,
    "test_clear_of_a_running_task_leaves_one_job_alive": "Airflow 3.0.6 leaves a cleared running task restarting",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.airflow)
            if airflow_version() == (3, 0) and item.name in NOT_ON_3_0:
                item.add_marker(pytest.mark.skip(reason=NOT_ON_3_0[item.name]))


@pytest.fixture(scope="package")
def airflow_env(
    tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[Path], Database]
) -> Iterator[AirflowEnv]:
    """All processes of an Airflow whose DAGs are a copy of ``dags``."""
    home = tmp_path_factory.mktemp("airflow")
    dags = home / "dags"
    shutil.copytree(HERE / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
    env = AirflowEnv(home, dags, new_database(home))
    env.start()
    yield env
    env.stop()

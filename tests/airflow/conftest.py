"""The Airflow of the tests in this folder: the shared one, or one of this run of pytest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import shared
from tests.support.airflow_processes import airflow_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.airflow_env import AirflowEnv
    from tests.support.databases import Database
    from tests.support.ray_head import RayHead

HERE = Path(__file__).parent

_SIGKILL = "Airflow 3.0.6 fails a task without a retry if only its process is killed by SIGKILL"
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
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead
) -> Iterator[AirflowEnv]:
    """A running Airflow with a copy of ``dags``; its connection ``ray_default`` is the shared head."""
    if shared.are_wanted():
        env = shared.get("airflow_env")
        yield env
        env.stop_own()
        return
    new_database: Callable[[Path], Database] = request.getfixturevalue("new_database")
    home = tmp_path_factory.mktemp("airflow")
    env = shared.airflow_of_the_tests(home, new_database(home))
    env.start()
    env.add_connection("ray_default", **ray_head.connection())
    yield env
    env.stop()

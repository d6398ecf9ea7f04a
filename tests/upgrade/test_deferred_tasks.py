"""A task that is deferred during an upgrade of Airflow continues with its job, on real schedulers and triggerers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow.drivers import ends, jobs_of, starts
from tests.upgrade import MARK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.databases import Database
    from tests.support.ray_head import RayHead
    from tests.upgrade.conftest import Airflow


def half(airflow: Airflow, name: str, home: Path, database: Database, head: RayHead) -> dict[str, Any]:
    connection = json.dumps(head.connection())
    output = airflow.run("-m", "tests.upgrade.stage", name, home, database.url, connection, env={}, timeout=900)
    (line,) = [line for line in output.splitlines() if line.startswith(MARK)]
    result: dict[str, Any] = json.loads(line.removeprefix(MARK))
    assert result["version"] == [int(number) for number in airflow.version.split(".")]
    return result


@pytest.mark.timeout(1800)
def test_a_deferred_task_continues_after_the_upgrade(
    upgrade: tuple[Airflow, Airflow],
    ray_head: RayHead,
    tmp_path: Path,
    new_database: Callable[[Path], Database],
) -> None:
    old, new = upgrade
    home = tmp_path / f"{old.version}-{new.version}"
    home.mkdir()
    database = new_database(home)
    submitted = half(old, "defer", home, database, ray_head)["submission_id"]
    (job,) = jobs_of(ray_head, f"upgrade-{home.name}")
    assert (job["submission_id"], job["status"]) == (submitted, "RUNNING")

    done = half(new, "finish", home, database, ray_head)
    (job,) = jobs_of(ray_head, f"upgrade-{home.name}")
    assert (job["submission_id"], job["status"]) == (submitted, "SUCCEEDED")
    assert (done["try_number"], done["xcom"]) == (1, submitted)
    assert "bye from the driver" in done["log"]
    assert (starts(home / "trace"), ends(home / "trace")) == (1, 1)

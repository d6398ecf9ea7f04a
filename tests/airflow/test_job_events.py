"""Ends of jobs that nobody submitted here, as events of an asset, while the triggerer is killed."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.tasks.told_ends import PREFIX
from tests.support.airflow_processes import airflow_version
from tests.support.airflow_records import wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.airflow_env import AirflowEnv
    from tests.support.ray_head import RayHead
    from tests.support.scripted_server import ScriptedRay

pytestmark = pytest.mark.skipif(airflow_version() < (3, 1), reason="Airflow has no triggers of assets before 3.1")

DAG, ASSET, CONNECTION = "rj_events", "rj_ends", "ray_events"
TEAM = {"team": "events"}


def told(airflow: AirflowEnv) -> list[dict[str, Any]]:
    """Return the payloads of the asset's events, in the order in which they were recorded."""
    rows = airflow.query(
        "SELECT e.extra AS extra FROM asset_event e JOIN asset a ON a.id = e.asset_id WHERE a.name = ? ORDER BY e.id",
        ASSET,
    )
    extras = [json.loads(row["extra"]) if isinstance(row["extra"], str) else row["extra"] for row in rows]
    return [extra["payload"] for extra in extras]


def names(airflow: AirflowEnv, prefix: str) -> list[str]:
    return [payload["submission_id"] for payload in told(airflow) if payload["submission_id"].startswith(prefix)]


def begin(airflow: AirflowEnv, **connection: Any) -> None:
    """Start the watcher anew, and wait until it has begun."""
    airflow.add_connection(CONNECTION, **connection)
    airflow.database.execute(f"DELETE FROM variable WHERE key LIKE '{PREFIX}%'")
    airflow.wait_dag(DAG)
    known = f"SELECT 1 FROM variable WHERE key LIKE '{PREFIX}%'"
    wait(lambda: airflow.query(known), 120, lambda: f"the watcher did not begin\n{airflow.outputs()}")


def wait_told(airflow: AirflowEnv, prefix: str, number: int) -> None:
    def told() -> bool:
        return len(set(names(airflow, prefix))) >= number

    wait(told, 120, lambda: f"{len(names(airflow, prefix))} of {number} were told\n{airflow.outputs()}")


def end_while_the_triggerer_is_killed(
    airflow: AirflowEnv, prefix: str, end: Callable[[int], None], number: int, kills: int
) -> None:
    """
    End jobs one after the other, and kill the triggerer in between, each time while events are on their way.

    :param end: ends the job with this number.
    :param kills: how many times it is killed.
    """
    share = number // (kills + 1)
    for index in range(number):
        end(index)
        if index % share == share - 6 and index < kills * share:
            wait_told(airflow, prefix, len(names(airflow, prefix)) + 1)
            airflow.kill_process("triggerer", signal.SIGKILL)
        elif index % share == share - 1 and index < kills * share:  # five have ended meanwhile
            airflow.start_process("triggerer")


def assert_each_is_told_once(airflow: AirflowEnv, prefix: str, number: int) -> None:
    wait_told(airflow, prefix, number)
    time.sleep(8)  # for those that would be told twice
    assert sorted(names(airflow, prefix)) == sorted(f"{prefix}{index}" for index in range(number))


@pytest.mark.alone
def test_each_end_is_told_once_while_the_triggerer_is_killed(
    airflow_env: AirflowEnv, scripted_ray: ScriptedRay
) -> None:
    scripted_ray.add_job("before", "SUCCEEDED", metadata=TEAM)
    scripted_ray.add_job("j0", "RUNNING", metadata={**TEAM, "number": "0"})
    begin(airflow_env, conn_type="ray_jobs", host=scripted_ray.url)

    def end(index: int) -> None:
        scripted_ray.set_status(f"j{index}", "FAILED" if index % 10 == 0 else "SUCCEEDED")
        scripted_ray.add_job(f"other-{index}", "SUCCEEDED", metadata={"team": "another"})
        scripted_ray.add_job(f"j{index + 1}", "RUNNING", metadata={**TEAM, "number": str(index + 1)})
        time.sleep(0.05)

    end_while_the_triggerer_is_killed(airflow_env, "j", end, 100, kills=2)
    assert_each_is_told_once(airflow_env, "j", 100)
    payloads = told(airflow_env)
    assert {payload["status"] for payload in payloads} == {"SUCCEEDED", "FAILED"}
    assert {payload["metadata"]["number"] for payload in payloads} == {str(index) for index in range(100)}
    runs = airflow_env.query("SELECT count(*) AS number FROM dag_run WHERE dag_id = ?", DAG)
    assert runs[0]["number"] >= 1


@pytest.mark.alone
@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_each_end_on_a_real_head_is_told_once(airflow_env: AirflowEnv, ray_head: RayHead) -> None:
    begin(airflow_env, **ray_head.connection())

    def end(index: int) -> None:
        ray_head.submit("true", submission_id=f"real-{index}", metadata={**TEAM, "number": str(index)})
        if index % 4 == 3:  # several run at the same time
            ray_head.wait_job(f"real-{index}")

    end_while_the_triggerer_is_killed(airflow_env, "real-", end, 100, kills=4)
    assert_each_is_told_once(airflow_env, "real-", 100)

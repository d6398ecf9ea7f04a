"""The commands without ``airflow``: ``python -m airflow_provider_rayjobs``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.command_line import MODULE, Done, environment, finish, start

if TYPE_CHECKING:
    from tests.support.scripted_server import ScriptedRay


def test_a_start_of_its_own_writes_nothing_else(scripted_ray: ScriptedRay) -> None:
    # Without the variable Airflow 2.11 warns in every process that imports it.
    env = environment(scripted_ray.url, AIRFLOW__METRICS__TIMER_UNIT_CONSISTENCY="True")
    assert finish(start(scripted_ray.url, "list", program=MODULE, env=env)) == Done(0, "", "No jobs found\n")

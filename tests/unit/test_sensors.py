"""Sensors: what they wait for, what ends the wait, and what is left behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_rayjobs.sensors import RESOURCE_FIELDS, RayClusterSensor, RayJobSensor
from airflow_provider_rayjobs.tasks import arguments
from tests.support.rendering import BOTH, Instance, rendered

if TYPE_CHECKING:
    from tests.support.scripted_server import ScriptedRay


@BOTH
def test_the_cluster_sensor_takes_templates_as_the_operator_does(native: bool) -> None:
    assert set(RESOURCE_FIELDS) < set(RayClusterSensor.template_fields)
    sensor = rendered(
        lambda: RayClusterSensor(
            task_id="t",
            entrypoint_num_cpus="{{ n }}",
            entrypoint_num_gpus="{{ nothing }}",
            entrypoint_memory="{{ half * 1024 }}",
            entrypoint_resources={"TPU": "{{ half }}"},
        ),
        native=native,
    )
    assert arguments.checked_fields(sensor, RESOURCE_FIELDS) == {
        "entrypoint_num_cpus": 3,
        "entrypoint_memory": 512,
        "entrypoint_resources": {"TPU": 0.5},
    }


def test_a_wrong_amount_of_the_sensor_is_named_when_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", '{"conn_type": "ray_jobs", "host": "127.0.0.1", "port": 1}')
    with pytest.raises(TypeError, match="entrypoint_num_cpus must be a number, not 'many'"):
        RayClusterSensor(task_id="t", entrypoint_num_cpus="many")
    sensor = rendered(lambda: RayClusterSensor(task_id="t", entrypoint_num_cpus="{{ version }}x"), native=False)
    dag_run = SimpleNamespace(start_date=None)
    with pytest.raises(AirflowFailException, match=r"entrypoint_num_cpus must be a number, not '3\.10x'"):
        sensor.execute({"ti": Instance(), "dag_run": dag_run})


def test_a_sensor_registers_the_secrets_of_the_job_whose_error_it_tells(
    conn_id: str, scripted_ray: ScriptedRay
) -> None:
    scripted_ray.add_job(
        "j3", "FAILED", message="it said sec-90de12", runtime_env={"env_vars": {"API_TOKEN": "sec-90de12"}}
    )
    sensor = RayJobSensor(task_id="s", submission_id="j3", ray_conn_id=conn_id)
    with pytest.raises(AirflowFailException) as caught:
        sensor.poke({})
    assert "it said ***" in str(caught.value)

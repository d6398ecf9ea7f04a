"""Sensors in every mode, and operators that stop and delete, for the jobs in the run's conf."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.operators import RayDeleteJobOperator, RayStopJobOperator
from airflow_provider_rayjobs.sensors import RayClusterSensor, RayJobSensor

MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke", "poke_interval": 2},
    # Airflow fails a task that is rescheduled before the scheduler has processed the previous reschedule.
    "reschedule": {"mode": "reschedule", "poke_interval": 20},
    "deferred": {"deferrable": True, "poke_interval": 2},
}


def named(name: str) -> str:
    """Return the template of a submission id in the run's conf."""
    return "{{ dag_run.conf['" + name + "'] }}"


with DAG("rj_sensors", schedule=None, max_active_tasks=64):
    stop = RayStopJobOperator(task_id="stop", submission_id=named("blocking"), trigger_rule="all_done")
    for name, mode in MODES.items():
        RayJobSensor(task_id=f"ends_{name}", submission_id=named("short"), timeout=240, **mode)
        RayJobSensor(task_id=f"fails_{name}", submission_id=named("failing"), timeout=240, **mode)
        RayJobSensor(task_id=f"skips_{name}", submission_id=named("failing"), timeout=240, soft_fail=True, **mode)
        RayJobSensor(
            task_id=f"wants_{name}",
            submission_id=named("failing"),
            target_statuses=["FAILED", "STOPPED"],
            timeout=240,
            **mode,
        )
        RayJobSensor(task_id=f"late_{name}", submission_id="nobody-submits-this", timeout=5, **mode)
        RayClusterSensor(task_id=f"cluster_{name}", timeout=240, **mode)
        full = RayClusterSensor(task_id=f"full_{name}", entrypoint_num_cpus=1, timeout=20, **mode)
        full.set_downstream(stop)

    RayDeleteJobOperator(task_id="delete", submission_id=named("failing"), trigger_rule="all_done").set_upstream(
        [stop, *[f for f in stop.dag.tasks if f.task_id.startswith(("fails", "skips", "wants"))]]
    )

with DAG("rj_killed_sensor", schedule=None):
    RayClusterSensor(task_id="job", entrypoint_num_cpus=1, deferrable=True, poke_interval=1)

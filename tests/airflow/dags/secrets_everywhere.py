"""Jobs that print the secrets that they are given."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.sensors import RayJobSensor

#: Prints each secret of the job, and fails with an error that contains them.
TELL = 'echo $API_TOKEN; echo $PLAIN_NAME; echo dsn=$DSN; sleep 4; python -c \'import os; raise ValueError(str({k: v for k, v in os.environ.items() if k in ("API_TOKEN", "PLAIN_NAME", "DSN")}))\''  # noqa: E501

JOB: dict[str, Any] = {
    "entrypoint": TELL,
    "runtime_env": {"env_vars": {"API_TOKEN": "{{ var.value.first }}", "SIZE": "{{ 'x' * params.size }}"}},
    "secret_env_vars": {"PLAIN_NAME": "{{ var.value.second }}", "DSN": "{{ var.value.third }}"},
    "ray_conn_id": "ray_secret",
}

for deferrable in (False, True):
    for size in (1, 6000):  # Airflow truncates the larger rendered field
        with DAG(f"rj_secrets_{deferrable}_{size}", schedule=None, params={"size": size}):
            RaySubmitJobOperator(task_id="job", deferrable=deferrable, **JOB)

with DAG("rj_secrets_mapped", schedule=None, params={"size": 1}):
    RaySubmitJobOperator.partial(task_id="job", deferrable=True, **JOB).expand(metadata=[{"n": "1"}])

with DAG("rj_secrets_sensor", schedule=None):
    for deferrable in (False, True):
        RayJobSensor(
            task_id=f"sensor_{deferrable}",
            submission_id="{{ dag_run.conf['job'] }}",
            ray_conn_id="ray_secret",
            deferrable=deferrable,
        )

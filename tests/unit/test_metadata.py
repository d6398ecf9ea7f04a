"""The keys in a job's metadata: jobs on record have them, so they stay."""

from __future__ import annotations

from airflow_provider_rayjobs import metadata

KEYS = {
    "SUBMISSION": "airflow_submission",
    "CALL": "airflow_call",
    "SECRET_ENV_VARS": "airflow_secret_env_vars",
    "RESOURCES": "airflow_resources",
    "TASK": "airflow_task",
    "DEPLOYMENT": "airflow_deployment",
    "DAG_ID": "airflow_dag_id",
    "RUN_ID": "airflow_run_id",
    "TASK_ID": "airflow_task_id",
    "MAP_INDEX": "airflow_map_index",
    "TRY_NUMBER": "airflow_try_number",
    "MAX_TRIES": "airflow_max_tries",
    "RUN_STARTED": "airflow_run_started",
    "NUMBER": "airflow_submission_number",
}


def test_the_keys_are_those_that_jobs_on_record_have() -> None:
    found = {name: value for name, value in vars(metadata).items() if name.isupper()}
    assert found.pop("PREFIX") == "airflow_"
    assert found == KEYS


def test_every_key_has_the_prefix_that_authors_can_not_use() -> None:
    assert all(key.startswith(metadata.PREFIX) for key in KEYS.values())
    assert len(set(KEYS.values())) == len(KEYS)

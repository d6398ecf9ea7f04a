"""Keys that the provider writes into a job's metadata."""

from __future__ import annotations

#: Users can't set metadata keys with this prefix.
PREFIX = "airflow_"

#: Identifies one submission, which recognizes its own job by it after a lost answer.
SUBMISSION = "airflow_submission"

#: SHA-256 of the file with a function's arguments, by which the job knows its own.
CALL = "airflow_call"

#: Names of the job's secret environment variables, separated by commas; their values are masked in the job's log.
SECRET_ENV_VARS = "airflow_secret_env_vars"  # noqa: S105 - a name, not a secret

#: The resources that the entrypoint asks for, as a JSON object with Ray's names; only if it asks for some.
RESOURCES = "airflow_resources"

#: Digest of the task instance, without its try number.
TASK = "airflow_task"

#: The task instance, its try, and the start of its DAG run.
DEPLOYMENT = "airflow_deployment"
DAG_ID = "airflow_dag_id"
RUN_ID = "airflow_run_id"
TASK_ID = "airflow_task_id"
MAP_INDEX = "airflow_map_index"
TRY_NUMBER = "airflow_try_number"
MAX_TRIES = "airflow_max_tries"
RUN_STARTED = "airflow_run_started"

#: Number of the submission within its try; the first submission has no such key.
NUMBER = "airflow_submission_number"

"""The arguments of a job, as a submission and as an operator have them."""

from __future__ import annotations

from typing import Any

from airflow_provider_rayjobs.tasks.arguments import JobArguments

#: Each field of a job, with a value that is taken.
RIGHT: dict[str, Any] = {
    "entrypoint": "python x.py",
    "submission_id": "a-B_1.2",
    "metadata": {"owner": "me"},
    "runtime_env": {"env_vars": {"K": "v"}, "working_dir": "s3://b/a.zip", "py_modules": ["gcs://m.zip"]},
    "entrypoint_num_cpus": 0.5,
    "entrypoint_num_gpus": 0,
    "entrypoint_memory": 1024,
    "entrypoint_resources": {"TPU": 1},
    "entrypoint_label_selector": {"zone": "a"},
}


def operator(**fields: Any) -> JobArguments:
    """Return an operator's arguments."""
    return JobArguments(**{"entrypoint": "true"} | fields)

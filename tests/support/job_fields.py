"""The arguments of a job, as a submission and as an operator have them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

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


def operator(**fields: Any) -> SimpleNamespace:
    """Return what is read of an operator."""
    given = dict.fromkeys(RIGHT) | {"entrypoint": "true", "poll_interval": 30.0, "secret_env_vars": None}
    return SimpleNamespace(**given | {"job_timeout": None, "pending_timeout": None} | fields)

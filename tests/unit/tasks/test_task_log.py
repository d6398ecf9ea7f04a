"""What the task log says of a submission."""

from __future__ import annotations

from typing import Any

from airflow_provider_rayjobs.tasks.task_log import submission_lines


def test_what_was_submitted_is_told_without_secrets() -> None:
    job: dict[str, Any] = {
        "entrypoint": ["python", "a b.py", "--key=hidden"],
        "submission_id": "j1",
        "metadata": {"m": "1"},
        "entrypoint_num_cpus": 2,
        "entrypoint_num_gpus": None,
        "entrypoint_resources": {},
        "runtime_env": {
            "working_dir": "gcs://_ray_pkg_1.zip",
            "env_vars": {"MODE": "fast"},
            "pip": ['--index-url="https://me:w@rd@pypi.example.com/simple?key=k"', "x"],
        },
    }
    assert submission_lines(job, lambda text: text.replace("hidden", "***")) == [
        "entrypoint: python 'a b.py' --key=***",
        "entrypoint_num_cpus: 2",
        'runtime_env: {"working_dir": "gcs://_ray_pkg_1.zip", "env_vars": {"MODE": "***"}, '
        '"pip": ["--index-url=\\"https://***@pypi.example.com/simple?***\\"", "x"]}',
    ]
    assert job["runtime_env"]["env_vars"] == {"MODE": "fast"}

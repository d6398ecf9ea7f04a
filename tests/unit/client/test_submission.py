"""Submissions: the body that is sent, and how a job is recognized again."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_rayjobs.client.submission import Submission


def test_fields_that_are_not_set_are_not_sent() -> None:
    small = Submission("true", "a").request().json
    assert small == {"entrypoint": "true", "submission_id": "a", "metadata": {}}
    whole: dict[str, Any] = {
        "entrypoint": "true",
        "submission_id": "a",
        "runtime_env": {"pip": ["x"]},
        "metadata": {"k": "v"},
        "entrypoint_num_cpus": 0,
        "entrypoint_num_gpus": 0.5,
        "entrypoint_memory": 1,
        "entrypoint_resources": {"r": 1.0},
        "entrypoint_label_selector": {"zone": "a"},
    }
    assert json.loads(json.dumps(Submission(**whole).request().json)) == whole


def test_env_vars_show_in_no_repr() -> None:
    submission = Submission("true", "a", runtime_env={"env_vars": {"K": "hush-hush"}})
    assert "hush-hush" not in repr(submission) + repr(submission.request())
    assert submission.request().secrets == ("hush-hush",)

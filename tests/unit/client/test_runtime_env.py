"""What is known of a ``runtime_env`` without its files; ``test_checks`` holds what is refused, and the messages."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pytest

from airflow_provider_rayjobs.client.runtime_env import (
    KNOWN_KEYS,
    check_runtime_env,
    expanded_on_the_node,
    is_uri,
    public_runtime_env,
    unknown_keys,
)


@pytest.mark.parametrize(
    ("value", "uri"),
    [
        ("s3://b/a.zip", True),
        ("https://x/y.zip", True),
        ("gcs://_ray_pkg_1.zip", True),
        ("local:///opt/code", True),
        ("file:///nfs/a.zip", True),
        ("S3://b/a.zip", True),
        ("/opt/code", False),
        (".", False),
        ("code/s3:/x", False),
        ("hdfs://b/a.zip", False),
        ("c:/code", False),
        ("", False),
    ],
)
def test_a_uri_is_told_from_a_local_path(value: str, uri: bool) -> None:
    assert is_uri(value) is uri


def test_keys_that_ray_does_not_know_are_listed_in_order() -> None:
    assert unknown_keys({"my_plugin": 1, "env_vars": {}, "a_plugin": 2}) == ["a_plugin", "my_plugin"]
    assert unknown_keys(dict.fromkeys(KNOWN_KEYS)) == []


def test_what_is_shown_holds_no_value_of_a_variable_and_no_login() -> None:
    given = {
        "env_vars": {"A": "hush", "B": "hush"},
        "pip": ["--extra-index-url=https://me:hush@pypi.example/simple", "x==1"],
        "working_dir": "https://b/a.zip?token=hush",
    }
    shown = public_runtime_env(given)
    assert "hush" not in str(shown)
    assert shown["env_vars"] == {"A": "***", "B": "***"}
    assert shown["pip"][1] == "x==1"
    assert given["env_vars"] == {"A": "hush", "B": "hush"}
    assert public_runtime_env({"env_vars": "wrong"}) == {"env_vars": "wrong"}


@pytest.mark.parametrize(
    ("value", "expanded"),
    [("$HOME", True), ("${HOME}/x", True), ("a$1", True), ("5$", False), ("$ x", False), ("$-", False), ("", False)],
)
def test_what_ray_expands_on_the_node_is_known(value: str, expanded: bool) -> None:
    assert expanded_on_the_node(value) is expanded


@pytest.mark.parametrize(
    "runtime_env",
    [
        {},
        {"working_dir": PurePosixPath("/code"), "py_modules": [PurePosixPath("m"), "s3://b/a.whl"]},
        {"working_dir": "https://user:pass@host/a.zip?x=y#z"},
        {"uv": "requirements.txt", "pip": None},
        {"pip": {"packages": "requirements.txt", "pip_version": "==24"}},
        {"conda": {"dependencies": []}},
        {"my_plugin": {"a": [1, None, True]}},
        {"config": {"log_files": ["a"], "setup_timeout_seconds": 1}},
        {"pip": [], "uv": ["a"]},
    ],
)
def test_what_ray_takes_is_not_refused(runtime_env: dict[str, Any]) -> None:
    check_runtime_env(runtime_env)

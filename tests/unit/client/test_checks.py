"""What is refused before it is sent, by name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from airflow_provider_rayjobs.client import checks
from airflow_provider_rayjobs.client.submission import Submission
from tests.support.job_fields import RIGHT, operator

#: Each field of a job, a value that is wrong, and the message.
WRONG: list[tuple[str, Any, type[Exception], str]] = [
    ("entrypoint", "", ValueError, "entrypoint is empty"),
    ("entrypoint", "  ", ValueError, "entrypoint is empty"),
    ("entrypoint", 5, TypeError, "entrypoint must be a string"),
    ("entrypoint", "x" * 131_072, ValueError, "entrypoint has 131,072 bytes; on Linux"),
    ("entrypoint", ["echo", "ü" * 70_000], ValueError, "entrypoint has 140,007 bytes"),
    (
        "runtime_env",
        {"env_vars": {"BIG": "x" * 131_068}},
        ValueError,
        "runtime_env['env_vars']['BIG'] has 131,072 bytes with its name; on Linux, an environment variable has at most",
    ),
    ("submission_id", "a/b", ValueError, "submission_id 'a/b' must contain only"),
    ("submission_id", 5, TypeError, "submission_id must be a string, not 5"),
    ("metadata", [], TypeError, "metadata must be a dict"),
    ("metadata", {"k": 1}, TypeError, "metadata['k'] must be a string, not int; convert it with str(...)"),
    ("metadata", {1: "v"}, TypeError, "metadata has the key 1"),
    ("runtime_env", "x", TypeError, "runtime_env must be a dict"),
    ("runtime_env", {"env_vars": {"K": 1}}, TypeError, "runtime_env['env_vars']['K'] must be a string"),
    ("runtime_env", {"env_vars": ["K"]}, TypeError, "runtime_env['env_vars'] must be a dict"),
    ("runtime_env", {1: "x"}, TypeError, "runtime_env has the key 1"),
    ("runtime_env", {"working_dir": 5}, TypeError, "runtime_env['working_dir'] must be a path or a URI, not int"),
    ("runtime_env", {"working_dir": " "}, ValueError, "runtime_env['working_dir'] contains an empty path"),
    (
        "runtime_env",
        {"working_dir": "hdfs://b/a.zip"},
        ValueError,
        "runtime_env['working_dir']: Ray does not support hdfs://",
    ),
    (
        "runtime_env",
        {"working_dir": "s3://b/a.jar?k=secret"},
        ValueError,
        "Ray unpacks only .zip, .tar.gz, .tgz, .tar.xz, not",
    ),
    ("runtime_env", {"working_dir": "local://code"}, ValueError, "write local:// and the absolute path of a folder"),
    ("runtime_env", {"py_modules": ["local:///a.whl"]}, ValueError, "runtime_env['py_modules'] is 'local:///a.whl'"),
    ("runtime_env", {"working_dir": "s3://b/a.whl"}, ValueError, "not 'a.whl'"),
    (
        "runtime_env",
        {"py_modules": ["s3://b/a.zip", 5]},
        TypeError,
        "runtime_env['py_modules'] must be a path or a URI",
    ),
    ("runtime_env", {"java_jars": ["/a.jar"]}, ValueError, "runtime_env['java_jars'] contains the local path '/a.jar'"),
    ("runtime_env", {"excludes": "*.log"}, TypeError, "runtime_env['excludes'] must be a list of strings, not str"),
    ("runtime_env", {"pip": [1]}, TypeError, "runtime_env['pip'] must be a list of strings"),
    ("runtime_env", {"pip": 1}, TypeError, "runtime_env['pip'] must be a list of packages, the path of a"),
    (
        "runtime_env",
        {"pip": {"package": ["a"]}},
        ValueError,
        "runtime_env['pip'] has the unknown field 'package'; known are pack",
    ),
    ("runtime_env", {"pip": {"pip_check": True}}, ValueError, "runtime_env['pip'] needs the field 'packages'"),
    (
        "runtime_env",
        {"pip": {"packages": [], "pip_check": 1}},
        TypeError,
        "runtime_env['pip']['pip_check'] must be a bool",
    ),
    ("runtime_env", {"uv": {"packages": "r.txt"}}, ValueError, "runtime_env['uv']['packages'] must be a list, not str"),
    ("runtime_env", {"uv": ["a"], "pip": ["b"]}, ValueError, "runtime_env must not contain 'pip' and 'uv' together"),
    ("runtime_env", {"conda": ["a"]}, TypeError, "runtime_env['conda'] must be a string or a dict, not list"),
    (
        "runtime_env",
        {"config": {"setup_timeout_seconds": 0}},
        ValueError,
        "runtime_env['config']: setup_timeout_seconds",
    ),
    (
        "runtime_env",
        {"config": {"eager_install": 1}},
        TypeError,
        "runtime_env['config'] must be a dict whose eager_install",
    ),
    (
        "runtime_env",
        {"worker_process_setup_hook": print},
        ValueError,
        "runtime_env['worker_process_setup_hook'] must be",
    ),
    (
        "runtime_env",
        {"image_uri": "a", "pip": ["b"]},
        ValueError,
        "runtime_env must not contain 'image_uri' together with 'pip'",
    ),
    ("runtime_env", {"my_plugin": object()}, TypeError, "runtime_env['my_plugin'] can't be written as JSON"),
    ("runtime_env", {"py_modules": "s3://b/a.zip"}, TypeError, "runtime_env['py_modules'] must be a list"),
    ("entrypoint", "a\0b", ValueError, "entrypoint must not contain NUL"),
    ("entrypoint", "\ud800", ValueError, "entrypoint must not contain NUL or lone surrogates"),
    ("submission_id", "a" * 241, ValueError, "submission_id must have at most 240 characters, not 241"),
    ("runtime_env", {"env_vars": {"": "x"}}, ValueError, "runtime_env['env_vars'] has the key ''"),
    ("runtime_env", {"env_vars": {"A=B": "x"}}, ValueError, "runtime_env['env_vars'] has the key 'A=B'"),
    ("runtime_env", {"env_vars": {"A": "x\0"}}, ValueError, "runtime_env['env_vars']['A'] must not contain NUL"),
    ("runtime_env", {"pip": ["a"], "conda": "b"}, ValueError, "must not contain 'conda' and 'pip' together"),
    ("runtime_env", {"image_uri": "i", "pip": ["a"]}, ValueError, "must not contain 'image_uri' together with 'pip'"),
    (
        "runtime_env",
        {"container": {"image": "i"}, "uv": ["a"]},
        ValueError,
        "must not contain 'container' together with 'uv'",
    ),
    ("runtime_env", {"worker_process_setup_hook": 5}, ValueError, "['worker_process_setup_hook'] must be the name"),
    ("runtime_env", {"excludes": "*.log"}, TypeError, "runtime_env['excludes'] must be a list of strings"),
    ("runtime_env", {"config": 5}, TypeError, "runtime_env['config'] must be a dict, not int"),
    ("runtime_env", {"config": {"setup_timeout_seconds": "5"}}, TypeError, "setup_timeout_seconds is a whole number"),
    (
        "runtime_env",
        {"config": {"setup_timeout_seconds": 0}},
        ValueError,
        "setup_timeout_seconds is 0; it must be positive",
    ),
    ("runtime_env", {"config": {"eager_install": 1}}, TypeError, "eager_install is true or false"),
    ("entrypoint_num_gpus", 1.5, ValueError, "entrypoint_num_gpus is 1.5; above 1 it must be a whole number"),
    (
        "entrypoint_resources",
        {"CPU": 1},
        ValueError,
        "entrypoint_resources must not contain 'CPU'; use entrypoint_num_cpus",
    ),
    (
        "entrypoint_resources",
        {"GPU": 1},
        ValueError,
        "entrypoint_resources must not contain 'GPU'; use entrypoint_num_gpus",
    ),
    (
        "entrypoint_resources",
        {"memory": 1},
        ValueError,
        "entrypoint_resources must not contain 'memory'; use entrypoint_memory",
    ),
    ("entrypoint_num_cpus", "many", TypeError, "entrypoint_num_cpus must be a number, not 'many' (str)"),
    ("entrypoint_num_cpus", True, TypeError, "entrypoint_num_cpus must be a number"),
    ("entrypoint_num_gpus", -0.5, ValueError, "entrypoint_num_gpus is -0.5; it must be finite and not negative"),
    ("entrypoint_num_gpus", math.nan, ValueError, "entrypoint_num_gpus is nan"),
    ("entrypoint_memory", math.inf, TypeError, "entrypoint_memory must be a whole number"),
    ("entrypoint_memory", 1.5, TypeError, "entrypoint_memory must be a whole number"),
    ("entrypoint_resources", ["x"], TypeError, "entrypoint_resources must be a dict"),
    ("entrypoint_resources", {7: 1}, TypeError, "entrypoint_resources has the key 7"),
    ("entrypoint_resources", {"x": "one"}, TypeError, "entrypoint_resources['x'] must be a number"),
    ("entrypoint_resources", {"x": -1}, ValueError, "entrypoint_resources['x'] is -1"),
    ("entrypoint_label_selector", {"zone": 1}, TypeError, "entrypoint_label_selector['zone'] must be a string"),
]


@pytest.mark.parametrize(("name", "value", "kind", "words"), WRONG)
def test_a_wrong_field_is_named_by_the_hook_and_when_a_dag_is_parsed(
    name: str, value: Any, kind: type[Exception], words: str
) -> None:
    fields = {"entrypoint": "true", "submission_id": "a"}
    with pytest.raises(kind) as by_hook:
        checks.check_submission(Submission(**fields | {name: value}))
    with pytest.raises(kind) as by_operator:
        operator(**{name: value}).check()
    assert words in str(by_hook.value)
    assert words in str(by_operator.value)


def test_what_is_right_passes() -> None:
    checks.check_submission(Submission(**RIGHT))
    operator(**RIGHT).check()
    operator(entrypoint=["python", "x y.py", ""]).check()


def test_an_author_may_not_use_the_providers_metadata_keys_but_the_provider_may() -> None:
    metadata = {"airflow_task": "x"}
    with pytest.raises(ValueError, match="keys that begin with 'airflow_' are reserved for the provider"):
        operator(metadata=metadata).check()
    checks.check_submission(Submission("true", "a", metadata=metadata))


@pytest.mark.parametrize(
    ("runtime_env", "metadata", "largest"),
    [
        ({"env_vars": {"A": "x" * 70_000, "B": "y" * 70_001}}, {}, "runtime_env['env_vars']['B'] with 70,003"),
        ({"env_vars": {"A": '"' * 70_000}}, {}, "runtime_env['env_vars']['A'] with 140,002"),
        ({"excludes": ["x" * 140_000]}, {}, "runtime_env['excludes'] with 140,004"),
        ({"env_vars": {"A": "x" * 60_000}}, {"m": "é" * 15_000}, "metadata['m'] with 90,002"),
    ],
)
def test_what_ray_can_not_pass_to_a_process_is_refused(runtime_env: Any, metadata: Any, largest: str) -> None:
    with pytest.raises(ValueError, match="as JSON, but Ray can pass at most 130,047") as caught:
        checks.check_submission(Submission("true", "a", runtime_env=runtime_env, metadata=metadata))
    assert f"the largest part is {largest}. Put large values into a file" in str(caught.value)


def test_what_just_fits_is_taken() -> None:
    runtime_env = {"env_vars": {"A": "x" * 65_000, "B": "y" * 64_000}}
    checks.check_submission(Submission("true #" + "x" * 131_065, "a", runtime_env=runtime_env, metadata={"a": "b"}))

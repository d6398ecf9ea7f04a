"""A prepared runtime_env, or the class of its error, is the same as with Ray's own client."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.packaging.stores import ClusterStore
from airflow_provider_rayjobs.packaging.upload import prepare_runtime_env
from tests.support import environment
from tests.support.ray_head import CLIENT_FOLLOWED, require_ray_since

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("runtime_env_like_ray")]

WHY = "compared with the newest version of Ray's client"

#: Prepares each runtime_env of a list like ``JobSubmissionClient.submit_job``, but uploads nothing.
RAY = """
import copy, json, sys
from ray.runtime_env import RuntimeEnv
from ray.runtime_env.runtime_env import _validate_no_local_paths
from ray._private.runtime_env.working_dir import upload_working_dir_if_needed
from ray._private.runtime_env.py_modules import upload_py_modules_if_needed
found = []
for given in json.load(sys.stdin):
    try:
        upload_working_dir_if_needed(given, True, upload_fn=lambda *a, **k: None)
        upload_py_modules_if_needed(given, True, upload_fn=lambda *a, **k: None)
        hook = given.get("worker_process_setup_hook")
        if hook and not isinstance(hook, str):
            raise ValueError(hook)
        made = RuntimeEnv(**given)
        _validate_no_local_paths(made)
        made = made.to_dict()
        made.pop("_ray_commit", None)  # not used by Ray
        found.append(made)
    except (TypeError, ValueError) as e:
        found.append("TypeError" if isinstance(e, TypeError) else "ValueError")
print(json.dumps(found))
"""

CASES: list[dict[str, Any]] = [
    {},
    {"pip": "req.txt"},
    {"pip": "none.txt"},
    {"pip": ["a", "a"]},
    {"pip": []},
    {"pip": 5},
    {"pip": [5]},
    {"pip": {"packages": "req.txt"}},
    {"pip": {"packages": ["a"], "pip_version": "==1"}},
    {"pip": {"packages": ["a"], "pip_check": "x"}},
    {"pip": {"packages": 5}},
    {"pip": {"x": 1}},
    {"uv": "req.txt"},
    {"uv": ["a"]},
    {"uv": []},
    {"uv": {"packages": ["a"], "uv_check": True}},
    {"uv": {"packages": "req.txt"}},
    {"uv": {"packages": [5]}},
    {"conda": "env.yml"},
    {"conda": "none.yml"},
    {"conda": "name"},
    {"conda": "/tmp"},
    {"conda": "/no/such"},
    {"conda": {"dependencies": ["a"]}},
    {"conda": 5},
    {"pip": ["a"], "conda": "x"},
    {"config": {"setup_timeout_seconds": 5}},
    {"config": {"eager_install": False, "unknown": 1}},
    {"config": {"setup_timeout_seconds": 0}},
    {"config": {"setup_timeout_seconds": "5"}},
    {"config": {"log_files": "x"}},
    {"config": 5},
    {"env_vars": {}},
    {"env_vars": {"A": "b"}},
    {"env_vars": {"A": 1}},
    {"env_vars": ["a"]},
    {"excludes": []},
    {"excludes": ["a"]},
    {"excludes": "x"},
    {"working_dir": "s3://a/b.zip"},
    {"working_dir": "https://h/b.tar.gz?x=1"},
    {"working_dir": "gcs://b.zip"},
    {"working_dir": "local:///x"},
    {"working_dir": "s3://a/b.jar"},
    {"working_dir": "s3://a/b"},
    {"working_dir": "hdfs://b.zip"},
    {"working_dir": "/no/such"},
    {"working_dir": "req.txt"},
    {"working_dir": 5},
    {"py_modules": ["s3://a/b.whl", "gcs://c.zip"]},
    {"py_modules": ["s3://a/b.py"]},
    {"py_modules": ["/no/such"]},
    {"py_modules": [5]},
    {"py_modules": "x"},
    {"py_modules": []},
    {"container": {"image": "x"}, "pip": ["a"]},
    {"image_uri": "x", "env_vars": {"A": "b"}},
    {"image_uri": "x", "working_dir": "s3://a/b.zip"},
    {"nsight": "default"},
    {"worker_process_setup_hook": "a.b"},
    {"worker_process_setup_hook": 5},
    {"py_executable": "python -x"},
    {"java_jars": ["s3://a.jar"]},
    {"my_plugin": {"a": 1}},
]


def by_us(given: dict[str, Any]) -> Any:
    try:
        return dict(prepare_runtime_env(given, ClusterStore(lambda flow: True, 0, "here")))
    except (TypeError, ValueError) as e:
        return "TypeError" if isinstance(e, TypeError) else "ValueError"


def test_every_kind_of_runtime_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "req.txt").write_text("a==1\n# b\n\nc\na==1\n")
    (tmp_path / "none.txt").write_text("")
    (tmp_path / "env.yml").write_text("dependencies: [pip, {pip: [x]}]\n")
    monkeypatch.chdir(tmp_path)
    env = environment.for_programs()
    command = [require_ray_since(CLIENT_FOLLOWED, WHY).parent / "python", "-c", RAY]
    done = subprocess.run(command, input=json.dumps(CASES), capture_output=True, text=True, check=True, env=env)
    wanted = json.loads(done.stdout.splitlines()[-1])
    assert len(wanted) == len(CASES)
    assert [(case, by_us(case)) for case in CASES] == list(zip(CASES, wanted, strict=True))

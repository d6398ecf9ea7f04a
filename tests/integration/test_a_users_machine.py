"""Heads on the machine of a Ray user, who has a token in their home and settings in their shell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ray_head import RayHead, require_ray

# Tests with their own heads run one at a time.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900), pytest.mark.xdist_group("heads")]

ROOT = Path(__file__).parents[2]

#: Starts the head of `make demo`, which must run a job that uses Ray.
LOCAL_RAY = """
import sys, urllib.error
from pathlib import Path
from local_ray import LocalRay
ray = LocalRay(Path(sys.argv[1]))
try:
    ray.start()
    ray.wait_ready(240)
    ray.request("POST", "/api/jobs/", {"entrypoint": "python -c 'import ray; ray.init()'", "submission_id": "mine"})
    while ray.jobs()["mine"] in ("PENDING", "RUNNING"):
        pass
    print(ray.jobs())
finally:
    ray.stop()
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set this user's environment for this process; return their home."""
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("0123456789abcdef0123456789abcdef\n")
    (home / ".netrc").write_text("default login somebody password theirs\n")
    (home / ".netrc").chmod(0o600)
    settings = {
        "HOME": str(home),
        "RAY_ADDRESS": "http://127.0.0.1:9",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home / "no-such-file"),
        "RAY_TMPDIR": str(home / "no-such-folder"),
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "PIP_TARGET": str(home / "target"),
        "PIP_USER": "1",
        "TMPDIR": str(home / "a-folder-whose-path-is-too-long-for-sockets" / ("x" * 100)),
        "PYTHONWARNINGS": "error",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return home


def left(home: Path) -> set[str]:
    """Return the files in the home, without caches."""
    names = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith(".cache/")}


def test_the_head_of_the_demo(machine: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r})\n{LOCAL_RAY}"
    command = [sys.executable, "-E", "-c", code, require_ray().parent]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'mine': 'SUCCEEDED'}\n"
    assert left(machine) == {".netrc", ".ray/auth_token"}


def test_a_head_of_the_tests_can_be_started_without_a_token(machine: Path) -> None:
    with RayHead(num_cpus=1, ray_bin=require_ray(), token="") as head:
        job = head.submit("python -c 'import ray; ray.init()'")
        assert head.wait_job(job)["status"] == "SUCCEEDED"
    assert left(machine) == {".netrc", ".ray/auth_token"}

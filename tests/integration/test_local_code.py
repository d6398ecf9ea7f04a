"""Local code on a real head: it arrives unchanged, and is uploaded only once."""

from __future__ import annotations

import json
import os
import zipfile
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.exceptions import RayPackageTooLargeError
from airflow_provider_rayjobs.hooks import RayJobHook
from tests.support.ray_head import MODES_SINCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ray_head import RayHead


@pytest.fixture
def hook(ray_head: RayHead, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayJobHook]:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(ray_head.connection(extra={"max_upload_size": 200})))
    hook = RayJobHook("ray_x")
    yield hook
    hook.close()


def wheel(folder: Path, value: int) -> Path:
    path = folder / "my_wheel-1.0-py3-none-any.whl"
    info = "my_wheel-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("my_wheel.py", f"X = {value}")
        made.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: my_wheel\nVersion: 1.0\n")
        made.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr(f"{info}/RECORD", "")
    return path


def test_files_modes_links_and_modules_arrive(hook: RayJobHook, ray_head: RayHead, tmp_path: Path) -> None:
    code = tmp_path / "code"
    (code / "empty").mkdir(parents=True)
    (code / ".git").mkdir()
    (code / ".git/config").write_text("")
    (code / "grüße.txt").symlink_to(tmp_path / "outside.txt")
    (tmp_path / "outside.txt").write_text("from outside\n" * 100)
    (code / "run.sh").write_text(
        # Printed with one command, because Ray's line about the entrypoint may come in between.
        "echo $(find . -mindepth 1 | sort) $(tail -1 grüße.txt)\n"
        "python -c 'import mod.sub, single, my_wheel; print(mod.sub.X, single.X, my_wheel.X)'\n"
    )
    (code / "run.sh").chmod(0o755)
    (tmp_path / "mod/sub").mkdir(parents=True)
    (tmp_path / "mod/sub/__init__.py").write_text("X = 1")
    (tmp_path / "single.py").write_text("X = 2")
    for value in (3, 4):  # another wheel with the same name and version
        modules = [str(tmp_path / "mod"), str(tmp_path / "single.py"), str(wheel(tmp_path, value))]
        entrypoint = "./run.sh" if ray_head.version >= MODES_SINCE else "sh run.sh"
        job = hook.submit_job(entrypoint=entrypoint, runtime_env={"working_dir": str(code), "py_modules": modules})
        assert ray_head.wait_job(job)["status"] == "SUCCEEDED", ray_head.logs(job)
        assert "./empty ./grüße.txt ./run.sh from outside" in ray_head.logs(job)
        assert f"1 2 {value}\n" in ray_head.logs(job)


def test_the_servers_limit_is_reported(hook: RayJobHook, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        for _ in range(101):
            file.write(os.urandom(2**20))
    with pytest.raises(RayPackageTooLargeError, match=r"refuses \(HTTP 413\).*large \(101.0 MiB\)"):
        hook.submit_job(entrypoint="true", runtime_env={"working_dir": str(tmp_path)})

"""Local code that reaches a real head through a folder that its nodes mount: of any size, unchanged, sent once."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.hooks import RayJobHook

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ray_head import RayHead

#: More than the 100 MiB that Ray's dashboard accepts, and than the 200 MiB of its store. `make storage`
#: sends 400 MB.
SIZE = 220 * 10**6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "packages"
    path.mkdir()
    return path


@pytest.fixture
def hook(ray_head: RayHead, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayJobHook]:
    extra = {"package_folder": f"file://{folder}"}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(ray_head.connection(extra=extra)))
    hook = RayJobHook("ray_x")
    yield hook
    hook.close()


def output(hook: RayJobHook, ray_head: RayHead, entrypoint: str, **runtime_env: object) -> str:
    job = hook.submit_job(entrypoint=entrypoint, runtime_env=runtime_env)
    assert ray_head.wait_job(job, timeout=200)["status"] == "SUCCEEDED", (ray_head.job(job), ray_head.logs(job))
    return ray_head.logs(job)


def test_more_code_than_fits_into_the_head(hook: RayJobHook, ray_head: RayHead, folder: Path, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    content = hashlib.sha256()
    with (code / "weights").open("wb") as file:
        for _ in range(SIZE // 10**6):
            content.update(piece := os.urandom(10**6))
            file.write(piece)
    assert content.hexdigest() in output(hook, ray_head, "sha256sum weights", working_dir=str(code))
    [package] = folder.iterdir()
    written = package.stat()
    assert written.st_size > SIZE
    assert content.hexdigest() in output(hook, ray_head, "sha256sum weights", working_dir=str(code))
    assert [*folder.iterdir()] == [package]
    assert package.stat() == written


def test_what_has_one_folder_at_its_top_keeps_it(
    hook: RayJobHook, ray_head: RayHead, folder: Path, tmp_path: Path
) -> None:
    """Ray removes the one folder at the top of an archive that it reads from a URI."""
    code = tmp_path / "code"
    (code / "only/empty").mkdir(parents=True)
    (code / "only/run.sh").write_text("echo it ran")
    with zipfile.ZipFile(tmp_path / "code.zip", "w") as archive:
        archive.write(code / "only", "only/")
        archive.write(code / "only/run.sh", "only/run.sh")
    (tmp_path / "mod/sub").mkdir(parents=True)
    (tmp_path / "mod/sub/__init__.py").write_text("X = 1")
    (tmp_path / "single.py").write_text("X = 2")
    modules = [str(tmp_path / "mod"), str(tmp_path / "single.py")]
    # Printed with one command, because Ray's line about the entrypoint may come in between.
    command = "echo $(ls only) $(sh only/run.sh) $(python -c 'import mod.sub, single; print(mod.sub.X, single.X)')"
    for working_dir in (code, tmp_path / "code.zip"):
        log = output(hook, ray_head, command, working_dir=str(working_dir), py_modules=modules)
        assert "run.sh it ran 1 2\n" in log
    if ray_head.version >= (2, 60):  # older ones unpack no tar file
        with tarfile.open(tmp_path / "code.tgz", "w:gz") as archive_of_tar:
            archive_of_tar.add(code / "only", "only")
        assert "it ran" in output(hook, ray_head, "sh only/run.sh", working_dir=str(tmp_path / "code.tgz"))
    assert len([*folder.iterdir()]) == (5 if ray_head.version >= (2, 60) else 4)

"""Folders: which files belong into a package, and what is left out."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from airflow_provider_rayjobs.exceptions import RayPackageError
from tests.support.packages import opened, packed


def test_links_are_followed_also_out_of_the_folder(source: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.txt").write_text("from outside")
    (source / "file").symlink_to(tmp_path / "outside/secret.txt")
    (source / "folder").symlink_to(tmp_path / "outside")
    with opened(packed(source)) as archive:
        assert archive.read("file") == archive.read("folder/secret.txt") == b"from outside"
        assert archive.getinfo("file").external_attr >> 28 == 0o10  # a regular file


def test_what_is_no_file_is_left_out_and_told(source: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = packed(source).name
    os.mkfifo(source / "pipe")
    (source / "lost").symlink_to("nowhere")
    (source / "self").symlink_to("self")
    (source / "lib/loop").symlink_to(source)
    (source / "back\\slash").write_text("")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(source / "socket"))
        caplog.clear()
        assert packed(source).name == before
    told = caplog.text
    for name in ("'pipe', 'socket' (neither file nor folder)", "'lib/loop' (a link to a folder that it is in)"):
        assert name in told.replace("'socket', 'pipe'", "'pipe', 'socket'")
    for name in ("'lost'", "'self'", "leads nowhere", "'back\\\\slash'"):
        assert name in told


def test_what_is_left_out_is_told_in_few_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(100):
        (tmp_path / f"link{number}").symlink_to("nowhere")
    packed(tmp_path)
    assert "and 95 more" in caplog.text
    assert len(caplog.records) == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    # Unreadable also for root: reading at address 0 of a process fails.
    (tmp_path / "memory").symlink_to("/proc/self/mem")
    with pytest.raises(
        RayPackageError, match=r"/memory' can't be read \(Input/output error\); let the Airflow worker's"
    ):
        packed(tmp_path)
    assert packed(tmp_path, "memory").files == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_and_a_folder_without_permission_are_named(source: Path) -> None:
    (source / "run.sh").chmod(0)
    with pytest.raises(RayPackageError, match=r"run.sh' can't be read \(Permission denied\)"):
        packed(source)
    (source / "run.sh").chmod(0o644)
    (source / "lib").chmod(0)
    with pytest.raises(RayPackageError, match=r"lib' can't be read \(Permission denied\)"):
        packed(source)
    (source / "lib").chmod(0o755)


def test_a_name_that_is_no_text_is_told(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))).write_text("")
    with pytest.raises(RayPackageError, match="the name is not UTF-8"):
        packed(tmp_path)


def test_a_pattern_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RayPackageError, match=r"runtime_env\['excludes'\]: the pattern '!' can't be read"):
        packed(tmp_path, "!")

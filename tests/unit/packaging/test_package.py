"""Packages: named by their content, and the same for the same files."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.exceptions import RayPackageError
from airflow_provider_rayjobs.packaging.package import WRAPPER, pack_archive, pack_folder, pack_module
from tests.support.packages import content, opened, packed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_the_same_content_is_the_same_package_whatever_the_time_the_order_and_the_place(
    source: Path, tmp_path: Path
) -> None:
    again = tmp_path / "elsewhere"
    for path in sorted(source.rglob("*"), reverse=True):
        target = again / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            target.write_bytes(path.read_bytes())
            target.chmod(path.stat().st_mode)
            os.utime(target, (1e9, 1e9))
    (again / "empty").chmod(0o700)  # Ray restores no folder's mode
    first, second = packed(source), packed(again)
    assert first.name == second.name
    assert content(first) == content(second)
    assert content(first)[:4] == b"PK\x03\x04"


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "run.sh").write_text("#!/bin/sh \n"),
        lambda root: (root / "run.sh").chmod(0o644),
        lambda root: (root / "run.sh").rename(root / "run2.sh"),
        lambda root: (root / "empty").rmdir(),
        lambda root: (root / "new").write_text(""),
    ],
)
def test_another_content_is_another_package(source: Path, change: Callable[[Path], object]) -> None:
    before = packed(source).name
    change(source)
    assert packed(source).name != before


def test_a_module_is_packed_in_its_folder_and_under_a_name_of_its_own(source: Path) -> None:
    inside = packed(source, inside=True)
    assert inside.name != packed(source).name
    with opened(inside) as archive:
        assert archive.namelist() == [
            "code/empty/",
            "code/lib/deep/random.bin",
            "code/lib/grüße.py",
            "code/nothing",
            "code/run.sh",
        ]
    single = source.parent / "single.py"
    single.write_text("X = 1")
    with opened(pack_module(str(single))) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {"single.py": b"X = 1"}


@pytest.mark.parametrize("name", [b"pkg\xff", b"pkg\\sub", b"pkg\n"])
def test_a_module_folder_of_an_impossible_name_is_refused(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    (folder / "a.py").write_text("")
    assert packed(folder).files
    with pytest.raises(RayPackageError, match="a module can't have this name; rename the folder"):
        packed(folder, inside=True)


def test_archives_go_as_they_are(tmp_path: Path) -> None:
    archive = tmp_path / "code.zip"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("x.py", "1")
    package = pack_archive(str(archive))
    assert package.name.startswith("_ray_pkg_")
    assert package.name.endswith(".zip")
    assert content(package) == archive.read_bytes()
    for name, extension in (("a.tar.gz", ".tar.gz"), ("a.tgz", ".tar.gz"), ("a.tar.xz", ".tar.xz")):
        (tmp_path / name).write_bytes(b"any")
        assert pack_archive(str(tmp_path / name)).name.endswith(extension)
    (tmp_path / "no.zip").write_text("no")
    with pytest.raises(RayPackageError, match=r"no.zip' is not a zip file"):
        pack_archive(str(tmp_path / "no.zip"))


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("my_lib-1.0-py3-none-any.whl", "my_lib-1.0-0_{}-py3-none-any.whl"),
        ("my_lib-1.0-7-py3-none-any.whl", "my_lib-1.0-7_{}-py3-none-any.whl"),
    ],
)
def test_a_wheel_built_anew_has_another_name(tmp_path: Path, name: str, named: str) -> None:
    names = []
    for text in ("1", "2"):
        with zipfile.ZipFile(tmp_path / name, "w") as made:
            made.writestr("x.py", text)
        names.append(pack_archive(str(tmp_path / name)).name)
    assert len(set(names)) == 2
    for found in names:
        tag = found.split("_")[2].split("-")[0]
        assert found == named.format(tag)


def test_for_object_storage_all_is_in_a_folder_that_ray_removes(source: Path, tmp_path: Path) -> None:
    plain = packed(source, inside=True)
    wrapped = pack_folder(str(source), [], [], inside=True, wrap=True)
    assert wrapped.name != plain.name
    with opened(plain) as before, opened(wrapped) as after:
        assert after.namelist() == [WRAPPER + name for name in before.namelist()]

    code = tmp_path / "code.zip"
    with opened(packed(source)) as before:
        code.write_bytes(content(packed(source)))
        package = pack_archive(str(code), wrap=True)
        assert package.name not in (pack_archive(str(code)).name, wrapped.name)
        assert content(package) == content(package)
        with opened(package) as after:
            assert after.namelist() == [WRAPPER + name for name in before.namelist()]
            for name in before.namelist():
                assert after.read(WRAPPER + name) == before.read(name)
                kept = [archive.getinfo(at).external_attr for archive, at in ((before, name), (after, WRAPPER + name))]
                assert kept[0] == kept[1]


@pytest.mark.parametrize(("ending", "mode"), [("tar.gz", "w:gz"), ("tar.xz", "w:xz")])
def test_tar_files_get_such_a_folder_too(source: Path, tmp_path: Path, ending: str, mode: str) -> None:
    (source / "again.sh").hardlink_to(source / "run.sh")
    path = tmp_path / f"code.{ending}"
    with tarfile.open(path, mode) as made:  # type: ignore[call-overload]
        made.add(source, "only")
    package = pack_archive(str(path), wrap=True)
    assert package.name.endswith(".tar.gz")
    with tarfile.open(path) as before, tarfile.open(fileobj=io.BytesIO(content(package))) as after:
        names = before.getnames()
        assert after.getnames() == [WRAPPER + name for name in names]
        for name in names:
            one, other = before.getmember(name), after.getmember(WRAPPER + name)
            assert (one.mode, one.size, one.type) == (other.mode, other.size, other.type)
            if one.isfile():
                assert before.extractfile(one).read() == after.extractfile(other).read()  # type: ignore[union-attr]
            if one.islnk():
                assert other.linkname == WRAPPER + one.linkname


def test_an_archive_that_can_t_be_read_again_is_told(tmp_path: Path) -> None:
    (tmp_path / "no.tgz").write_bytes(b"no archive")
    with pytest.raises(RayPackageError, match=r"no\.tgz' can't be read as an archive \(.*\); build it again"):
        content(pack_archive(str(tmp_path / "no.tgz"), wrap=True))
    code = tmp_path / "code.zip"
    with zipfile.ZipFile(code, "w") as made:
        made.writestr("a", "1")
    package = pack_archive(str(code), wrap=True)
    with zipfile.ZipFile(code, "w") as made:
        made.writestr("b", "1")
    with pytest.raises(RayPackageError, match="changed while it was packed"):
        content(package)

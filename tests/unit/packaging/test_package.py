"""Packages: named by their content, deterministic, within bounds, and what can't be packed is told."""

from __future__ import annotations

import io
import os
import resource
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.exceptions import RayPackageError, RayPackageTooLargeError
from airflow_provider_rayjobs.packaging import zip_file
from airflow_provider_rayjobs.packaging.package import Package, pack_archive, pack_folder, pack_module
from airflow_provider_rayjobs.packaging.spool import spooled

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1024 * 1024


def packed(folder: Path, *excludes: str, inside: bool = False) -> Package:
    return pack_folder(str(folder), excludes, [".gitignore", ".rayignore"], inside=inside)


def content(package: Package, limit: int = 100 * MIB) -> bytes:
    with spooled(package, limit) as spool:
        return b"".join(spool.opened())


def opened(package: Package) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(content(package)))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a bit of everything."""
    root = tmp_path / "code"
    (root / "lib/deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "lib/grüße.py").write_text("print(1)\n" * 500)
    (root / "lib/deep/random.bin").write_bytes(os.urandom(5000))
    (root / "nothing").write_bytes(b"")
    for path in (root, root / "lib", root / "lib/deep"):
        path.chmod(0o755)
    return root


def test_a_zip_file_holds_names_modes_contents_and_empty_folders(source: Path) -> None:
    with opened(packed(source)) as archive:
        found = {i.filename: (oct(i.external_attr >> 16), i.compress_type) for i in archive.infolist()}
        assert archive.testzip() is None
        assert archive.read("lib/grüße.py") == (source / "lib/grüße.py").read_bytes()
    for path in source.rglob("*.*"):
        assert oct(path.stat().st_mode) == found[str(path.relative_to(source))][0]
    assert list(found) == ["empty/", "lib/deep/random.bin", "lib/grüße.py", "nothing", "run.sh"]
    assert found["lib/grüße.py"][1] == zipfile.ZIP_DEFLATED
    assert found["lib/deep/random.bin"][1] == zipfile.ZIP_STORED


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


def test_large_files_are_read_in_pieces_and_stored_or_deflated(tmp_path: Path) -> None:
    (tmp_path / "random").write_bytes(os.urandom(3 * MIB + 1))
    (tmp_path / "text").write_bytes(b"some text, " * (MIB // 2))
    package = packed(tmp_path)
    with opened(package) as archive:
        assert archive.testzip() is None
        for name, kind in (("random", zipfile.ZIP_STORED), ("text", zipfile.ZIP_DEFLATED)):
            assert archive.getinfo(name).compress_type == kind
            assert archive.read(name) == (tmp_path / name).read_bytes()
    assert len(content(package)) < 3.2 * MIB


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


@pytest.mark.parametrize("name", [b"pkg\xff", b"pkg\\sub", b"pkg\n"])
def test_a_module_folder_of_an_impossible_name_is_refused(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    (folder / "a.py").write_text("")
    assert packed(folder).files
    with pytest.raises(RayPackageError, match="a module can't have this name; rename the folder"):
        packed(folder, inside=True)


def test_a_pattern_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RayPackageError, match=r"runtime_env\['excludes'\]: the pattern '!' can't be read"):
        packed(tmp_path, "!")


@pytest.mark.parametrize("size", [10, 3 * MIB])
@pytest.mark.parametrize("change", ["other", "longer", "shorter", "gone"])
def test_a_file_that_changes_while_it_is_packed_is_named(tmp_path: Path, size: int, change: str) -> None:
    file = tmp_path / "log.txt"
    file.write_bytes(b"a" * size)
    package = packed(tmp_path)
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes({"other": b"b" * size, "longer": b"a" * (size + 1), "shorter": b"a" * (size - 1)}[change])
    with pytest.raises(RayPackageError, match=r"log.txt' changed while it was packed; try again when"):
        content(package)


def test_too_large_a_package_names_the_largest_files_and_the_remedy(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"part{number}").write_bytes(os.urandom((number + 1) * 10_000))
    with pytest.raises(RayPackageTooLargeError) as caught:
        content(packed(tmp_path), limit=500_000)
    told = str(caught.value)
    assert "more than 488.3 KiB, the limit for uploads" in told
    assert "'max_upload_size' in the connection's extra" in told
    assert "The largest of its 12 files (761.7 KiB in all): part11 (117.2 KiB), part10 (107.4 KiB)" in told
    assert "part1 " not in told


def test_a_package_that_is_too_large_at_first_is_compressed_harder(tmp_path: Path) -> None:
    words = [os.urandom(3).hex() for _ in range(3000)]
    text = " ".join(words[i * 7919 % 3000] for i in range(200_000))
    (tmp_path / "text").write_text(text)
    package = packed(tmp_path)
    easy = len(content(package))
    hard = len(content(package, limit=easy - 1))
    assert hard < easy


def test_no_room_for_the_package_is_told(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(MIB))
    code = (
        "import resource, sys, tempfile\n"
        "from airflow_provider_rayjobs.packaging.package import pack_folder\n"
        "from airflow_provider_rayjobs.packaging.spool import spooled\n"
        f"package = pack_folder({str(tmp_path)!r}, [], [], inside=False)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "with spooled(package, 10**9): pass"
    )
    assert resource.RLIMIT_FSIZE  # files of this process may not grow beyond it, as on a full disk
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "RayPackageError" in done.stderr
    assert "can't be written to '/tmp' (File too large); make room there, or set TMPDIR" in done.stderr
    assert "large (1.0 MiB)" in done.stderr


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
    for content in ("1", "2"):
        with zipfile.ZipFile(tmp_path / name, "w") as made:
            made.writestr("x.py", content)
        names.append(pack_archive(str(tmp_path / name)).name)
    assert len(set(names)) == 2
    for found in names:
        tag = found.split("_")[2].split("-")[0]
        assert found == named.format(tag)


def test_memory_stays_bounded(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(MIB // 2) + b"text" * (MIB // 8))
    code = (
        "import resource\n"
        "from airflow_provider_rayjobs.packaging.package import pack_folder\n"
        "from airflow_provider_rayjobs.packaging.spool import spooled\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"with spooled(pack_folder({str(tmp_path)!r}, [], [], inside=False), 10**9) as spool:\n"
        "    for piece in spool.opened(): pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 32 * 1024  # KiB, of 64 MiB


@pytest.mark.parametrize(
    ("data", "pays"),
    [
        (b"def f(x): return x\n" * 10_000, True),
        (bytes(100_000), True),
        (os.urandom(100_000), False),
        (b"", False),
        (b"header\n" * 10 + os.urandom(1_000_000), False),
        (bytes(range(256)) * 1000, True),
    ],
    ids=["source", "zeros", "random", "nothing", "a header", "all bytes"],
)
def test_the_sample_tells_what_shrinks(tmp_path: Path, data: bytes, pays: bool) -> None:
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb", buffering=0) as file:
        sample = zip_file._sample_of_file(file, len(data))
    assert sample == zip_file._sample_of(data)
    assert zip_file.shrinks(sample) is pays


def test_many_small_files_keep_their_order(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number:04}").write_bytes(b"%d" % number * (number % 700))
    (tmp_path / "1500x").write_bytes(os.urandom(2 * MIB))
    with opened(packed(tmp_path)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names == sorted(path.name for path in tmp_path.iterdir())
        assert all(archive.read(name) == (tmp_path / name).read_bytes() for name in names)

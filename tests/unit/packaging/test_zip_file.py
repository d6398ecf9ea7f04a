"""Zip files: contents, modes, order and compression."""

from __future__ import annotations

import os
import zipfile
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.exceptions import RayPackageError
from airflow_provider_rayjobs.packaging import zip_file
from tests.support.packages import MIB, content, opened, packed

if TYPE_CHECKING:
    from pathlib import Path


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

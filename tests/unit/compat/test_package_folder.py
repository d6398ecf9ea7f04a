"""Packages in a folder: whole or not at all, once, and what goes wrong is told with the field and the remedy."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.compat import package_folder
from airflow_provider_rayjobs.compat.package_folder import PIECE, RENEWED_AFTER, PackageFolder
from airflow_provider_rayjobs.exceptions import RayJobInterruptedError, RayPackageError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Content:
    """A package that is read piece by piece."""

    def __init__(self, *pieces: bytes, error: BaseException | None = None) -> None:
        self.pieces = pieces
        self.error = error

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces
        if self.error:
            raise self.error


class Refusal(BaseException):
    """What Airflow raises when a task is killed."""


class FakeFile:
    """A file of a bucket, as ``fsspec`` has it: nothing is there before ``commit``."""

    def __init__(self, bucket: Bucket, path: str) -> None:
        self.bucket, self.path = bucket, path
        self.data = b""
        self.closed = self.discarded = False

    def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        self.closed = True

    def commit(self) -> None:
        assert self.closed
        self.bucket.objects[self.path] = self.data

    def discard(self) -> None:
        self.discarded = True
        raise OSError("it can't be discarded either")


class Bucket:
    """A file system of ``fsspec``; a real one is used by the tests in ``tests/storage``."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.written = datetime.now(UTC)
        self.error: Exception | None = None
        self.files: list[FakeFile] = []
        self.lost = 0
        self.kept = False

    def modified(self, path: str) -> datetime:
        if self.error:
            raise self.error
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.written

    def pipe_file(self, path: str, data: bytes) -> None:
        self.objects[path] = data

    def open(self, path: str, mode: str, *, block_size: int, autocommit: bool) -> FakeFile:
        assert (mode, block_size, autocommit) == ("wb", PIECE, False)
        self.files.append(FakeFile(self, path))
        return self.files[-1]

    def invalidate_cache(self) -> None:
        pass

    def rm_file(self, path: str) -> None:
        if self.kept:
            raise PermissionError("no right to delete")
        del self.objects[path]

    def info(self, path: str) -> dict[str, Any]:
        return {"size": len(self.objects[path]) - self.lost}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    bucket = Bucket()
    monkeypatch.setattr(PackageFolder, "_files", lambda self, name: package_folder._Stored(bucket, f"b/x/{name}"))
    return bucket


def stored(url: str = "s3://aws@b/x") -> PackageFolder:
    return PackageFolder("ray_x", url)


def test_a_mounted_folder_has_a_package_once_it_is_whole(tmp_path: Path) -> None:
    store = stored(f"file://{tmp_path}")
    assert not store.has("a.zip")
    with pytest.raises(Refusal):
        store.put("a.zip", lambda: Content(b"1", error=Refusal()))
    assert [*tmp_path.iterdir()] == []
    assert store.put("a.zip", lambda: Content(b"1", b"23"))
    assert [*tmp_path.iterdir()] == [tmp_path / "a.zip"]
    assert (tmp_path / "a.zip").read_bytes() == b"123"
    assert (tmp_path / "a.zip").stat().st_mode & 0o444 == 0o444
    assert store.has("a.zip")
    assert store.uri("a.zip") == f"file://{tmp_path}/a.zip"


def test_a_folder_that_is_not_mounted_is_told(tmp_path: Path) -> None:
    store = stored(f"file://{tmp_path}/absent")
    told = (
        f"connection 'ray_x': package_folder 'file://{tmp_path}/absent' can't be read (FileNotFoundError: "
        f"[Errno 2] No such file or directory: '{tmp_path}/absent'); mount the folder on all Airflow workers and all "
        "nodes, and let the workers write there"
    )
    with pytest.raises(RayPackageError, match=re.escape(told)):
        store.has("a.zip")
    assert not (tmp_path / "absent").exists()


def test_an_old_package_is_written_again(tmp_path: Path) -> None:
    store = stored(f"file://{tmp_path}")
    store.put("a.zip", lambda: Content(b"1"))
    for age, there in ((RENEWED_AFTER - 60, True), (RENEWED_AFTER + 60, False)):
        os.utime(tmp_path / "a.zip", (0, time.time() - age))
        assert store.has("a.zip") is there
    store.put("a.zip", lambda: Content(b"1"))
    assert store.has("a.zip")


@pytest.mark.parametrize("size", [3, PIECE + 1])
def test_a_bucket_has_a_package_once_it_is_whole(bucket: Bucket, size: int) -> None:
    store = stored()
    assert not store.has("a.zip")
    with pytest.raises(Refusal):
        store.put("a.zip", lambda: Content(bytes(size), error=Refusal()))
    assert bucket.objects == {}
    assert all(file.closed and file.discarded for file in bucket.files)
    assert len(bucket.files) == (1 if size > PIECE else 0)
    store.put("a.zip", lambda: Content(bytes(size)))
    assert bucket.objects == {"b/x/a.zip": bytes(size)}
    assert store.has("a.zip")
    assert store.uri("a.zip") == "s3://b/x/a.zip"


def test_a_package_that_arrives_with_another_size_is_told(bucket: Bucket) -> None:
    bucket.lost = 1
    for kept in (False, True):
        bucket.kept = kept
        with pytest.raises(RayPackageError, match=r"a\.zip has 2 bytes there after 3 were written; try again, and del"):
            stored().put("a.zip", lambda: Content(b"123"))
        assert stored().has("a.zip") is kept


class Cut(Content):
    """A package of which the end is lost on the way."""

    def __len__(self) -> int:
        return super().__len__() + 1


def test_a_file_with_another_size_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(RayPackageError, match=r"a\.zip has 3 bytes there after 4 were written; try again"):
        stored(f"file://{tmp_path}").put("a.zip", lambda: Cut(b"123"))
    assert [*tmp_path.iterdir()] == []


def test_nodes_of_another_user_can_read_a_file(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        stored(f"file://{tmp_path}").put("a.zip", lambda: Content(b"1"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.zip").stat().st_mode) == 0o644


def test_a_folder_without_modes_gets_packages_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("no modes here")

    monkeypatch.setattr(Path, "chmod", refuse)
    assert stored(f"file://{tmp_path}").put("a.zip", lambda: Content(b"1"))


def test_an_empty_file_and_a_folder_are_no_packages(tmp_path: Path) -> None:
    (tmp_path / "a.zip").touch()
    (tmp_path / "b.zip").mkdir()
    store = stored(f"file://{tmp_path}")
    assert not store.has("a.zip")
    assert not store.has("b.zip")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            PermissionError("Access Denied"),
            "PermissionError: Access Denied); let the URL's Airflow connection list",
        ),
        (ImportError("no s3fs"), "install apache-airflow-providers-amazon[s3fs] on the Airflow workers"),
        (OSError("http://key:secret@host/ gone\nmore"), "gone more); check the URL, and its Airflow connection"),
    ],
)
def test_what_a_bucket_refuses_is_told(bucket: Bucket, error: Exception, told: str) -> None:
    bucket.error = error
    with pytest.raises(RayPackageError) as caught:
        stored().has("a.zip")
    assert "connection 'ray_x': package_folder 's3://aws@b/x' can't be read (" in str(caught.value)
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_kill_stays_a_kill(bucket: Bucket) -> None:
    bucket.error = RayJobInterruptedError("killed")
    with pytest.raises(RayJobInterruptedError, match=r"^killed$"):
        stored().has("a.zip")


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="this Airflow can reach S3")
@pytest.mark.parametrize(
    ("url", "needed"),
    [
        ("s3://aws@b/x", "apache-airflow-providers-amazon[s3fs]"),
        ("gs://gcp@b/x", "apache-airflow-providers-google"),
    ],
)
def test_an_airflow_without_the_provider_is_told_what_to_install(url: str, needed: str) -> None:
    with pytest.raises(RayPackageError, match=re.escape(f"; install {needed} on the Airflow workers")):
        stored(url).has("a.zip")

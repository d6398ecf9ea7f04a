"""
Packages in a folder of object storage, which a connection's ``package_folder`` names.

Workers write there with Airflow's ``ObjectStoragePath``, and nodes read with Ray's own downloads of ``s3://``, ``gs://``
and ``file://`` URIs. So neither the head nor a proxy in front of it limits the size.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.cluster.urls import without_connection
from airflow_provider_rayjobs.exceptions import RayJobsError, RayPackageError
from airflow_provider_rayjobs.text.safe_text import one_line, without_logins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_rayjobs.client.exchange import Body

#: A package that is older is written again when a job needs it. So a rule that deletes what is older than some weeks
#: does not delete what a job that was just submitted is about to read.
RENEWED_AFTER = 7 * 24 * 3600.0

#: Most bytes that are held in memory; a smaller package is written by one request.
PIECE = 16 * 2**20

#: What to install on the Airflow workers for a scheme.
NEEDED_ON_WORKERS = {"s3": "apache-airflow-providers-amazon[s3fs]", "gs": "apache-airflow-providers-google"}

_LONGEST_REASON = 300


def reason(error: Exception) -> str:
    """Return a library's error for a message, without logins."""
    return one_line(without_logins(f"{type(error).__name__}: {error}"), _LONGEST_REASON)


def lacks_package(error: Exception) -> bool:
    """Whether an error says that a package for the URL's scheme is not installed."""
    return isinstance(error, ImportError) or "No filesystem registered" in str(error)


class PackageFolder:
    """
    A folder in object storage, as a :class:`~airflow_provider_rayjobs.packaging.stores.Store`.

    A package appears whole or not at all, under a name that stands for its content.

    :param conn_id: the connection that names the folder, for messages.
    :param url: of the folder; it may name an Airflow connection before the bucket.
    """

    is_shared_storage = True
    limit = sys.maxsize

    def __init__(self, conn_id: str, url: str) -> None:
        self._conn_id = conn_id
        self._url = url
        self.where = without_connection(url)
        self._scheme = url.partition("://")[0]

    def has(self, name: str) -> bool:
        """Return whether the package is there, and is not so old that it should be written again."""
        with self._told("read"):
            written = self._files(name).written()
            return written is not None and time.time() - written < RENEWED_AFTER

    def put(self, name: str, opened: Callable[[], Body]) -> bool:
        """
        Write a package.

        :raises RayPackageError: if it can't be written, or has another size afterwards.
        """
        with self._told("written"):
            content = opened()
            size = len(content)
            if (found := self._files(name).write(content, size)) != size:
                raise RayPackageError(
                    f"{self._field}: {name} has {found:,} bytes there after {size:,} were written; try again, and "
                    "delete it first if it is still there"
                )
        return True

    def uri(self, name: str) -> str:
        """Return the URI by which Ray's nodes read the package; they don't know Airflow's connections."""
        return f"{self.where}/{name}"

    @property
    def _field(self) -> str:
        return f"connection {self._conn_id!r}: package_folder {self._url!r}"

    def _files(self, name: str) -> _Mounted | _Stored:
        if self._scheme == "file":
            return _Mounted(self._url.removeprefix("file://"), name)
        from airflow.providers.common.compat.sdk import ObjectStoragePath

        path: Any = ObjectStoragePath(f"{self._url}/{name}")
        return _Stored(path.fs, path.path)

    @contextlib.contextmanager
    def _told(self, done: str) -> Iterator[None]:
        """Turn all errors of the block into one that names the field and what to do."""
        try:
            yield
        except RayJobsError:  # ours, or that of a kill meanwhile
            raise
        except Exception as e:  # noqa: BLE001 - of any library for storage
            # Not "from e": a library's own message may have a URL with a password.
            raise RayPackageError(f"{self._field} can't be {done} ({reason(e)}); {self._remedy(e)}") from None

    def _remedy(self, error: Exception) -> str:
        if self._scheme == "file":
            return "mount the folder on all Airflow workers and all nodes, and let the workers write there"
        if lacks_package(error):
            return f"install {NEEDED_ON_WORKERS[self._scheme]} on the Airflow workers"
        if isinstance(error, PermissionError):
            return "let the URL's Airflow connection list the bucket, and read and write below the folder"
        example = f"{self._scheme}://conn_id@bucket/prefix"
        return f"check the URL, and its Airflow connection, which stands before the bucket: {example}"


class _Mounted:
    """A file in a folder that is mounted on the workers and the nodes."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder = Path(folder)
        self._path = self._folder / name

    def written(self) -> float | None:
        """Return when the file was written, in Unix seconds; None if it is not there, or empty."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._folder.stat()  # a folder that is not mounted is an error
            return None
        return found.st_mtime if stat.S_ISREG(found.st_mode) and found.st_size else None

    def write(self, content: Body, size: int) -> int:
        """
        Write the file under another name, and rename it when it is whole.

        :return: the bytes that were written; the file is there only if it is the right number.
        """
        part = self._path.with_name(f".{self._path.name}.{uuid.uuid4().hex}.part")
        try:
            with part.open("xb") as file:
                for data in content:
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if (found := part.stat().st_size) == size:
                with contextlib.suppress(OSError):  # a file system without modes
                    part.chmod(0o644)  # nodes of another user read it, whatever the worker's umask is
                part.replace(self._path)
            return found
        finally:
            part.unlink(missing_ok=True)


class _Stored:
    """
    An object in a bucket.

    :param fs: the ``fsspec`` file system.
    :param path: of the object, with the bucket.
    """

    def __init__(self, fs: Any, path: str) -> None:
        self._fs = fs
        self._path = path

    def written(self) -> float | None:
        """Return when the object was written, in Unix seconds; None if it is not there."""
        try:
            written: float = self._fs.modified(self._path).timestamp()
        except FileNotFoundError:
            return None
        return written

    def write(self, content: Body, size: int) -> int:
        """
        Write the object, and delete it if it has the wrong size, because later tasks would use it.

        :return: the object's size in bytes.
        """
        self._upload(content, size)
        self._fs.invalidate_cache()
        found = int(self._fs.info(self._path)["size"])
        if found != size:
            with contextlib.suppress(Exception):  # the error of the caller says what to do then
                self._fs.rm_file(self._path)
        return found

    def _upload(self, content: Body, size: int) -> None:
        """Write the object with one request, or in parts that become an object at the end."""
        if size <= PIECE:
            self._fs.pipe_file(self._path, b"".join(content))
            return
        file = self._fs.open(self._path, "wb", block_size=PIECE, autocommit=False)
        try:
            for data in content:
                file.write(data)
            file.close()
            file.commit()
        except BaseException:
            file.closed = True  # otherwise its finalizer would upload the rest
            with contextlib.suppress(Exception):
                file.discard()
            raise

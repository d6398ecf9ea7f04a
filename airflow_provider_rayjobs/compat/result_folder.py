"""Large results in the folder ``result_path``, as Airflow workers read them."""

from __future__ import annotations

import os
import stat
from typing import Any

from airflow_provider_rayjobs.compat.package_folder import NEEDED_ON_WORKERS, lacks_package


def check_installed(url: str) -> None:
    """
    Check that a provider for the URL's scheme is installed on this worker.

    :raises ValueError: if none is.
    """
    scheme = url.partition("://")[0]
    if not _has_filesystem(scheme):
        raise ValueError(f"result_path {url!r} can't be read: install {_needed(scheme)} on the Airflow workers")


def _has_filesystem(scheme: str) -> bool:
    try:
        from airflow.sdk.io.fs import has_fs
    except ImportError:  # Airflow 2
        from airflow.io import has_fs  # type: ignore[attr-defined,no-redef]
    return bool(has_fs(scheme))


def _needed(scheme: str) -> str:
    return NEEDED_ON_WORKERS.get(scheme, f"the Airflow provider for {scheme}://")


def read(url: str, most: int) -> bytes:
    """
    Read a file in the folder.

    :param most: bytes that are read at most.
    :raises FileNotFoundError: if it is not there.
    :raises IsADirectoryError: if it is not a regular file.
    """
    return _read_mounted(url, most) if url.startswith("file://") else _stored(url, most)


def remedy(url: str, error: Exception) -> str:
    """Return what to do about an error of the storage."""
    scheme = url.partition("://")[0]
    if scheme == "file":
        return "mount the folder of result_path on all Airflow workers and all nodes, and let the workers read there"
    if lacks_package(error):
        return f"install {_needed(scheme)} on the Airflow workers"
    if isinstance(error, PermissionError):
        return "let the Airflow connection in result_path read below the folder"
    return f"check result_path, and its Airflow connection, which stands before the bucket: {scheme}://conn_id@bucket/…"


def _stored(url: str, most: int) -> bytes:
    """Read at most this many bytes of an object."""
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    path: Any = ObjectStoragePath(url)
    with path.open("rb") as file:
        data: bytes = file.read(most)
        return data


def _read_mounted(url: str, most: int) -> bytes:
    """
    Read at most this many bytes of a file in a mounted folder.

    :raises IsADirectoryError: if it is not a regular file: a plain open of a FIFO would wait for a writer.
    """

    def opener(path: str, flags: int) -> int:
        return os.open(path, flags | os.O_NONBLOCK)

    with open(url.removeprefix("file://"), "rb", opener=opener) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise IsADirectoryError("not a regular file")
        return file.read(most)

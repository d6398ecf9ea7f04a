"""A package in a temporary file, from which it is uploaded: on disk, within a limit, and told of while it is sent."""

from __future__ import annotations

import logging
import tempfile
from contextlib import contextmanager
from contextvars import ContextVar
from operator import attrgetter
from typing import IO, TYPE_CHECKING

from airflow_provider_rayjobs.exceptions import RayPackageError, RayPackageTooLargeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_rayjobs.packaging.package import Package

log = logging.getLogger(__name__)

MIB = 1024 * 1024

#: Bytes that are written to disk at a time.
BUFFER = MIB

#: So many files are named when a package is too large.
LARGEST = 10

#: Uploads above this many bytes say how far they are, in so many lines.
TELL_ABOVE = 20_000_000
LINES = 4

#: Is told of these uploads instead: takes what is uploaded, the bytes that were sent, and all bytes.
upload_progress: ContextVar[Callable[[str, int, int], None] | None] = ContextVar("upload_progress", default=None)


def readable(size: int) -> str:
    """Write a number of bytes for people."""
    return f"{size / MIB:.1f} MiB" if size >= MIB else f"{size / 1024:.1f} KiB"


def too_large(package: Package, size: str) -> RayPackageTooLargeError:
    """Return the error for a package whose size, as said, the server does not take."""
    return RayPackageTooLargeError(
        f"{package.source!r} makes a package of {size}; leave files out by runtime_env['excludes'] or .rayignore, put "
        "large ones where the cluster can read them (s3://, gs://, https://), or, if the server takes more, set "
        f"'max_upload_size' in the connection's extra. {largest(package)}"
    )


def largest(package: Package) -> str:
    """Name the largest files of a package."""
    files = sorted(package.files, key=attrgetter("size"), reverse=True)[:LARGEST]
    named = ", ".join(f"{entry.name} ({readable(entry.size)})" for entry in files)
    return f"The largest of its {len(package.files)} files ({readable(package.size)} in all): {named}"


class _Limited:
    """
    The temporary file, as it is written.

    :param limit: bytes that it may have.
    """

    def __init__(self, file: IO[bytes], package: Package, limit: int) -> None:
        self._file = file
        self._package = package
        self._limit = limit
        self._failed = False
        self._at = 0
        self._buffer: list[bytes] = []  # a zip file is written in bits, and asked at each where it is
        self._buffered = 0

    def tell(self) -> int:
        """Return the place that is written next."""
        return self._at

    def seek(self, place: int) -> int:
        """Go on writing at another place."""
        if place != self._at:
            self.flush()
            self._at = self._file.seek(place)
        return place

    def write(self, data: bytes) -> int:
        """Write at once, or soon."""
        if self._failed:  # what closes the zip file would fail again, and hide the first error
            return len(data)
        if self._at + len(data) > self._limit:
            self._failed = True
            raise too_large(self._package, f"more than {readable(self._limit)}, the limit for uploads")
        self._buffer.append(data)
        self._buffered += len(data)
        self._at += len(data)
        if self._buffered >= BUFFER:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Write what was not written yet."""
        rest = memoryview(b"".join(self._buffer))
        self._buffer, self._buffered = [], 0
        try:
            while rest and not self._failed:  # a disk that is nearly full takes a part
                rest = rest[self._file.write(rest) :]
        except BaseException as e:
            self._failed = True
            if isinstance(e, OSError):
                raise no_room(self._package, e) from e
            raise


def no_room(package: Package, error: OSError) -> RayPackageError:
    """Return the error for a package that can't be written to disk."""
    return RayPackageError(
        f"{package.source!r}: its package can't be written to {tempfile.gettempdir()!r} ({error.strerror or error}); "
        f"make room there, or set TMPDIR to a larger place. {largest(package)}"
    )


@contextmanager
def spooled(package: Package, limit: int) -> Iterator[Spool]:
    """
    Write a package into a temporary file, which vanishes with this context, or with the process.

    :param limit: bytes that it may have.
    :raises RayPackageTooLargeError: it would have more.
    :raises RayPackageError: there is no room for it, or a file has changed.
    """
    try:
        file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - opening it must not catch what the body raises
    except OSError as e:
        raise no_room(package, e) from e
    with file:
        for level in package.levels:
            try:
                target = _Limited(file, package, limit)
                package.write(target, level)
                target.flush()
                break
            except RayPackageTooLargeError:
                if level == package.levels[-1]:
                    raise
            log.info("Compressing %s harder: its package is larger than %s", package.source, readable(limit))
            file.seek(0)
            file.truncate()
        yield Spool(file, package)


class Spool:
    """
    A package that lies ready; as the body of a request it is read piece by piece.

    :param file: holds it.
    """

    def __init__(self, file: IO[bytes], package: Package) -> None:
        self._file = file
        self._package = package
        self.size = file.seek(0, 2)
        self._told = 0

    def opened(self) -> Spool:
        """Return it from its beginning; for each attempt to send it."""
        self._file.seek(0)
        self._told = 0
        return self

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        """Yield what :meth:`read` gives; its presence tells ``requests`` to stream."""
        while data := self.read(64 * 1024):
            yield data

    def read(self, length: int = -1) -> bytes:
        """Read on."""
        data = self._file.read(length)
        if self.size > TELL_ABOVE:
            self._tell(self._file.tell())
        return data

    def _tell(self, sent: int) -> None:
        if show := upload_progress.get():
            show(self._package.source, sent, self.size)
            return
        if (lines := LINES * sent // self.size) > self._told:
            self._told = lines
            log.info("Uploading %s: %d %% of %s", self._package.source, 100 * sent // self.size, readable(self.size))

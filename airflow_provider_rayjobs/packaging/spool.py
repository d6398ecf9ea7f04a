"""Writes a package into a temporary file, within a limit, and reports the progress of its upload."""

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

#: Most files that the error for a package that is too large names.
LARGEST = 10

#: Uploads of more bytes report their progress, in this many lines.
REPORT_ABOVE = 20_000_000
LINES = 4

#: If set, is called instead of logging: with the path that is uploaded, the bytes sent so far, and all bytes.
upload_progress: ContextVar[Callable[[str, int, int], None] | None] = ContextVar("upload_progress", default=None)


def readable(size: int) -> str:
    """Format a number of bytes for people."""
    return f"{size / MIB:.1f} MiB" if size >= MIB else f"{size / 1024:.1f} KiB"


def too_large(package: Package, size: str) -> RayPackageTooLargeError:
    """Return the error for a package that is too large; ``size`` is a text for the message."""
    return RayPackageTooLargeError(
        f"{package.source!r}: the package has {size}; exclude files by runtime_env['excludes'] or .rayignore, "
        "put large ones where the cluster can read them (s3://, gs://, https://), set 'package_folder' in the "
        "connection's extra, or, if the server accepts more, 'max_upload_size'. "
        f"{largest(package)}"
    )


def largest(package: Package) -> str:
    """Name the largest files of a package."""
    files = sorted(package.files, key=attrgetter("size"), reverse=True)[:LARGEST]
    named = ", ".join(f"{entry.name} ({readable(entry.size)})" for entry in files)
    return f"The largest of its {len(package.files)} files ({readable(package.size)} in all): {named}"


class _Limited:
    """
    The temporary file while it is written.

    :param limit: most bytes that it may have.
    """

    def __init__(self, file: IO[bytes], package: Package, limit: int) -> None:
        self._file = file
        self._package = package
        self._limit = limit
        self._failed = False
        self._at = 0
        self._buffer: list[bytes] = []  # a zip file is written in small pieces, with tell() for each
        self._buffered = 0

    def tell(self) -> int:
        """Return the current position."""
        return self._at

    def seek(self, place: int) -> int:
        """Go to another position, from the beginning."""
        if place != self._at:
            self.flush()
            self._at = self._file.seek(place)
        return place

    def write(self, data: bytes) -> int:
        """Write at the current position, through a buffer."""
        if self._failed:  # closing the zip file would fail again, and hide the first error
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
        """Write the buffer to disk."""
        rest = memoryview(b"".join(self._buffer))
        self._buffer, self._buffered = [], 0
        try:
            while rest and not self._failed:  # a nearly full disk takes only a part
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
    Write a package into a temporary file, which is deleted with this context, or with the process.

    :param limit: most bytes that it may have.
    :raises RayPackageTooLargeError: if it would have more.
    :raises RayPackageError: if it can't be written, or a file has changed.
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
    A package that is ready to be uploaded; as the body of a request it is read piece by piece.

    :param file: the temporary file.
    """

    def __init__(self, file: IO[bytes], package: Package) -> None:
        self._file = file
        self._package = package
        self.size = file.seek(0, 2)
        self._reported = 0

    def opened(self) -> Spool:
        """Return it, set to its beginning; called for each attempt to send it."""
        self._file.seek(0)
        self._reported = 0
        return self

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        """Yield the content; because of this method ``requests`` streams the body."""
        while data := self.read(64 * 1024):
            yield data

    def read(self, length: int = -1) -> bytes:
        """Read the next bytes, and report the progress."""
        data = self._file.read(length)
        if self.size > REPORT_ABOVE:
            self._report(self._file.tell())
        return data

    def _report(self, sent: int) -> None:
        if show := upload_progress.get():
            show(self._package.source, sent, self.size)
            return
        if (lines := LINES * sent // self.size) > self._reported:
            self._reported = lines
            log.info("Uploading %s: %d %% of %s", self._package.source, 100 * sent // self.size, readable(self.size))

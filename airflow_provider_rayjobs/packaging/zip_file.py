"""
Reads the files of a package, notices when one has changed, and writes them into a zip file.

Small files are compressed in several threads: zlib lets other threads run meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_rayjobs.exceptions import RayPackageError
from airflow_provider_rayjobs.packaging.folder import Entry, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import FileIO

#: Most bytes that are held at a time; a smaller file is compressed in one piece.
CHUNK = 1024 * 1024

#: A file is compressed if samples of its beginning, middle and end, of at most ``SAMPLE`` bytes each, shrink to less
#: than this share of their size.
SAMPLE = 16 * 1024
WORTHWHILE = 0.9

#: Levels of deflate. The fast one saves nearly as much as the other, which takes several times as long and is used for
#: packages that would otherwise be too large.
FAST = 1
SMALL = 6

#: Threads that compress, bytes of small files that one takes at a time, and most such lots that wait to be written.
THREADS = min(4, os.cpu_count() or 1)
LOT = 256 * 1024
LOTS = 2 * THREADS

#: Time of all files in a package: the earliest that a zip file can hold.
_TIME = (1980, 1, 1, 0, 0, 0)

#: A file and the digest of its content.
Named = tuple[Entry, bytes]
_Member = tuple[zipfile.ZipInfo, bytes]


class Sink(Protocol):
    """The part of a seekable binary file that a package is written to."""

    def write(self, data: bytes, /) -> int:
        """Write at the current position."""

    def tell(self) -> int:
        """Return the current position."""

    def seek(self, place: int, /) -> int:
        """Go to another position, from the beginning."""

    def flush(self) -> None:
        """Hand everything to the operating system."""


def opened(root: str, entry: Entry) -> FileIO:
    """
    Open a file for reading.

    :raises RayPackageError: if it can't be read, or no longer exists.
    """
    try:
        return open(f"{root}/{entry.name}", "rb", buffering=0)  # noqa: PTH123 - for thousands of files: Path is slow
    except FileNotFoundError as e:
        raise _changed(root, entry) from e
    except OSError as e:
        raise unreadable(root, entry.name, e) from e


def pieces(root: str, entry: Entry, file: FileIO) -> Iterator[bytes]:
    """
    Yield a file's content.

    :raises RayPackageError: if it can't be read.
    """
    try:
        while data := file.read(min(CHUNK, max(SAMPLE, entry.size + 1))):
            yield data
    except OSError as e:
        raise unreadable(root, entry.name, e) from e


def checked_pieces(root: str, entry: Entry, digest: bytes, file: FileIO) -> Iterator[bytes]:
    """
    Yield a file's content, and check that it has this digest.

    :raises RayPackageError: if the content has changed.
    """
    content, size = hashlib.sha256(), 0
    for data in pieces(root, entry, file):
        content.update(data)
        size += len(data)
        if size > entry.size:
            raise _changed(root, entry)
        if size == entry.size and content.digest() != digest:
            raise _changed(root, entry)
        yield data
    if size < entry.size:
        raise _changed(root, entry)


def _changed(root: str, entry: Entry) -> RayPackageError:
    return RayPackageError(
        f"{f'{root}/{entry.name}'!r} changed while it was packed; try again when nothing writes to it, or name it in "
        "runtime_env['excludes'] or in .rayignore"
    )


def write_zip(root: str, top: str, entries: Sequence[Named], sink: Sink, level: int) -> None:
    """
    Write files into a zip file, in their order.

    :param root: the folder that the files are in.
    :param top: folder in the zip file, with a slash at its end, or an empty string.
    :param entries: the files, with the digest of each.
    :param sink: the file to write, at its beginning.
    :param level: of deflate, for files that shrink.
    :raises RayPackageError: if a file has changed.
    """
    pending: deque[Future[list[_Member]]] = deque()
    file: Any = sink  # it has what ZipFile needs to write, and no more
    with zipfile.ZipFile(file, "w", compresslevel=level) as archive, ThreadPoolExecutor(THREADS) as pool:

        def write_all_but(left: int) -> None:
            while len(pending) > left:
                _append(archive, sink, pending.popleft().result())

        for lot in _lots(entries):
            if lot[0][0].size > CHUNK:
                write_all_but(0)
                _stream(archive, root, top, *lot[0])
            else:
                pending.append(pool.submit(_compressed, root, top, lot, level))
                write_all_but(LOTS)
        write_all_but(0)


def _lots(entries: Sequence[Named]) -> Iterator[list[Named]]:
    """Divide files into lots of about equal size; a large file is a lot of its own."""
    lot: list[Named] = []
    size = 0
    for named in entries:
        if lot and size + named[0].size > LOT:
            yield lot
            lot, size = [], 0
        lot.append(named)
        size += named[0].size + 1024  # opening a file takes time, too
    if lot:
        yield lot


def _info(top: str, entry: Entry) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(top + entry.name + ("/" if entry.is_folder else ""), _TIME)
    info.create_system = 3  # Unix: the attributes are a mode
    info.external_attr = (entry.mode & 0xFFFF) << 16 | (0x10 if stat.S_ISDIR(entry.mode) else 0)
    return info


def _compressed(root: str, top: str, lot: list[Named], level: int) -> list[_Member]:
    """Read and compress small files."""
    members = []
    for entry, digest in lot:
        info, data = _info(top, entry), b""
        if not entry.is_folder:
            with opened(root, entry) as file:
                data = b"".join(checked_pieces(root, entry, digest, file))
        info.CRC, info.file_size = zlib.crc32(data), len(data)
        if shrinks(_sample_of(data)):
            data, info.compress_type = zlib.compress(data, level, -zlib.MAX_WBITS), zipfile.ZIP_DEFLATED
        info.compress_size = len(data)
        members.append((info, data))
    return members


def _append(archive: zipfile.ZipFile, sink: Sink, members: list[_Member]) -> None:
    """Add members that are already compressed, as ``ZipFile.mkdir`` adds one without content."""
    sink.seek(archive.start_dir)
    for info, data in members:
        info.header_offset = sink.tell()
        sink.write(info.FileHeader(zip64=False))
        sink.write(data)
        archive.filelist.append(info)
        archive.NameToInfo[info.filename] = info
    archive.start_dir = sink.tell()


def _stream(archive: zipfile.ZipFile, root: str, top: str, entry: Entry, digest: bytes) -> None:
    """Add a large file, piece by piece."""
    info = _info(top, entry)
    info.file_size = entry.size  # decides whether the member needs zip64
    with opened(root, entry) as file:
        info.compress_type = zipfile.ZIP_DEFLATED if shrinks(_sample_of_file(file, entry.size)) else zipfile.ZIP_STORED
        info._compresslevel = archive.compresslevel  # type: ignore[attr-defined] # public from Python 3.13 on
        with archive.open(info, "w") as member:
            for data in checked_pieces(root, entry, digest, file):
                member.write(data)


def _offsets(size: int) -> tuple[int, tuple[int, ...]]:
    """Return the length of a sample's pieces, and their offsets."""
    length = max(512, min(SAMPLE, size // 16))
    return length, (0,) if size <= 2 * length else (0, (size - length) // 2, size - length)


def _sample_of(data: bytes) -> bytes:
    length, offsets = _offsets(len(data))
    return b"".join(data[offset : offset + length] for offset in offsets)


def _sample_of_file(file: FileIO, size: int) -> bytes:
    length, offsets = _offsets(size)
    try:
        return b"".join(os.pread(file.fileno(), length, offset) for offset in offsets)
    except OSError:
        return b""  # reading the file will report the error


def shrinks(sample: bytes) -> bool:
    """Return whether compression pays: deflate spends 40 ms on 1 MiB of random bytes and saves nothing."""
    # ASCII text is recognized at once; the rest is tried.
    return bool(sample) and (sample.isascii() or len(zlib.compress(sample, FAST)) < WORTHWHILE * len(sample))

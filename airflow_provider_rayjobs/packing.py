"""
A folder, a module's file or an archive as a package that Ray unpacks on the cluster.

A package is named by what is in it: names, modes and contents, which one pass reads. Only when the cluster does not
have that name yet, a second pass writes the package into a temporary file, and checks that it writes what was named.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import zipfile
import zlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from airflow_provider_rayjobs.exceptions import RayPackageError
from airflow_provider_rayjobs.folder import Entry, find_files, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from io import FileIO

#: Bytes that are held at a time; a smaller file is compressed in one piece.
CHUNK = 1024 * 1024

#: A file is compressed when samples of its beginning, middle and end, of at most so many bytes each, shrink below this
#: part of themselves.
SAMPLE = 16 * 1024
WORTHWHILE = 0.9

#: Different bytes in a sample of what is certainly no compressed or random data.
TEXT_ALPHABET = 128

#: Levels of deflate. The fast one saves nearly as much as the other, which takes several times as long and is for
#: packages that would else be too large.
FAST = 1
SMALL = 6

#: Time of all files in a package: the earliest that a zip file can say.
_TIME = (1980, 1, 1, 0, 0, 0)

#: Changes when the same files would make another package.
_FORMAT = b"airflow-provider-rayjobs package 1\n"

_PREFIX = "_ray_pkg_"
_ARCHIVES = {".zip": ".zip", ".tar.gz": ".tar.gz", ".tgz": ".tar.gz", ".tar.xz": ".tar.xz"}
_WHEEL = re.compile(r"(?P<dist>[^-]+-[^-]+)(?:-(?P<build>\d[^-]*))?(?P<tags>-[^-]+-[^-]+-[^-]+\.whl)")


class Sink(Protocol):
    """The part of a seekable binary file that a package is written to."""

    def write(self, data: bytes, /) -> int:
        """Write at the current position."""

    def tell(self) -> int:
        """Return the current position."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to another position."""

    def flush(self) -> None:
        """Hand everything to the operating system."""


@dataclass(frozen=True)
class Package:
    """
    What is to be on the cluster.

    :param name: the package's file name there, which stands for its content.
    :param source: the path that it is made of.
    :param files: what it holds.
    :param write: writes it, compressed at a level, and raises :class:`RayPackageError` when the files are no longer
        those that were named.
    :param levels: the levels to try, until the package is small enough.
    """

    name: str
    source: str
    files: Sequence[Entry]
    write: Callable[[Sink, int], None]
    levels: Sequence[int] = (0,)

    @property
    def size(self) -> int:
        """Bytes of the files, before compression."""
        return sum(entry.size for entry in self.files)


def pack_folder(folder: str, excludes: Sequence[str], ignore_files: Sequence[str], *, inside: bool) -> Package:
    """
    Name the package of a folder's files, as ``create_package`` of Ray's ``packaging.py`` packs them.

    :param folder: the folder.
    :param excludes: gitignore patterns, relative to the folder.
    :param ignore_files: names of files that hold such patterns.
    :param inside: whether the package holds the folder itself, as ``py_modules`` need it, or only what is in it.
    :raises RayPackageError: something can't be read.
    :raises ValueError: a pattern of ``excludes`` can't be read.
    """
    root = os.path.abspath(folder)  # noqa: PTH100 - links in it are kept, as Ray does
    top = f"{Path(root).name}/" if inside else ""
    return _pack(folder, root, top, find_files(root, excludes, ignore_files))


def pack_module(path: str) -> Package:
    """
    Name the package of a module that is one file.

    :raises RayPackageError: it can't be read.
    """
    full = os.path.abspath(path)  # noqa: PTH100
    return _pack(path, str(Path(full).parent), "", [_entry_of(full)])


def pack_archive(path: str) -> Package:
    """
    Name an archive or a wheel, which is sent as it is.

    A wheel keeps the name that pip needs, but for a build tag that stands for its content: Ray calls it by its name
    alone, and would go on using an earlier build of the same version.

    :raises RayPackageError: it can't be read, or is not what its name says.
    """
    full = os.path.abspath(path)  # noqa: PTH100
    root, file_name = os.path.split(full)
    extension = next((e for e in (*_ARCHIVES, ".whl") if file_name.endswith(e)), "")
    known = _entry_of(full)
    broken = extension in (".zip", ".whl") and not zipfile.is_zipfile(full)
    wheel = _WHEEL.fullmatch(file_name)
    if broken or (extension == ".whl" and not wheel):
        raise RayPackageError(f"{path!r} is no {'wheel' if extension == '.whl' else 'zip file'}; build it anew")
    [(entry, digest)] = _digests(root, [known])
    if wheel:
        name = f"{wheel['dist']}-{wheel['build'] or 0}_{digest.hex()[:16]}{wheel['tags']}"
    else:
        name = f"{_PREFIX}{digest.hex()[:40]}{_ARCHIVES[extension]}"
    return Package(name, path, [entry], partial(_copy, root, entry, digest))


def is_archive(path: str) -> bool:
    """Whether a file's name is that of an archive that Ray unpacks."""
    return path.endswith(tuple(_ARCHIVES))


def _entry_of(path: str) -> Entry:
    try:
        known = Path(path).stat()
    except OSError as e:
        raise unreadable(path, "", e) from e
    return Entry(Path(path).name, known.st_mode, known.st_size)


def _pack(source: str, root: str, top: str, found: list[Entry]) -> Package:
    entries = _digests(root, found)
    named = hashlib.sha256(_FORMAT)
    for entry, digest in entries:
        where = (top + entry.name).encode()
        named.update(b"%d %o %d %s" % (len(where), entry.mode, entry.size, where) + digest)
    write = partial(_write_zip, root, top, entries)
    return Package(
        f"{_PREFIX}{named.hexdigest()[:40]}.zip", source, [entry for entry, _ in entries], write, (FAST, SMALL)
    )


def _digests(root: str, entries: Sequence[Entry]) -> list[tuple[Entry, bytes]]:
    """Read all files; return each with the size that was read, and the digest of its content."""
    found = []
    for entry in entries:
        content, size = hashlib.sha256(), 0
        if not entry.is_folder:
            with _opened(root, entry) as file:
                for data in _pieces(root, entry, file):
                    content.update(data)
                    size += len(data)
        found.append((entry if entry.size == size else replace(entry, size=size), content.digest()))
    return found


def _opened(root: str, entry: Entry) -> FileIO:
    try:
        return open(f"{root}/{entry.name}", "rb", buffering=0)  # noqa: PTH123
    except FileNotFoundError as e:
        raise _changed(root, entry) from e
    except OSError as e:
        raise unreadable(root, entry.name, e) from e


def _pieces(root: str, entry: Entry, file: FileIO) -> Iterator[bytes]:
    try:
        while data := file.read(min(CHUNK, max(SAMPLE, entry.size + 1))):
            yield data
    except OSError as e:
        raise unreadable(root, entry.name, e) from e


def _checked_pieces(root: str, entry: Entry, digest: bytes, file: FileIO) -> Iterator[bytes]:
    """
    Yield the content that has this digest.

    :raises RayPackageError: the content has changed.
    """
    content, size = hashlib.sha256(), 0
    for data in _pieces(root, entry, file):
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


def _copy(root: str, entry: Entry, digest: bytes, sink: Sink, _level: int) -> None:
    with _opened(root, entry) as file:
        for data in _checked_pieces(root, entry, digest, file):
            sink.write(data)


def _write_zip(root: str, top: str, entries: Sequence[tuple[Entry, bytes]], sink: Sink, level: int) -> None:
    with zipfile.ZipFile(sink, "w", compresslevel=level) as archive:  # type: ignore[call-overload]
        for entry, digest in entries:
            info = zipfile.ZipInfo(top + entry.name + ("/" if entry.is_folder else ""), _TIME)
            info.create_system = 3  # Unix: the attributes are a mode
            info.external_attr = (entry.mode & 0xFFFF) << 16 | (stat.S_ISDIR(entry.mode) and 0x10)
            if entry.is_folder:
                archive.writestr(info, b"")
                continue
            with _opened(root, entry) as file:
                _write_member(archive, info, _checked_pieces(root, entry, digest, file), entry.size, file)


def _write_member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, pieces: Iterator[bytes], size: int, file: FileIO
) -> None:
    kind = zipfile.ZIP_DEFLATED if _shrinks(file, size) else zipfile.ZIP_STORED
    if size <= CHUNK:
        archive.writestr(info, b"".join(pieces), kind, archive.compresslevel)
        return
    info.compress_type, info.file_size = kind, size  # the size decides whether the member needs zip64
    info._compresslevel = archive.compresslevel  # type: ignore[attr-defined] # public from Python 3.13 on
    with archive.open(info, "w") as member:
        for data in pieces:
            member.write(data)


def _shrinks(file: FileIO, size: int) -> bool:
    """Whether compression pays, by a sample: deflate takes 40 ms to find nothing in 1 MiB of random bytes."""
    length = max(512, min(SAMPLE, size // 16))
    offsets = (0,) if size <= 2 * length else (0, (size - length) // 2, size - length)
    try:
        sample = b"".join(os.pread(file.fileno(), length, offset) for offset in offsets)
    except OSError:
        return False  # reading it will say why
    # Text uses few of all bytes; that is seen sooner than deflate could try.
    return 0 < len(set(sample)) <= TEXT_ALPHABET or len(zlib.compress(sample, FAST)) < WORTHWHILE * len(sample)

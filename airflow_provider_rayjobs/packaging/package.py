"""
Makes packages, which Ray unpacks on the cluster, of a folder, a module's file or an archive.

A package is named by its content: names, modes and contents of its files, which one pass reads. If the cluster does not
have that name yet, a second pass writes the package into a temporary file, and checks that the files are unchanged.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.exceptions import RayPackageError
from airflow_provider_rayjobs.packaging.folder import Entry, find_files, unreadable
from airflow_provider_rayjobs.packaging.zip_file import (
    CHUNK,
    FAST,
    SMALL,
    Named,
    Sink,
    checked_pieces,
    opened,
    pieces,
    write_zip,
)
from airflow_provider_rayjobs.text.safe_text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: To be changed when the same files would make a different package.
_FORMAT = b"airflow-provider-rayjobs package 1\n"

_PREFIX = "_ray_pkg_"

#: The folder at the top of a package in object storage. When Ray unpacks an archive from there, it removes a folder
#: that holds all else (``remove_top_level_directory`` in Ray's ``packaging.py``), which may be the author's own.
WRAPPER = "package/"

_ARCHIVES = {".zip": ".zip", ".tar.gz": ".tar.gz", ".tgz": ".tar.gz", ".tar.xz": ".tar.xz"}
#: What reading a broken or encrypted archive may raise.
_BROKEN = (OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)
_WHEEL = re.compile(r"(?P<dist>[^-]+-[^-]+)(?:-(?P<build>\d[^-]*))?(?P<tags>-[^-]+-[^-]+-[^-]+\.whl)")


@dataclass(frozen=True)
class Package:
    """
    A package that the cluster needs.

    :param name: the package's file name on the cluster, which stands for its content.
    :param source: the path that it is made from.
    :param files: the files in it.
    :param write: writes it, compressed at a level; raises :class:`RayPackageError` if the files have changed since.
    :param levels: compression levels to try, until the package is small enough.
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


def pack_folder(
    folder: str, excludes: Sequence[str], ignore_files: Sequence[str], *, inside: bool, wrap: bool = False
) -> Package:
    """
    Describe the package of a folder's files, packed as by ``create_package`` of Ray's ``packaging.py``.

    :param folder: the folder.
    :param excludes: gitignore patterns, relative to the folder.
    :param ignore_files: names of files that hold such patterns.
    :param inside: whether the package holds the folder itself, as ``py_modules`` need it, or only its content.
    :param wrap: whether all is in one more folder, which Ray removes; see :data:`WRAPPER`.
    :raises RayPackageError: if a file, a folder or a pattern can't be read.
    """
    root = os.path.abspath(folder)  # noqa: PTH100 - links in it are kept, as Ray does
    top = f"{Path(root).name}/" if inside else ""
    if not top.isprintable() or "\\" in top:  # names that are not UTF-8 are not printable, either
        raise RayPackageError(f"{os.fsencode(root)!r}: a module can't have this name; rename the folder")
    return _pack(folder, root, top, find_files(root, excludes, ignore_files), wrap)


def pack_module(path: str) -> Package:
    """
    Describe the package of a module that is one file.

    :raises RayPackageError: if it can't be read.
    """
    full = os.path.abspath(path)  # noqa: PTH100 - links in it are kept, as Ray does
    return _pack(path, str(Path(full).parent), "", [_entry_of(full)])


def pack_archive(path: str, *, wrap: bool = False) -> Package:
    """
    Describe an archive or a wheel, which is sent unchanged.

    A wheel keeps the name that pip needs, with a build tag that stands for its content: Ray identifies a wheel by its
    name only, and would keep using an earlier build of the same version.

    :param wrap: whether all in an archive is put into one more folder, which Ray removes; see :data:`WRAPPER`.
    :raises RayPackageError: if it can't be read, or is not of the type that its name says.
    """
    full = os.path.abspath(path)  # noqa: PTH100 - links in it are kept, as Ray does
    root, file_name = os.path.split(full)
    extension = next((e for e in (*_ARCHIVES, ".whl") if file_name.endswith(e)), "")
    known = _entry_of(full)
    broken = extension in (".zip", ".whl") and not zipfile.is_zipfile(full)
    wheel = _WHEEL.fullmatch(file_name)
    if broken or (extension == ".whl" and not wheel):
        raise RayPackageError(f"{path!r} is not a {'wheel' if extension == '.whl' else 'zip file'}; build it again")
    [(entry, digest)] = _digests(root, [known])
    if wheel:
        name = f"{wheel['dist']}-{wheel['build'] or 0}_{digest.hex()[:16]}{wheel['tags']}"
    elif wrap:
        digest_in_folder = hashlib.sha256(_FORMAT + WRAPPER.encode() + digest).hexdigest()
        kind, write = (".zip", _wrap_zip) if extension == ".zip" else (".tar.gz", _wrap_tar)
        name = f"{_PREFIX}{digest_in_folder[:40]}{kind}"
        return Package(name, path, [entry], partial(_wrap_archive, write, root, entry, digest), (FAST,))
    else:
        name = f"{_PREFIX}{digest.hex()[:40]}{_ARCHIVES[extension]}"
    return Package(name, path, [entry], partial(_copy, root, entry, digest))


def is_archive(path: str) -> bool:
    """Return whether a file's name is that of an archive that Ray unpacks."""
    return path.endswith(tuple(_ARCHIVES))


def _entry_of(path: str) -> Entry:
    try:
        known = Path(path).stat()
    except OSError as e:
        raise unreadable(path, "", e) from e
    return Entry(Path(path).name, known.st_mode, known.st_size)


def _pack(source: str, root: str, top: str, found: list[Entry], wrap: bool = False) -> Package:
    top = WRAPPER + top if wrap else top
    entries = _digests(root, found)
    named = hashlib.sha256(_FORMAT)
    for entry, digest in entries:
        where = (top + entry.name).encode()
        named.update(b"%d %o %d %s" % (len(where), entry.mode, entry.size, where) + digest)
    write = partial(write_zip, root, top, entries)
    return Package(
        f"{_PREFIX}{named.hexdigest()[:40]}.zip", source, [entry for entry, _ in entries], write, (FAST, SMALL)
    )


def _digests(root: str, entries: Sequence[Entry]) -> list[Named]:
    """Read all files; return each with the size that was read, and the digest of its content."""
    found = []
    for entry in entries:
        content, size = hashlib.sha256(), 0
        if not entry.is_folder:
            with opened(root, entry) as file:
                for data in pieces(root, entry, file):
                    content.update(data)
                    size += len(data)
        found.append((entry if entry.size == size else replace(entry, size=size), content.digest()))
    return found


def _copy(root: str, entry: Entry, digest: bytes, sink: Sink, _level: int) -> None:
    with opened(root, entry) as file:
        for data in checked_pieces(root, entry, digest, file):
            sink.write(data)


def _wrap_archive(
    write: Callable[[str, Sink, int], None], root: str, entry: Entry, digest: bytes, sink: Sink, level: int
) -> None:
    """Write an archive's content into one more folder."""
    try:
        write(f"{root}/{entry.name}", sink, level)
    except _BROKEN as e:
        reason = one_line(str(e), 200)
        raise RayPackageError(
            f"{f'{root}/{entry.name}'!r} can't be read as an archive ({reason}); build it again"
        ) from e
    with opened(root, entry) as file:  # unchanged?
        for _ in checked_pieces(root, entry, digest, file):
            pass


def _wrap_zip(path: str, sink: Sink, level: int) -> None:
    file: Any = sink  # it has what ZipFile needs to write
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(file, "w", compresslevel=level) as target:
        for info in source.infolist():
            wrapped: Any = copy(info)
            wrapped.filename = WRAPPER + info.filename
            wrapped._compresslevel = level  # public from Python 3.13 on
            if info.is_dir():
                target.writestr(wrapped, b"")
                continue
            with source.open(info) as content, target.open(wrapped, "w") as copied:
                shutil.copyfileobj(content, copied, CHUNK)


def _wrap_tar(path: str, sink: Sink, level: int) -> None:
    file: Any = sink  # it has what GzipFile needs to write
    with (
        tarfile.open(path) as source,
        gzip.GzipFile("", "wb", level, file, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w|") as target,
    ):
        for member in source:
            member.name = WRAPPER + member.name
            member.pax_headers = {}  # they may hold the name without the folder
            if member.islnk():
                member.linkname = WRAPPER + member.linkname
            target.addfile(member, source.extractfile(member) if member.isreg() else None)

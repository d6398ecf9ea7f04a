"""
Finds the files of a folder that belong in its package, in one walk that does not enter excluded folders.

The rules are those of Ray's own client (``_zip_files`` of ``_private/runtime_env/packaging.py``): links are followed,
also out of the folder; empty folders are kept; what is neither a file nor a folder is left out.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_rayjobs.exceptions import RayPackageError
from airflow_provider_rayjobs.packaging.ignore_rules import IgnoreRules, read_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

#: Most names that are listed for each reason why something was left out.
NAMES_LISTED = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One file, or one empty folder.

    :param name: path below the folder, with ``/``.
    :param mode: file type and permissions, as ``st_mode``.
    :param size: bytes.
    """

    name: str
    mode: int
    size: int

    @property
    def is_folder(self) -> bool:
        """Whether it is an empty folder."""
        return stat.S_ISDIR(self.mode)


#: Mode of all empty folders: Ray does not restore theirs, so it must not change the package's name.
EMPTY_FOLDER = stat.S_IFDIR | 0o755

#: Rules that apply in a folder, each with the length of the path prefix of the folder that they stand in.
_Rules = tuple[tuple[int, IgnoreRules], ...]
#: Device and inode.
_Identity = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Folder:
    name: str
    rules: _Rules
    above: frozenset[_Identity]  # this folder and the folders that it is in


class _LeftOut:
    """Collects what is left out although no rule excludes it, and warns about it in a bounded number of words."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._names: dict[str, list[str]] = defaultdict(list)
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, reason: str, name: str) -> None:
        self._counts[reason] += 1
        if len(self._names[reason]) < NAMES_LISTED:
            self._names[reason].append(name)

    def warn(self) -> None:
        for reason, names in self._names.items():
            more = self._counts[reason] - len(names)
            listed = ", ".join(map(repr, names)) + (f" and {more} more" if more else "")
            log.warning("Left out of the package of %s: %s (%s)", self._root, listed, reason)


def find_files(root: str, excludes: Sequence[str], ignore_files: Sequence[str]) -> list[Entry]:
    """
    List the files of a folder that belong in its package, sorted by name.

    :param root: the folder.
    :param excludes: gitignore patterns, relative to ``root``.
    :param ignore_files: names of files that hold such patterns, in any folder.
    :raises RayPackageError: if a file, a folder or a pattern can't be read.
    """
    found: list[Entry] = []
    left_out = _LeftOut(root)
    try:
        given = IgnoreRules(excludes)
    except ValueError as e:
        raise RayPackageError(f"runtime_env['excludes']: {e}") from e
    stack = [_Folder("", ((0, given),) if given else (), frozenset({_identity(root)}))]
    while stack:
        folder = stack.pop()
        try:
            stack += _read_folder(root, folder, ignore_files, found, left_out)
        except OSError as e:
            raise unreadable(root, folder.name, e) from e
    left_out.warn()
    found.sort(key=lambda entry: entry.name)
    return found


def unreadable(root: str, name: str, error: OSError) -> RayPackageError:
    """Return the error for a path that can't be read."""
    path = f"{root}/{name}" if name else root
    return RayPackageError(
        f"{path!r} can't be read ({error.strerror or error}); let the Airflow worker's user read it, or name it in "
        "runtime_env['excludes'] or in .rayignore"
    )


def _identity(path: str) -> _Identity:
    try:
        known = os.stat(path)  # noqa: PTH116 - as everywhere below: paths are strings here, for speed
    except OSError as e:
        raise unreadable(path, "", e) from e
    return known.st_dev, known.st_ino


def _read_folder(
    root: str, folder: _Folder, ignore_files: Sequence[str], found: list[Entry], left_out: _LeftOut
) -> list[_Folder]:
    """Add a folder's files to ``found``; return the folders in it that remain to be read."""
    path = f"{root}/{folder.name}" if folder.name else root
    prefix = f"{folder.name}/" if folder.name else ""
    inner: list[_Folder] = []
    empty = True
    if any(rules.exclude_all_below(folder.name[base:]) for base, rules in folder.rules if folder.name):
        with os.scandir(path) as children:
            empty = next(children, None) is None
    else:
        rules = folder.rules + _rules_of(path, len(prefix), ignore_files)
        with os.scandir(path) as children:
            for child in children:
                empty = False
                name = prefix + child.name
                if any(rule.exclude(name[base:]) for base, rule in rules):
                    continue
                if (below := _read_child(root, folder, child, name, found, left_out)) is not None:
                    inner.append(_Folder(name, rules, below))
    if empty and folder.name:
        found.append(Entry(folder.name, EMPTY_FOLDER, 0))
    return inner


def _read_child(
    root: str, folder: _Folder, child: os.DirEntry[str], name: str, found: list[Entry], left_out: _LeftOut
) -> frozenset[_Identity] | None:
    """Add a file to ``found``; for a folder that remains to be read, return it and the folders above it."""
    try:
        known = child.stat()
    except OSError as e:
        if e.errno not in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            raise unreadable(root, name, e) from e
        left_out.add("a link that leads nowhere" if child.is_symlink() else "deleted meanwhile", name)
        return None
    if "\\" in name or name[1:2] == ":":
        left_out.add("Ray does not unpack names with a backslash or a drive letter", name)
    elif not _is_text(name):
        raise RayPackageError(f"{os.fsencode(f'{root}/{name}')!r}: the name is not UTF-8; rename or exclude it")
    elif stat.S_ISREG(known.st_mode):
        found.append(Entry(name, known.st_mode, known.st_size))
    elif not stat.S_ISDIR(known.st_mode):
        left_out.add("neither file nor folder", name)
    elif (identity := (known.st_dev, known.st_ino)) in folder.above:
        left_out.add("a link to a folder that it is in", name)
    else:
        return folder.above | {identity}
    return None


def _rules_of(path: str, base: int, ignore_files: Sequence[str]) -> _Rules:
    """Return the rules of a folder's own ignore files."""
    rules = []
    for ignore_file in ignore_files:
        where = f"{path}/{ignore_file}"
        if not os.path.isfile(where):  # noqa: PTH113 - for every folder: Path is slow
            continue
        try:
            with open(where, "rb") as file:  # noqa: PTH123 - as above
                read = IgnoreRules(read_lines(file.read()))
        except OSError as e:
            raise unreadable(where, "", e) from e
        except ValueError as e:
            raise RayPackageError(f"{where!r}: {e}") from e
        if read:
            rules.append((base, read))
    return tuple(rules)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True

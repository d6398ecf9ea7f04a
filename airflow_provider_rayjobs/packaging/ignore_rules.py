"""
Decides which files of a folder stay out of its package, by ``excludes``, ``.gitignore`` and ``.rayignore``.

The rules are those of Ray (``get_excludes_from_ignore_files`` of ``_private/runtime_env/packaging.py``): a path is left
out if *any* set of patterns that applies to it excludes it. So a ``!`` re-includes only what its own file or list
excludes; unlike in git, it can re-include a path below an excluded ``name/``. The syntax is gitignore's, parsed by
``pathspec``.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Some editors begin a UTF-8 file with this.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

#: A UTF-16 file begins with one of these; git finds no pattern in it.
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")

#: A name that only patterns for all names match.
_ANY_NAME = "\x01\x02\x01"


class IgnoreRules:
    """
    The patterns of one file or list. Paths are relative to the folder that it stands in, with ``/``.

    :param lines: the patterns, in gitignore's syntax.
    :raises ValueError: if a pattern can't be read.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        patterns = [_read(line.removesuffix("\n").removesuffix("\r")) for line in lines]
        # The last pattern that matches decides.
        self._patterns = [(p.include, p.regex.search) for p in reversed(patterns) if p.include is not None]
        self._re_includes = not all(include for include, _ in self._patterns)

    def __bool__(self) -> bool:
        """Whether there is any pattern."""
        return bool(self._patterns)

    def exclude(self, path: str) -> bool:
        """Return whether a file, or a folder with all that is in it, is left out."""
        for include, search in self._patterns:
            if search(path):
                return bool(include)
        return False

    def exclude_all_below(self, folder: str) -> bool:
        """Return whether everything in a folder is left out, whatever its name; then the folder need not be read."""
        if self._re_includes:
            return False
        below = f"{folder}/{_ANY_NAME}/{_ANY_NAME}"
        # `name/` matches the folder itself; a pattern with wildcards that happens to match it must match any name too.
        return any(search(f"{folder}/") and search(below) for _, search in self._patterns)


def read_lines(content: bytes) -> list[str]:
    """
    Return the lines of an ignore file as git reads them; bytes that are not UTF-8 are decoded as in file names.

    :param content: the file.
    :raises ValueError: if it is UTF-16.
    """
    if content.startswith(_UTF_16_MARKS):
        raise ValueError("it is UTF-16, in which git finds no pattern; save it as UTF-8")
    return content.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "surrogateescape").split("\n")


def _read(line: str) -> Any:
    """
    Read a line.

    :raises ValueError: if it is not a valid pattern; the message names it.
    """
    if line.strip() == "/":  # in git it matches nothing
        line = ""
    if re.search(r"\[\[[:.=]", line):  # pathspec would match the letters of their names
        raise ValueError(f"the pattern {line!r} can't be read (classes such as [[:digit:]]); write [0-9]")
    try:
        return _pattern_class()(line)
    except (ValueError, re.error) as e:  # only the compiler finds faults in brackets
        problem = str(e).partition(" at position ")[0]
        raise ValueError(f"the pattern {line!r} can't be read ({problem}); correct it") from None


@cache
def _pattern_class() -> Any:
    """Return the class that parses one gitignore pattern as git documents it; pathspec 1 renamed it."""
    try:
        from pathspec.patterns.gitignore.basic import GitIgnoreBasicPattern
    except ImportError:
        from pathspec.patterns.gitwildmatch import GitWildMatchPattern

        return GitWildMatchPattern
    return GitIgnoreBasicPattern

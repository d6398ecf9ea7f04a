"""
Which files of a folder stay out of its package: ``excludes``, ``.gitignore`` and ``.rayignore``.

The rules are those of Ray (``get_excludes_from_ignore_files`` of ``_private/runtime_env/packaging.py``): a path is left
out when *any* set of patterns that applies to it leaves it out. So a ``!`` takes back only what its own file or list
excludes; unlike with git, it can take back a path below an excluded ``name/``. The syntax is gitignore's, read by
``pathspec``.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What editors write at the beginning of a file in UTF-8.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

#: What begins a file in UTF-16, in which nobody, git included, finds a pattern.
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")

#: A name that no pattern means unless it means everything.
_ANY_NAME = "\x01\x02\x01"


class IgnoreRules:
    """
    The patterns of one file or list. Paths are relative to the folder that it stands in, with ``/``.

    :param lines: the patterns, in gitignore's syntax.
    :raises ValueError: a pattern can't be read.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        patterns = [_read(line.removesuffix("\n").removesuffix("\r")) for line in lines]
        # The last pattern that matches decides.
        self._patterns = [(p.include, p.regex.search) for p in reversed(patterns) if p.include is not None]
        self._takes_back = not all(include for include, _ in self._patterns)

    def __bool__(self) -> bool:
        """Whether there is any pattern."""
        return bool(self._patterns)

    def exclude(self, path: str) -> bool:
        """Whether a file, or a folder with all that is in it, is left out."""
        for include, search in self._patterns:
            if search(path):
                return bool(include)
        return False

    def exclude_all_below(self, folder: str) -> bool:
        """Whether everything in a folder is left out, whatever it is called: then nobody has to look."""
        if self._takes_back:
            return False
        below = f"{folder}/{_ANY_NAME}/{_ANY_NAME}"
        # `name/` matches the folder itself; a pattern with wildcards that happens to match it must match any name too.
        return any(search(f"{folder}/") and search(below) for _, search in self._patterns)


def read_lines(content: bytes) -> list[str]:
    """
    Return the lines of an ignore file as git finds them; bytes that are not UTF-8 come as they do in names of files.

    :param content: the file.
    :raises ValueError: it is not UTF-8, but UTF-16.
    """
    if content.startswith(_UTF_16_MARKS):
        raise ValueError("it is UTF-16, in which git finds no pattern; save it as UTF-8")
    return content.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "surrogateescape").split("\n")


def _read(line: str) -> Any:
    """
    Read a line.

    :raises ValueError: it is not a pattern; the message names it.
    """
    if line.strip() == "/":  # to git it matches nothing
        line = ""
    if re.search(r"\[\[[:.=]", line):  # pathspec takes the letters of their names
        raise ValueError(f"the pattern {line!r} can't be read (classes such as [[:digit:]]); write [0-9]")
    try:
        return _pattern_class()(line)
    except (ValueError, re.error) as e:  # what is wrong with brackets only the compiler finds
        problem = str(e).partition(" at position ")[0]
        raise ValueError(f"the pattern {line!r} can't be read ({problem}); correct it") from None


@cache
def _pattern_class() -> Any:
    """Return what reads one gitignore pattern as documented by git; pathspec 1 has renamed it."""
    try:
        from pathspec.patterns.gitignore.basic import GitIgnoreBasicPattern
    except ImportError:
        from pathspec.patterns.gitwildmatch import GitWildMatchPattern

        return GitWildMatchPattern
    return GitIgnoreBasicPattern

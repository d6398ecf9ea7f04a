"""
Which files of a folder stay out of its package: ``excludes``, ``.gitignore`` and ``.rayignore``.

Which rules apply is as with Ray (``get_excludes_from_ignore_files`` of ``_private/runtime_env/packaging.py``): a path
is left out when *any* set of patterns that applies to it leaves it out. So a ``!`` takes back only what its own file or
list excludes; unlike with git, it can take back a path below an excluded ``name/``.

What a line means is as with git (``dir.c`` and ``wildmatch.c``), but for two things: ``?`` and ``[…]`` stand for a
character, not for a byte; and a pattern that git takes, though it can't match what it says, is an error.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: What editors write at the beginning of a file in UTF-8.
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

#: What begins a file in UTF-16, in which nobody, git included, finds a pattern.
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")

#: The classes in brackets, ``[[:digit:]]``, as parts of a bracket expression of ``re``.
_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r" \t-\r",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}


class IgnoreRules:
    """
    The patterns of one file or list. Paths are relative to the folder that it stands in, with ``/``.

    :param lines: the patterns, in gitignore's syntax.
    :raises ValueError: a pattern can't be read; the message names it.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        # The last pattern that matches decides.
        self._patterns = [(e, p.match) for e, p in reversed([*filter(None, map(_read_line, lines))])]
        self._takes_back = not all(exclude for exclude, _ in self._patterns)

    def __bool__(self) -> bool:
        """Whether there is any pattern."""
        return bool(self._patterns)

    def exclude(self, path: str) -> bool:
        """Whether a file, or a folder with all that is in it, is left out."""
        for exclude, match in self._patterns:
            if match(path):
                return exclude
        return False

    def exclude_all_below(self, folder: str) -> bool:
        """Whether everything in a folder is left out, whatever it is called: then nobody has to look."""
        # `name/` matches the folder itself, and no name in it, so what matches here would match any.
        return not self._takes_back and self.exclude(f"{folder}/")


def read_lines(content: bytes) -> list[str]:
    """
    Return the lines of an ignore file as git finds them; bytes that are not UTF-8 come as they do in names of files.

    :param content: the file.

    :raises ValueError: it is not UTF-8, but UTF-16.
    """
    if content.startswith(_UTF_16_MARKS):
        raise ValueError("it is UTF-16, in which git finds no pattern; save it as UTF-8")
    return content.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "surrogateescape").split("\n")


def _read_line(line: str) -> tuple[bool, re.Pattern[str]] | None:
    """
    Return whether a line excludes what it matches, and what that is; None for a comment and for a line without pattern.

    :raises ValueError: the pattern can't be read.
    """
    line = line.removesuffix("\n").removesuffix("\r")
    if line.startswith("#"):
        return None
    text = line.rstrip(" ")
    if text != line and _ends_in_escape(text):
        text += " "
    exclude = not text.startswith("!")
    pattern = text.removeprefix("!")
    if not text or pattern == "/":  # git matches nothing with it
        return None
    try:
        return exclude, re.compile(_to_regex(pattern), re.DOTALL)
    except ValueError as e:
        raise ValueError(f"the pattern {text!r} {e}") from None


def _ends_in_escape(text: str) -> bool:
    """Whether a text ends in a backslash that no other one escapes."""
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


def _to_regex(pattern: str) -> str:
    """
    Return what matches the paths of a pattern, and all that is below them.

    :raises ValueError: the pattern can't be read.
    """
    if not pattern:
        raise ValueError("says nothing after the '!'; name what is to be taken back")
    # At the end the slash demands a folder; anywhere else it ties the pattern to the folder of the rules.
    end = "/" if pattern.endswith("/") else r"(?:/|\Z)"
    pattern = pattern.removesuffix("/")
    tied = "/" in pattern
    pattern = pattern.removeprefix("/")
    regex, i = "" if tied else "(?:.*/)?", 0
    literal = True  # nothing but plain characters so far
    while i < len(pattern):
        if stars := re.compile(r"\*+").match(pattern, i):
            alone = tied and len(stars[0]) > 1 and (literal or pattern[i - 1] == "/")
            slash = re.compile(r"\\?/|\Z").match(pattern, stars.end())
            if alone and slash:
                regex += "(?:.*/)?" if slash[0] else ".*"
                i = slash.end()
            else:
                regex += "[^/]*"
                i = stars.end()
        elif pattern[i] == "[":
            part, i = _bracket_to_regex(pattern, i + 1)
            regex += part
        elif pattern[i] == "?":
            regex += "[^/]"
            i += 1
        else:
            i += pattern[i] == "\\"
            if i == len(pattern):
                raise ValueError("ends in a backslash; write two for the character")
            regex += re.escape(pattern[i])
            i += 1
            continue
        literal = False
    return regex + end


def _bracket_to_regex(pattern: str, i: int) -> tuple[str, int]:
    """
    Translate a bracket expression, which matches no slash.

    :param i: where it begins, after the bracket.
    :return: what it is for ``re``, and where it ends.
    :raises ValueError: it can't be read.
    """
    negated = pattern[i : i + 1] in ("!", "^")
    i += negated
    members, first = "", i
    while True:
        if named := re.compile(r"\[:([^\]]*):\]").match(pattern, i):
            if named[1] not in _CLASSES:
                raise ValueError(f"has the unknown class [:{named[1]}:]; git knows {', '.join(_CLASSES)}")
            members += _CLASSES[named[1]]
            i = named.end()
            continue
        if pattern[i : i + 1] == "]" and i > first:
            break
        low, i = _member(pattern, i)
        members += re.escape(low)
        if pattern[i : i + 1] == "-" and pattern[i + 1 : i + 2] not in ("]", ""):
            high, i = _member(pattern, i + 1)
            if high < low:
                raise ValueError(f"has the range '{low}-{high}', which runs backwards; turn it round")
            members += f"-{re.escape(high)}"
    return f"[^/{members}]" if negated else f"(?!/)[{members}]", i + 1


def _member(pattern: str, i: int) -> tuple[str, int]:
    """Return one character of a bracket expression, and where the next one begins."""
    i += pattern[i : i + 1] == "\\"
    if i >= len(pattern):
        raise ValueError("has a '[' without a ']'; write a backslash before it for the character")
    return pattern[i], i + 1

"""The text of a Python file, and changes of parts of it; all else stays as it is, with comments and layout."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Longest line that is made of several arguments.
MOST_COLUMNS = 110


@dataclass(frozen=True)
class Item:
    """
    An argument of a call, or an entry of a dict.

    :param text: what to write; None to leave it out.
    :param start: where it was in the file; None for a new one.
    :param end: where it ended.
    """

    text: str | None
    start: int | None = None
    end: int | None = None


@dataclass
class _Line:
    text: str
    above: list[str] = field(default_factory=list)
    beside: str = ""


class Source:
    """
    A Python file, which is parsed and never executed.

    :param content: the file's content.
    :raises SyntaxError: it is not valid Python.
    """

    def __init__(self, content: bytes) -> None:
        self._encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        try:
            self.text = content.decode(self._encoding)
            self.tree = ast.parse(self.text)
        except ValueError as e:  # also of a NUL character, and of a wrong encoding
            raise SyntaxError(str(e)) from e
        # As Python counts lines; str.splitlines() knows more ends of lines.
        self._lines = re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+$", self.text)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))
        self.newline = next((found for found in ("\r\n", "\n", "\r") if found in self.text), "\n")
        tokens = tokenize.generate_tokens(io.StringIO(self.text, newline="").readline)
        self._comments = [
            (self._starts[token.start[0] - 1] + token.start[1], token.string.rstrip())
            for token in tokens
            if token.type == tokenize.COMMENT
        ]
        self._edits: list[tuple[int, int, str]] = []

    # Positions

    def _index(self, line: int, column: int) -> int:
        """Return the index of a position of :mod:`ast`, which counts the bytes of a line in UTF-8."""
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())

    def start(self, node: ast.AST) -> int:
        """Return where a node begins."""
        return self._index(node.lineno, node.col_offset)  # type: ignore[attr-defined]

    def end(self, node: ast.AST) -> int:
        """Return where a node ends."""
        return self._index(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]

    def segment(self, node: ast.AST) -> str:
        """Return the text of a node."""
        return self.text[self.start(node) : self.end(node)]

    def indent(self, index: int) -> str:
        """Return the white space at the beginning of the line at an index."""
        line = self.text[self._line_start(index) : index]
        return line[: len(line) - len(line.lstrip(" \t"))]

    def _line_start(self, index: int) -> int:
        return max(self.text.rfind("\n", 0, index), self.text.rfind("\r", 0, index)) + 1

    def _begins_line(self, index: int) -> bool:
        return not self.text[self._line_start(index) : index].strip()

    # Changes

    def replace(self, node: ast.AST, text: str) -> None:
        """Write another text in place of a node."""
        self._edits.append((self.start(node), self.end(node), text))

    def remove_statement(self, node: ast.stmt) -> None:
        """Remove a statement that has its lines for itself; else replace it by ``pass``."""
        begin, end = self.start(node), self.end(node)
        rest = re.compile(r"[ \t]*(#[^\r\n]*)?(\r\n|\r|\n|$)").match(self.text, end)
        if rest and self._begins_line(begin):
            self._edits.append((self._line_start(begin), rest.end(), ""))
        else:
            self.replace(node, "pass")

    def rewrite_items(self, opened: int, closed: int, items: Sequence[Item]) -> None:
        """
        Write other arguments between the brackets of a call or a dict. Comments stay with their arguments.

        :param opened: index after the opening bracket.
        :param closed: index of the closing bracket.
        :param items: those that were there, in their order, and then the new ones.
        """
        lines, last = self._with_comments(opened, closed, items)
        places = [item for item in items if item.start is not None]
        between, at = "", opened
        for item in places:
            between, at = between + self.text[at : item.start], item.end or at
        between += self.text[at:closed]
        inline = ", ".join(line.text for line in lines)
        base = self.indent(opened)
        column = opened - self._line_start(opened)
        is_long = column + len(inline) > MOST_COLUMNS and len(lines) > 1
        if "\n" not in between and "\r" not in between and not (is_long and "\n" not in inline):
            self._edits.append((opened, closed, inline))
            return
        own_lines = [item.start for item in places if item.start is not None and self._begins_line(item.start)]
        indent = self.indent(own_lines[0]) if own_lines else base + "    "
        made = ""
        for line in lines:
            made += "".join(f"{self.newline}{indent}{comment}" for comment in line.above)
            made += f"{self.newline}{indent}{line.text}," + (f"  {line.beside}" if line.beside else "")
        made += "".join(f"{self.newline}{indent}{comment}" for comment in last)
        self._edits.append((opened, closed, f"{made}{self.newline}{base}"))

    def _with_comments(self, opened: int, closed: int, items: Sequence[Item]) -> tuple[list[_Line], list[str]]:
        """Return the items that stay, each with its comments, and the comments after the last one."""
        lines: list[_Line] = []
        at, before, waiting = opened, None, list[str]()
        for item in (*items, Item(None, closed, closed)):
            line = _Line(item.text or "")
            if item.start is not None:
                for index, comment in self._comments:
                    if at <= index < item.start:
                        same_line = self._line_start(index) <= at
                        if before is not None and same_line:
                            before.beside = comment
                        else:
                            waiting.append(comment)
                at = item.end or at
                if item.start == closed:
                    break
                before = line
            if item.text is not None:
                line.above, waiting = waiting, []
                lines.append(line)
        return lines, waiting

    @property
    def number_of_edits(self) -> int:
        """How many changes have been noted."""
        return len(self._edits)

    def drop_edits(self, number: int) -> None:
        """Forget all changes but the first ones."""
        del self._edits[number:]

    # Result

    def result(self) -> str:
        """
        Return the changed text.

        :raises SyntaxError: the result is not valid Python; this would be an error of this module.
        """
        text = self.text
        for begin, end, new in sorted(self._edits, reverse=True):
            text = text[:begin] + new + text[end:]
        ast.parse(text)
        return text

    def encoded(self, text: str) -> bytes:
        """Return a text in the file's encoding."""
        return text.encode(self._encoding)

    def line_after(self, line: int) -> int:
        """Return the number of a line in the changed text."""
        begin = self._starts[line - 1]
        for edit_begin, edit_end, new in self._edits:
            if edit_end <= begin:
                line += len(re.findall("\r\n|\r|\n", new)) - len(
                    re.findall("\r\n|\r|\n", self.text[edit_begin:edit_end])
                )
        return line

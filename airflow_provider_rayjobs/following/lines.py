"""Cuts the text of a job's log into lines; no I/O."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from airflow_provider_rayjobs.progress import FRAME_EDGE
from airflow_provider_rayjobs.text.safe_text import safe_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Longest record, in characters: Airflow loses very large ones. A longer line is written in several pieces. The last
#: piece is held back until more text arrives: it may end in the middle of a secret.
LONGEST_LINE = 16_000

#: Most lines and characters that are kept for the error of a failed job.
TAIL_LINES = 50
TAIL_CHARACTERS = 20_000

#: Characters that are cut into lines at a time, and lines that are written before other tasks get a turn: Airflow takes
#: up to 0.2 ms for each line.
SLICE = 64 * 1024
LINES_AT_ONCE = 16

#: A part of the marks of groups. Airflow's UI takes a record with one for the mark alone.
_GROUP = "group::"


class LineWriter:
    """
    Cuts text into lines, writes each once, and keeps the last ones.

    :param write: called with each line, without its line break.
    :param take: called first with each line that holds a frame; returns what to write instead, or None for nothing.
    :param public: removes secrets from text, of many lines at once where possible.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        take: Callable[[str], str | None] | None = None,
        public: Callable[[str], str] = str,
    ) -> None:
        self._write = write
        self._take = take
        self._public = public
        self._partial = ""
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        #: Whether lines are written many at once, joined by line feeds: Airflow takes as long for a record of 16,000
        #: characters as for a few short ones.
        self.together = False
        #: Characters of the log that were processed.
        self.position = 0
        self._solid = 0  # those that are no line feeds
        self._breaks = 0  # line feeds after the last of these

    def feed(self, text: str) -> None:
        """Process the next piece of the log."""
        for _ in self.steps(text):
            pass

    def steps(self, text: str) -> Iterator[None]:
        """Process the next piece of the log; exhaust the iterator, which pauses after every few lines."""
        for start in range(0, len(text), SLICE):
            piece = text[start : start + SLICE]
            self._count(piece)
            piece = self._partial + piece
            cut = piece.rfind("\n")
            self._partial = piece[cut + 1 :]
            if cut >= 0:
                yield from self._write_lines(piece[:cut])
            if len(self._partial) > 2 * LONGEST_LINE:
                self._partial = self._shown(self._partial)
                whole = (len(self._partial) - 1) // LONGEST_LINE * LONGEST_LINE - LONGEST_LINE
                if whole > 0:
                    yield from self._write_each(self._cut(self._partial[:whole]))
                    self._partial = self._partial[whole:]
            yield

    def _count(self, piece: str) -> None:
        self.position += len(piece)
        feeds = piece.count("\n")
        self._solid += len(piece) - feeds
        self._breaks = feeds + self._breaks if feeds == len(piece) else len(piece) - len(piece.rstrip("\n"))

    def from_the_start(self) -> Again:
        """Return a function that processes the log from its start again, and skips what was processed before."""
        return Again(self.steps, self._solid, self._breaks)

    def _write_lines(self, text: str) -> Iterator[None]:
        """Write whole lines; in nearly every log, ``write`` is the only call for each line."""
        if "\r" not in text and (self._take is None or FRAME_EDGE not in text):
            shown = self._shown(text)  # if a secret spans several lines, their breaks go with it
            if not _has_long_line(shown):
                yield from self._write_each(shown.split("\n"))
                return
        lines: list[str] = []
        for line in text.split("\n"):
            if self._take is not None and FRAME_EDGE in line:
                yield from self._write_each(lines)  # before what it shows
                lines = []
            lines += self._pieces(line)
            yield
        yield from self._write_each(lines)

    def _write_each(self, lines: list[str]) -> Iterator[None]:
        self._tail.extend(lines[-TAIL_LINES:])
        write, done = self._write, 0
        while done < len(lines):
            end = _fitting(lines, done) if self.together else done
            record = "\n".join(lines[done:end])
            if end == done or _GROUP in record:
                end = done + LINES_AT_ONCE
                for line in lines[done:end]:
                    write(line)
            else:
                write(record)
            done = end
            yield

    def flush(self) -> None:
        """Write the last line if the log does not end with a line break."""
        if self._partial:
            for _ in self._write_each(self._pieces(self._partial)):
                pass
            self._partial = ""

    def _pieces(self, line: str) -> list[str]:
        """Return what is shown of a whole line, in pieces if it is long."""
        rest: str | None = line.rstrip("\r")
        if self._take is not None and rest:
            rest = self._take(rest)
        return [] if rest is None else self._cut(rest)

    def _cut(self, line: str) -> list[str]:
        line = self._shown(line)
        return [line[start : start + LONGEST_LINE] for start in range(0, max(len(line), 1), LONGEST_LINE)]

    def _shown(self, text: str) -> str:
        return safe_text(self._public(text))

    def tail(self) -> tuple[str, ...]:
        """Return the last lines, within :data:`TAIL_LINES` and :data:`TAIL_CHARACTERS`."""
        kept: deque[str] = deque()
        room = TAIL_CHARACTERS
        for line in reversed(self._tail):
            room -= len(line) + 1
            if room < 0:
                break
            kept.appendleft(line)
        return tuple(kept)


class Again:
    """
    Processes a log from its start again, and skips what was processed before.

    What is skipped is counted without line feeds: if a job pauses between a carriage return and a line feed, Ray's
    stream has two line ends there, and the file has one.

    :param steps: processes text that is new.
    :param solid: number of characters to skip that are no line feeds.
    :param breaks: number of line feeds to skip after them, at most.
    """

    def __init__(self, steps: Callable[[str], Iterator[None]], solid: int, breaks: int) -> None:
        self._steps = steps
        self._solid = solid
        self._breaks = breaks

    def __call__(self, text: str) -> Iterator[None]:
        """Process the next piece of the log; exhaust the iterator."""
        return self._steps(self._fresh(text))

    @property
    def is_new(self) -> bool:
        """Whether everything that was processed before has been skipped, but perhaps for line feeds."""
        return self._solid == 0

    def _fresh(self, text: str) -> str:
        if self._solid:
            solid = len(text) - text.count("\n")
            if solid < self._solid:
                self._solid -= solid
                return ""
            text, self._solid = text[_after(text, self._solid) :], 0
        if self._breaks:
            feeds = len(text) - len(text.lstrip("\n"))
            skipped = min(feeds, self._breaks)
            self._breaks = self._breaks - skipped if feeds == len(text) else 0
            text = text[skipped:]
        return text


def _after(text: str, solid: int) -> int:
    """Return the index after this many characters that are no line feeds; a log may have millions of empty lines."""
    low, high = 0, len(text)
    counted, found = 0, 0  # an index, and the number of such characters before it
    while low < high:
        middle = (low + high) // 2
        there = found + middle - counted - text.count("\n", counted, middle)
        if there < solid:
            low, counted, found = middle + 1, middle, there
        else:
            high = middle
    return low


def _fitting(lines: list[str], start: int) -> int:
    """Return the end of the lines that fit into one record, at least one."""
    end, room = start + 1, LONGEST_LINE - len(lines[start])
    while end < len(lines) and (room := room - len(lines[end]) - 1) >= 0:
        end += 1
    return end


def _has_long_line(text: str) -> bool:
    """Return whether a line is longer than :data:`LONGEST_LINE`, without checking each."""
    start = 0
    while len(text) - start > LONGEST_LINE:
        start = text.rfind("\n", start, start + LONGEST_LINE + 1) + 1
        if start == 0:
            return True
    return False

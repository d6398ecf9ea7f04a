"""Decodes the one long string of a JSON object while it arrives, in bounded memory; no I/O."""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING

from airflow_provider_rayjobs.client.answer_body import AnswerBodyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Complete characters and escapes; the group is the last escape.
_ESCAPED = re.compile(r'(?:[^"\\]+|(\\(?:u[0-9a-fA-F]{4}|[^u])))*')
#: Maximum length of an escape, in characters: that of a surrogate pair.
LONGEST_ESCAPE = 12

_HIGH_SURROGATE = re.compile(r"\\u[dD][89abAB]")


class JsonTextReader:
    """
    Decodes the string in a JSON object ``{"<key>": "<string>"}`` piece by piece.

    :param key: the object's only key.
    :param take: takes the pieces of the string; may return steps, like ``TakePiece`` of ``answer_body``.
    """

    def __init__(self, key: str, take: Callable[[str], Iterable[None] | None]) -> None:
        self._take = take
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._opening = re.compile(rf'\s*{{\s*"{re.escape(key)}"\s*:\s*"')
        self._buffer = ""
        self._started = False
        self._ended = False

    def feed(self, data: bytes) -> Iterable[None]:
        """
        Take the next bytes of the answer.

        :raises AnswerBodyError: the answer does not have this form.
        """
        if self._ended:
            self._end(self._decode(data))
            return ()
        self._buffer += self._decode(data)
        if not self._started:
            match = self._opening.match(self._buffer)
            if match is None:
                if len(self._buffer) > 1000:
                    raise AnswerBodyError("it is not an object with one string")
                return ()
            self._buffer, self._started = self._buffer[match.end() :], True
        return self._take(self._ready()) or ()

    def _end(self, rest: str) -> None:
        """Check the text behind the string."""
        if rest.strip(" \t\r\n}"):
            raise AnswerBodyError("it is not an object with one string")

    def _ready(self) -> str:
        """Return the complete part of the string, and keep the rest."""
        match = _ESCAPED.match(self._buffer)
        ready, last = (match.group(), match.group(1)) if match else ("", None)
        self._ended = len(ready) < len(self._buffer) and self._buffer[len(ready)] == '"'
        if not self._ended and last and _HIGH_SURROGATE.match(last) and ready.endswith(last):
            ready = ready[: -len(last)]  # the second half of the pair is in the next piece
        self._buffer = self._buffer[len(ready) :]
        if self._ended:
            self._end(self._buffer[1:])
        elif len(self._buffer) > LONGEST_ESCAPE:
            raise AnswerBodyError(f"it is malformed (the escape {self._buffer[:LONGEST_ESCAPE]!r})")
        try:
            text: str = json.loads(f'"{ready}"', strict=False)
        except ValueError as e:
            raise AnswerBodyError(f"it is malformed ({e})") from None
        return text

    def close(self) -> None:
        """
        Check that the string has ended.

        :raises AnswerBodyError: it has not.
        """
        if not self._ended:
            raise AnswerBodyError("it is incomplete, or not an object with one string")

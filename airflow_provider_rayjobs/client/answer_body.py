"""The body of one answer, read in bounded memory and in small steps, whatever a server sends."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: Most bytes of an answer that is held as a whole, after decompression. The largest that Ray gives are a job's details:
#: at most 1 MiB that was submitted, and 20,000 characters of output.
ANSWER_LIMIT = 4 * 1024 * 1024

#: Bytes that are handed on at a time: little enough not to hold up an event loop.
PIECE = 16 * 1024

#: Takes a piece of a body; what takes long is returned in steps, between which an event loop may turn.
TakePiece: TypeAlias = "Callable[[bytes], Iterable[None] | None]"

#: What the transports ask for, and all that is decompressed.
ACCEPTED_ENCODINGS = "gzip, deflate"


class AnswerBodyError(ValueError):
    """A body is too large, or not what it should be; the message says what "it" is."""


class AnswerBody:
    """
    Takes the body of one answer as it comes.

    :param encoding: the answer's ``Content-Encoding``.
    :param limit: bytes that it may have, after decompression.
    :param take: takes the decompressed pieces; by default they are kept for :meth:`content`.
    :raises AnswerBodyError: of an unknown encoding.
    """

    def __init__(self, encoding: str, limit: int = ANSWER_LIMIT, take: TakePiece | None = None) -> None:
        self._kept = bytearray()
        self._take = take or self._kept.extend
        self._limit = limit
        self._size = 0
        name = encoding.strip().lower()
        if name not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise AnswerBodyError(f"it is encoded as {name[:40]!r}, which was not asked for")
        self._compressed = name not in ("", "identity")
        self._is_deflate = name == "deflate"
        self._inflate: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[None]:
        """
        Take the next bytes; exhaust the iterator, which pauses after each piece.

        :raises AnswerBodyError: the body is too large, or can't be decompressed.
        """
        for piece in self._inflated(data) if self._compressed else _cut(data):
            self._size += len(piece)
            if self._size > self._limit:
                raise AnswerBodyError(f"it has more than {self._limit:,} bytes")
            yield from self._take(piece) or ()
            yield

    def _inflated(self, data: bytes) -> Iterator[bytes]:
        if self._inflate is None:
            # "deflate" names two formats: with the header of zlib, which begins with 8 in the low bits, and without.
            bare = self._is_deflate and data[0] & 0x0F != 8
            self._inflate = zlib.decompressobj(-zlib.MAX_WBITS if bare else 32 + zlib.MAX_WBITS)
        while data and not self._inflate.eof:
            try:
                piece = self._inflate.decompress(data, PIECE)
            except zlib.error as e:
                raise AnswerBodyError(f"it can't be decompressed ({e})") from None
            data = self._inflate.unconsumed_tail
            yield piece

    def content(self) -> bytes:
        """
        Return what was kept, once all was fed.

        :raises AnswerBodyError: the compressed body was cut.
        """
        if self._inflate is not None and not self._inflate.eof:
            raise AnswerBodyError("it is cut")
        return bytes(self._kept)


def _cut(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))

"""Reads the body of one answer in bounded memory and in small steps, whatever a server sends."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: Maximum size of an answer that is kept in memory, in bytes, after decompression. Ray's largest are a job's details:
#: at most 1 MiB that was submitted, and 20,000 characters of output.
ANSWER_LIMIT = 4 * 1024 * 1024

#: Bytes of a piece: small enough not to block an event loop.
PIECE = 16 * 1024

#: Takes a piece of a body. For long work it returns an iterator of steps; the event loop may run between two steps.
TakePiece: TypeAlias = "Callable[[bytes], Iterable[None] | None]"

#: Encodings that the transports ask for; no others are decompressed.
ACCEPTED_ENCODINGS = "gzip, deflate"


class AnswerBodyError(ValueError):
    """A body is too large or malformed; the message continues a sentence about the body ("it …")."""


class AnswerBody:
    """
    Reads the body of one answer as it arrives.

    :param encoding: the answer's ``Content-Encoding``.
    :param limit: maximum size in bytes, after decompression.
    :param take: takes the decompressed pieces; by default they are kept for :meth:`content`.
    :raises AnswerBodyError: the encoding is not supported.
    """

    def __init__(self, encoding: str, limit: int = ANSWER_LIMIT, take: TakePiece | None = None) -> None:
        self._kept = bytearray()
        self._take = take or self._kept.extend
        self._limit = limit
        self._size = 0
        name = encoding.strip().lower()
        if name not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise AnswerBodyError(f"it has the encoding {name[:40]!r}, which was not requested")
        self._compressed = name not in ("", "identity")
        self._is_deflate = name == "deflate"
        self._inflate: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[None]:
        """
        Take the next bytes. Callers must exhaust the iterator, which pauses after each piece.

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
            # "deflate" stands for two formats: with a zlib header, whose first byte ends in the bits 1000, and without.
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
        Return the kept body, after the last :meth:`feed`.

        :raises AnswerBodyError: the compressed body is incomplete.
        """
        if self._inflate is not None and not self._inflate.eof:
            raise AnswerBodyError("it is incomplete")
        return bytes(self._kept)


def _cut(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PIECE] for start in range(0, len(data), PIECE))

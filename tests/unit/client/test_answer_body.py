"""The body of an answer: decompressed in small pieces, within its limit."""

from __future__ import annotations

import gzip
import os
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.client.answer_body import ANSWER_LIMIT, PIECE, AnswerBody, AnswerBodyError

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = os.urandom(PIECE) + b"text " * PIECE


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


#: For each encoding: how a server writes it.
ENCODED = {
    "": bytes,
    "identity": bytes,
    "gzip": gzip.compress,
    " X-GZip ": gzip.compress,
    "deflate": zlib.compress,
    "deflate, as Microsoft's servers send it": raw_deflate,
}
COMPRESSED = [name for name in ENCODED if name not in ("", "identity")]


def encoding(name: str) -> str:
    return name.partition(",")[0]


def feed(body: AnswerBody, data: bytes, size: int = 1000) -> None:
    for start in range(0, len(data), size):
        for _ in body.feed(data[start : start + size]):
            pass


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("size", [1000, 10**7])
def test_a_body_is_read_in_each_encoding_and_however_it_is_cut(name: str, size: int) -> None:
    body = AnswerBody(encoding(name))
    feed(body, ENCODED[name](DATA), size)
    assert body.content() == DATA


@pytest.mark.parametrize("name", ENCODED)
def test_whoever_takes_a_body_gets_it_in_small_pieces_and_has_its_steps_run(name: str) -> None:
    pieces: list[bytes] = []
    steps: list[int] = []

    def take(piece: bytes) -> Iterator[None]:
        pieces.append(piece)
        for number in range(3):
            steps.append(number)
            yield

    body = AnswerBody(encoding(name), take=take)
    data = ENCODED[name](DATA)
    pauses = len(list(body.feed(data)))
    assert b"".join(pieces) == DATA
    assert max(map(len, pieces)) <= PIECE
    assert steps == [0, 1, 2] * len(pieces)
    assert pauses == 4 * len(pieces)
    assert body.content() == b""


@pytest.mark.parametrize("name", ENCODED)
def test_the_limit_counts_the_bytes_after_decompression(name: str) -> None:
    data = ENCODED[name](DATA)
    feed(body := AnswerBody(encoding(name), limit=len(DATA)), data)
    assert body.content() == DATA
    with pytest.raises(AnswerBodyError, match=f"it has more than {len(DATA) - 1:,} bytes"):
        feed(AnswerBody(encoding(name), limit=len(DATA) - 1), data)


def test_a_small_body_that_becomes_a_huge_one_is_refused_in_little_memory() -> None:
    bomb = gzip.compress(bytes(10 * ANSWER_LIMIT), 9)
    body = AnswerBody("gzip", take=lambda piece: None)
    tracemalloc.start()
    try:
        with pytest.raises(AnswerBodyError, match="it has more than 4,194,304 bytes"):
            feed(body, bomb, len(bomb))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["br", "gzip, deflate", "x" * 1000])
def test_an_encoding_that_was_not_asked_for_is_named_in_few_words(name: str) -> None:
    with pytest.raises(AnswerBodyError) as caught:
        AnswerBody(name)
    assert str(caught.value) == f"it has the encoding {name[:40]!r}, which was not requested"


@pytest.mark.parametrize("name", COMPRESSED)
def test_a_compressed_body_that_is_cut_is_an_error_when_it_ends(name: str) -> None:
    data = ENCODED[name](DATA)
    feed(body := AnswerBody(encoding(name)), data[:-1])
    with pytest.raises(AnswerBodyError, match=r"^it is incomplete$"):
        body.content()


@pytest.mark.parametrize("name", ["gzip", "deflate"])
def test_a_body_that_can_not_be_decompressed_is_an_error(name: str) -> None:
    with pytest.raises(AnswerBodyError, match="it can't be decompressed"):
        feed(AnswerBody(name), b"<html>" * 100)


def test_what_comes_behind_a_compressed_body_is_ignored() -> None:
    feed(body := AnswerBody("gzip"), gzip.compress(b"a") + b"\0" * 10)
    assert body.content() == b"a"


def test_an_empty_body_is_one() -> None:
    assert AnswerBody("gzip").content() == b""

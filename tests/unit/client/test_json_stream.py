"""The text inside ``{"logs": "..."}``, decoded piece by piece."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayjobs.client.answer_body import AnswerBodyError
from airflow_provider_rayjobs.client.json_stream import LONGEST_ESCAPE, JsonTextReader
from airflow_provider_rayjobs.following.lines import LineWriter


def feed(reader: JsonTextReader, *chunks: bytes) -> None:
    for chunk in chunks:
        for _ in reader.feed(chunk):
            pass


def decoded(body: bytes, size: int) -> str:
    parts: list[str] = []
    reader = JsonTextReader("logs", parts.append)
    feed(reader, *(body[start : start + size] for start in range(0, len(body), size)))
    reader.close()
    return "".join(parts)


tricky = st.text(alphabet='a"\\/\n\r\t\b\f\x00\x1b\u2028é😀𝄞', max_size=12)


@given(st.one_of(st.text(max_size=30), tricky), st.booleans(), st.sampled_from([None, (",", ":"), (" , ", " : ")]))
def test_json_text_is_what_json_loads_gives_at_every_chunk_size(text: str, ascii_only: bool, separators: Any) -> None:
    body = json.dumps({"logs": text}, ensure_ascii=ascii_only, separators=separators).encode()
    for size in {1, 2, 3, 5, 6, 7, 11, len(body)}:
        assert decoded(body, size) == text


def test_a_surrogate_pair_is_joined_wherever_it_is_cut() -> None:
    body = rb'{"logs": "a\\\ud83d\ude00\\\\\ud83d\ude00z"}'
    for size in range(1, len(body) + 1):
        assert decoded(body, size) == "a\\😀\\\\😀z"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"logs": "cut',
        b'{"logs": "cut\\',
        b'{"logs": "cut\\ud83d',
        b'{"logs": null}',
        b'{"other": "text"}',
        b"[]",
        b"<html>" + b"x" * 5000,
        b'{"logs": "\\x"}',
        b'{"logs": "x"} y',
        b'{"logs": "x" y}',
        b'{"logs": "x", "more": "y"}',
        b'{"logs": "x"}{"logs": "y"}',
        b'{"logs": "x"}' + b" " * 5000 + b'"',
    ],
)
@pytest.mark.parametrize("size", [1, 4, 100_000])
def test_a_cut_or_other_body_is_an_error(body: bytes, size: int) -> None:
    with pytest.raises(AnswerBodyError, match=r"it is (incomplete|malformed|not an object with one string)"):
        decoded(body, size)


def test_decoding_a_huge_body_needs_little_memory() -> None:
    reader = JsonTextReader("logs", LineWriter(lambda line: None).steps)
    tracemalloc.start()
    try:
        feed(reader, b'{"logs": "', *[b"x" * 65_536] * 300, b'"}')
        reader.close()
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_space_behind_the_end_is_not_kept() -> None:
    assert decoded(b'{"logs": "x" }\r\n\t ', 1) == "x"
    parts: list[str] = []
    reader = JsonTextReader("logs", parts.append)
    tracemalloc.start()
    try:
        feed(reader, b'{"logs": "x"}', *[b" " * 65_536] * 300)
        reader.close()
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert parts == ["x"]


@pytest.mark.parametrize("begin", [b"\\u", b"\\uZZZZ", b"a\\u12", b"\\ud83d\\u", b"\\ud83d\\ude0"])
@pytest.mark.parametrize("more", [b" ", b"\\", b"Z"])
@pytest.mark.parametrize("size", [1, 6, 16_384])
def test_an_escape_without_end_is_an_error_after_a_few_characters(begin: bytes, more: bytes, size: int) -> None:
    reader = JsonTextReader("logs", lambda text: None)
    with pytest.raises(AnswerBodyError, match="it is malformed"):
        feed(reader, b'{"logs": "' + begin, *[more * size] * LONGEST_ESCAPE)


@pytest.mark.parametrize("size", [16_383, 16_384])
def test_backslashes_without_end_need_little_memory(size: int) -> None:
    sizes: list[int] = []
    reader = JsonTextReader("logs", lambda text: sizes.append(len(text)))
    tracemalloc.start()
    try:
        feed(reader, b'{"logs": "', *[b"\\" * size] * 100)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    assert sum(sizes) == size * 100 // 2

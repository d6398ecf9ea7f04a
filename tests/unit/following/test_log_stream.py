"""A job's log: whole lines, each once, however the stream that brings them breaks."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
from airflow_provider_rayjobs.client.answer_body import AnswerBodyError
from airflow_provider_rayjobs.client.json_stream import LONGEST_ESCAPE, JsonTextReader
from airflow_provider_rayjobs.following import lines as lines_module
from airflow_provider_rayjobs.following import log_stream
from airflow_provider_rayjobs.following.lines import LONGEST_LINE, TAIL_CHARACTERS, TAIL_LINES, LineWriter
from airflow_provider_rayjobs.following.log_stream import LogFollower
from airflow_provider_rayjobs.text.job_secrets import JobSecrets
from tests.support import answers
from tests.support.clients import cluster_at, until
from tests.support.scripted_server import ScriptedRay, Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def written(*pieces: str) -> list[str]:
    lines: list[str] = []
    writer = LineWriter(lines.append)
    for piece in pieces:
        writer.feed(piece)
    writer.flush()
    return lines


# Lines


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        (["one\ntwo\n"], ["one", "two"]),
        (["o", "ne", "\ntw", "o\n"], ["one", "two"]),
        (["one\r\ntwo\r\n"], ["one", "two"]),
        (["one\r", "\ntwo"], ["one", "two"]),
        (["one\n\n\ntwo"], ["one", "", "", "two"]),
        (["no end"], ["no end"]),
        ([], []),
        ([""], []),
        (["\n"], [""]),
        (["10%\r20%\r30%\n"], ["10%\r20%\r30%"]),
        (["\x1b[31mred\x1b[0m\n"], ["\x1b[31mred\x1b[0m"]),
        (["naïve ☃ 😀\u2028same line\x0b\x0c\x85\n"], ["naïve ☃ 😀\u2028same line\x0b\x0c\x85"]),
    ],
)
def test_lines_are_cut_at_line_feeds_only_and_kept_as_they_are(pieces: list[str], lines: list[str]) -> None:
    assert written(*pieces) == lines


@given(st.lists(st.text(alphabet="ab\r\n😀", max_size=8)))
def test_where_the_pieces_are_cut_does_not_matter(pieces: list[str]) -> None:
    assert written(*pieces) == written("".join(pieces))


@pytest.mark.parametrize("size", [0, 1, 7, 10, 11, 25])
@pytest.mark.parametrize("end", ["", "\n", "\nx"])
def test_a_long_line_is_written_in_pieces_without_loss(size: int, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "LONGEST_LINE", 10)
    line = "".join(chr(ord("a") + i % 26) for i in range(size))
    lines = written(line, end)
    assert all(len(piece) <= 10 for piece in lines)
    assert "".join(lines) == line + end.strip()
    assert len(lines) == max(1 if end else 0, -(-size // 10)) + (end == "\nx")


def test_the_tail_is_bounded_in_lines_and_characters() -> None:
    writer = LineWriter(lambda line: None)
    writer.feed("".join(f"{i}\n" for i in range(200)))
    assert writer.tail() == tuple(str(i) for i in range(200 - TAIL_LINES, 200))
    writer.feed(f"{'x' * 9000}\n{'y' * 9000}\n{'z' * 9000}\n")
    assert [line[0] for line in writer.tail()] == ["y", "z"]
    assert sum(len(line) + 1 for line in writer.tail()) <= TAIL_CHARACTERS


def test_a_huge_line_costs_memory_and_time_in_proportion() -> None:
    sizes: list[int] = []
    writer = LineWriter(lambda line: sizes.append(len(line)))
    text = "x" * 16_000_000
    began = time.process_time()
    tracemalloc.start()
    writer.feed(text)
    writer.feed(text[:1000])
    writer.flush()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (sum(sizes), max(sizes)) == (16_001_000, LONGEST_LINE)
    assert peak < 3 * len(text)
    assert time.process_time() - began < 1.5


# The text inside {"logs": "..."}


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


# Following


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink the waits; a close that follows a message at once counts as natural, unless a test says otherwise."""
    for name, value in {
        "NATURAL_GAP": 0.0,
        "REOPEN_FIRST": 0.02,
        "REOPEN_LONGEST": 0.05,
        "OVER_PATIENCE": 0.1,
        "DRAIN_REOPEN": 0.6,
        "DRAIN_IDLE": 0.6,
    }.items():
        monkeypatch.setattr(log_stream, name, value)


class Followed:
    """What a follower wrote and noted."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.notes: list[str] = []


def follow(server: ScriptedRay, end_when: Callable[[Followed], bool], status: str = "SUCCEEDED") -> Followed:
    """Follow job "a"; it ends, and its owner notices, once a condition holds."""
    result = Followed()

    async def run() -> None:
        transport = AiohttpTransport(cluster_at(server))
        follower = LogFollower(transport, "a", result.lines.append, result.notes.append)
        running = asyncio.ensure_future(follower.run())
        try:
            async with asyncio.timeout(15):
                await until(lambda: end_when(result))
                server.set_status("a", status)
                follower.over.set()
                await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await transport.close()

    asyncio.run(run())
    return result


def job_with(server: ScriptedRay, chunks: Iterable[str]) -> list[str]:
    """Put job "a" on record, and return its lines."""
    server.add_job("a")
    server.append_log("a", chunks := list(chunks))
    return "".join(chunks).splitlines()


def opened(server: ScriptedRay) -> int:
    return len(server.received_on("GET", ".*/tail"))


def test_a_log_is_written_while_the_job_runs(scripted_ray: ScriptedRay) -> None:
    lines = job_with(scripted_ray, ["one\ntw", "o\n", "three"])
    result = follow(scripted_ray, lambda seen: seen.lines == ["one", "two"])
    assert (result.lines, result.notes, opened(scripted_ray)) == (lines, [], 1)


@pytest.mark.parametrize("end", [Tail(abort=True), Tail(code=1000), Tail(code=1001), Tail(code=1011)], ids=str)
def test_a_stream_that_breaks_while_the_job_runs_is_opened_anew_and_nothing_is_twice_or_missing(
    end: Tail, scripted_ray: ScriptedRay
) -> None:
    lines = job_with(scripted_ray, [f"line {i}\npart" for i in range(6)])
    scripted_ray.tails(*[Tail(after=n, code=end.code, abort=end.abort) for n in (1, 3, 3, 5, 0)])
    result = follow(scripted_ray, lambda seen: len(seen.lines) >= 6)
    assert (result.lines, result.notes) == (lines, [])
    assert opened(scripted_ray) >= 6


def test_a_close_that_follows_a_message_at_once_is_not_taken_for_the_end(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "NATURAL_GAP", 0.8)
    lines = job_with(scripted_ray, [f"line {i}\n" for i in range(6)])
    scripted_ray.tails(*[Tail(after=3)] * 4)
    result = follow(scripted_ray, lambda seen: len(seen.lines) >= 3)
    assert result.lines == lines


def test_a_stream_that_always_breaks_at_one_place_leaves_the_rest_to_the_whole_log(scripted_ray: ScriptedRay) -> None:
    lines = job_with(scripted_ray, [f"line {i}\n" for i in range(6)])
    scripted_ray.tails(*[Tail(after=3, code=1009)] * 200)
    result = follow(scripted_ray, lambda seen: len(seen.notes) > 0)
    assert result.lines == lines
    assert len(result.notes) == 1
    assert "Ray does not stream the job's log" in result.notes[0]
    assert "code 1009" in result.notes[0]
    assert len(scripted_ray.received_on("GET", ".*/logs")) == 1


@pytest.mark.parametrize("answer", [answers.bad_gateway(), answers.html(), answers.drop()], ids=["502", "page", "cut"])
def test_a_stream_that_never_opens_leaves_all_to_the_whole_log(
    answer: answers.Answer, scripted_ray: ScriptedRay
) -> None:
    lines = job_with(scripted_ray, ["one\n", "two\nthree"])
    scripted_ray.script("GET", ".*/tail", answer, forever=True)
    result = follow(scripted_ray, lambda seen: len(seen.notes) > 0)
    assert result.lines == lines


def test_a_stream_that_hangs_after_the_end_is_opened_anew_once(scripted_ray: ScriptedRay) -> None:
    lines = job_with(scripted_ray, ["one\n", "two\n"])
    scripted_ray.tails(Tail(after=1, hang=True))
    result = follow(scripted_ray, lambda seen: seen.lines == ["one"])
    assert (result.lines, result.notes, opened(scripted_ray)) == (lines, [], 2)


def test_a_stream_that_hangs_for_good_is_given_up_within_bounds(scripted_ray: ScriptedRay) -> None:
    job_with(scripted_ray, ["one\nhalf", "never\n"])
    scripted_ray.tails(*[Tail(after=1, hang=True)] * 9)
    began = time.monotonic()
    result = follow(scripted_ray, lambda seen: seen.lines == ["one"])
    assert time.monotonic() - began < 6
    assert result.lines == ["one", "half"]
    assert result.notes == ["The end of the job's log did not arrive; the Ray dashboard has the whole log"]


def test_a_head_that_needs_long_to_build_the_whole_log_is_waited_for(scripted_ray: ScriptedRay) -> None:
    lines = job_with(scripted_ray, ["one\n", "two\n"])
    scripted_ray.script("GET", ".*/tail", answers.bad_gateway(), forever=True)
    scripted_ray.script("GET", ".*/logs", answers.default(delay=3 * log_stream.DRAIN_IDLE), forever=True)
    result = follow(scripted_ray, lambda seen: len(seen.notes) > 0)
    assert result.lines == lines


def test_a_log_that_cannot_be_read_to_its_end_says_so(scripted_ray: ScriptedRay) -> None:
    job_with(scripted_ray, ["one\n"])
    scripted_ray.script("GET", ".*/tail", answers.bad_gateway(), forever=True)
    scripted_ray.script("GET", ".*/logs", answers.as_json({"logs": "one\ntwo"}).but(cut_after=17), forever=True)
    result = follow(scripted_ray, lambda seen: len(seen.notes) > 0)
    assert "The job's log could not be read to its end" in result.notes[-1]


def test_a_cancelled_follower_leaves_nothing_running_and_loses_no_half_line(scripted_ray: ScriptedRay) -> None:
    job_with(scripted_ray, ["one\nhalf"])
    lines: list[str] = []

    async def run() -> set[Any]:
        transport = AiohttpTransport(cluster_at(scripted_ray))
        running = asyncio.ensure_future(LogFollower(transport, "a", lines.append, lines.append).run())
        await until(lambda: lines)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await transport.close()
        await asyncio.sleep(0.05)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(run()) == set()
    assert lines == ["one", "half"]


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        ("hunter2", ["a", "TOKEN=***", "", "end"]),
        ("hunter2\n", ["a", "TOKEN=***", "end"]),
        ("hunter2\n\nen", ["a", "TOKEN=***d"]),
        ("TOKEN=hunter2", ["a", "***", "", "end"]),
    ],
)
def test_what_is_secret_is_masked_across_messages_and_lines(secret: str, expected: list[str]) -> None:
    lines: list[str] = []
    writer = LineWriter(lines.append, public=lambda text: text.replace(secret, "***"))
    writer.feed("a\nTOKEN=hun")
    writer.feed("ter2\n\nend\n")
    assert lines == expected
    assert writer.tail() == tuple(expected)


@settings(deadline=None)
@given(
    before=st.integers(0, 60),
    length=st.integers(5, 10),
    behind=st.integers(0, 60),
    cuts=st.lists(st.integers(0, 130), max_size=4),
)
def test_a_secret_across_the_cuts_of_a_long_line_is_never_shown(
    before: int, length: int, behind: int, cuts: list[int]
) -> None:
    secret, line = "0123456789"[:length], "x" * before + "0123456789"[:length] + "x" * behind
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "LONGEST_LINE", 10)
        writer = LineWriter(lines.append, public=JobSecrets([secret]).public)
        ends = [*sorted(cuts), len(line)]
        for start, end in zip([0, *ends], ends, strict=False):
            writer.feed(line[start:end])
        writer.feed("\n")
    assert "".join(lines) == "x" * before + "***" + "x" * behind
    assert all(len(piece) <= 10 for piece in lines)
    assert writer.tail() == tuple(lines)


@pytest.mark.parametrize("first", [LONGEST_LINE - 10, 2 * LONGEST_LINE - 10, 2 * LONGEST_LINE + 10, 5 * LONGEST_LINE])
@pytest.mark.parametrize("half", [1, 12, 23])
def test_a_secret_across_two_messages_in_a_line_of_any_length_is_never_shown(first: int, half: int) -> None:
    secret = "0123456789-secret-value-"
    lines: list[str] = []
    writer = LineWriter(lines.append, public=JobSecrets([secret]).public)
    for message in ("x" * first + secret[:half], secret[half:] + "x" * 3 * LONGEST_LINE, "\n"):
        writer.feed(message)
    assert "".join(lines) == "x" * first + "***" + "x" * 3 * LONGEST_LINE

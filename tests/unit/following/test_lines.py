"""Lines of a job's log: whole, each once, within bounds, and without secrets."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_rayjobs.following import lines as lines_module
from airflow_provider_rayjobs.following.lines import (
    LINES_AT_ONCE,
    LONGEST_LINE,
    TAIL_CHARACTERS,
    TAIL_LINES,
    LineWriter,
)
from airflow_provider_rayjobs.progress import ProgressLines, to_line
from airflow_provider_rayjobs.text.job_secrets import JobSecrets


def written(*pieces: str) -> list[str]:
    lines: list[str] = []
    writer = LineWriter(lines.append)
    for piece in pieces:
        writer.feed(piece)
    writer.flush()
    return lines


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


@given(
    st.lists(st.text(alphabet="ab\r\n😀\x1e", max_size=12), max_size=8),
    st.lists(st.booleans(), min_size=1, max_size=8),
    st.integers(1, 12),
)
def test_lines_that_are_written_together_are_the_same_lines(
    pieces: list[str], together: list[bool], longest: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "LONGEST_LINE", longest)
        records: list[str] = []
        writer = LineWriter(records.append, take=lambda line: line)
        for number, piece in enumerate(pieces):
            writer.together = together[number % len(together)]
            writer.feed(piece)
        writer.flush()
        assert "\n".join(records) == "\n".join(written(*pieces))
        assert max(map(len, records), default=0) <= longest


def test_a_report_among_lines_that_are_written_together_keeps_its_place() -> None:
    records: list[str] = []
    writer = LineWriter(records.append, ProgressLines(records.append).take)
    writer.together = True
    writer.feed("one\ntwo\n" + to_line({"done": 1, "total": 2, "message": ""}) + "three\nfour\n")
    assert records == ["one\ntwo", "Progress: 1/2 (50 %)", "three\nfour"]


def test_a_mark_of_a_group_stays_a_record_of_its_own() -> None:
    records: list[str] = []
    writer = LineWriter(records.append)
    writer.together = True
    writer.feed("one\n::group::two\nthree\n::endgroup::\n" + "four\n" * 99)
    assert records[:4] == ["one", "::group::two", "three", "::endgroup::"]
    assert records[-1] == "\n".join(["four"] * (99 + 4 - LINES_AT_ONCE))


def test_lines_are_written_together_from_where_that_is_wished() -> None:
    records: list[str] = []
    writer = LineWriter(records.append)
    steps = writer.steps("".join(f"{n}\n" for n in range(100)))
    next(steps)
    writer.together = True
    for _ in steps:
        pass
    assert records == [*map(str, range(LINES_AT_ONCE)), "\n".join(map(str, range(LINES_AT_ONCE, 100)))]


@given(st.text(alphabet="ab\n", max_size=12), st.text(alphabet="ab\n", max_size=12), st.integers(1, 5))
def test_a_log_that_is_read_again_goes_on_where_it_was(before: str, after: str, cut: int) -> None:
    lines: list[str] = []
    writer = LineWriter(lines.append)
    writer.feed(before)
    take, whole = writer.from_the_start(), before + after
    for start in range(0, len(whole), cut):
        for _ in take(whole[start : start + cut]):
            pass
    writer.flush()
    assert lines == written(before + after)
    assert writer.position == len(whole)
    assert take.is_new


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

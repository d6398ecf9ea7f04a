"""Progress reports: from the function into the log, and out of it again."""

from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.following.lines import LineWriter
from airflow_provider_rayjobs.progress import (
    LONGEST_MESSAGE,
    SHOW_INTERVAL,
    ProgressLines,
    Reporter,
    checked,
    describe,
    from_line,
    progress,
    reporter,
    stored,
    to_line,
)

HALF = {"done": 5, "total": 10, "message": "half"}


def frame(body: str) -> str:
    """Return a report as somebody else might write it, with the right checksum."""
    return f"\x1erayjobs-progress {zlib.crc32(body.encode()):08x} {body}\x1e"


@given(st.text(), st.text(), st.integers(0, 10**15), st.none() | st.floats(0, 1e200), st.text(max_size=LONGEST_MESSAGE))
def test_a_report_is_found_wherever_it_stands(before: str, behind: str, done: int, total: float, message: str) -> None:
    report = {"done": done, "total": total, "message": message}
    rest, found = from_line(before + to_line(report).rstrip("\n") + behind)
    assert found == report
    assert rest == before + behind


@pytest.mark.parametrize(
    "line",
    [
        "",
        "rayjobs-progress 00000000 {}",
        "\x1erayjobs-progress 00000000 {}\x1e",  # a wrong checksum
        "\x1erayjobs-progress 99914b93 {}\x1e",
        to_line(HALF)[:-3],
        to_line(HALF).replace("half", "hal" + "F"),
        to_line({**HALF, "done": float("nan")}),
        to_line({**HALF, "done": "x"}),
    ],
)
def test_what_only_looks_like_a_report_stays_a_line(line: str) -> None:
    assert from_line(line) == (line, None)


@pytest.mark.parametrize(
    "body",
    [
        '{"done": 1, "a": ' + "[" * 1_900 + "}",  # json may give up on it
        '{"done": 1, "a": ' + "[" * 30_000 + "}",
        json.dumps({**HALF, "a": "x" * 3_000}),
        json.dumps({**HALF, "done": 10**400}),
        '{"done": 1' + "0" * 2_900 + "}",
    ],
    ids=["deep", "deeper", "long", "large", "larger"],
)
def test_a_report_that_no_job_of_ours_writes_stays_a_line(body: str) -> None:
    line = frame(body)
    assert from_line(line) == (line, None)
    assert from_line(line + frame(json.dumps(HALF))) == (line, HALF)


@pytest.mark.parametrize("character", ["x", "\\", "ü", "\x1f", "\U0001f600"])
def test_the_longest_report_is_a_report(character: str) -> None:
    report = {"done": -1.2345678901234567e-200, "total": -(2**63) + 1, "message": character * LONGEST_MESSAGE}
    assert from_line(to_line(report).rstrip("\n")) == ("", report)


@pytest.mark.parametrize("number", [2**63, 2**64, 10**40, -(2**63) - 1])
def test_an_integer_beyond_64_bits_is_reported_as_a_float(number: int) -> None:
    progress(number, number)
    last = reporter().last
    assert last is not None
    _, found = from_line(frame(json.dumps({"done": number, "total": number, "message": ""})))
    for report in (last, found):
        assert report == {"done": float(number), "total": float(number), "message": ""}
        assert [type(report[name]) for name in ("done", "total")] == [float, float]
    progress(2**63 - 1, -(2**63) + 1)
    assert repr(reporter().last) == repr({"done": 2**63 - 1, "total": -(2**63) + 1, "message": ""})


@pytest.mark.parametrize("large", [2.0**64, -(2.0**63) * 1.5, 1e40, 9.9e299])
def test_a_number_beyond_64_bits_is_stored_as_a_text_and_read_again(large: float) -> None:
    """PostgreSQL makes an integer of such a float, which Airflow 3 can't hand on to a task that is resumed."""
    report = {"done": large, "total": -large, "message": "x"}
    kept = stored(report)
    assert kept == {"done": repr(large), "total": repr(-large), "message": "x"}
    assert checked(json.loads(json.dumps(kept))) == report
    event = JobEvent("j1", "http://ray", Outcome.SUCCEEDED, progress=report)
    assert event.to_json()["progress"] == kept
    assert JobEvent.from_json(event.to_json()) == event
    for small in (HALF, {"done": 0.5, "total": None, "message": ""}, {"done": 2**63 - 1, "total": 0, "message": ""}):
        assert repr(stored(small)) == repr(small)


@pytest.mark.parametrize("text", ["x", "", "nan", "inf", "1e300", "-1e999"])
def test_a_text_that_is_no_number_is_no_report(text: str) -> None:
    with pytest.raises(ValueError, match=r"progress report|could not convert"):
        checked({"done": text, "total": None, "message": ""})


def test_reports_leave_the_process_now_and_then_and_the_last_one_always(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    made = Reporter()
    made.start(sent.append)
    for done in range(10_000):
        made.report({"done": done, "total": None, "message": ""})
    made.flush()
    made.flush()
    assert [from_line(line.rstrip("\n"))[1]["done"] for line in sent] == [0, 9_999]  # type: ignore[index]


def test_outside_a_job_a_report_goes_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    progress(1, 2, "a\nb  c" + "x" * 1000)
    assert capfd.readouterr() == ("", "")
    last = reporter().last
    assert last is not None
    assert last["message"].startswith("a b cxxx")
    assert len(last["message"]) == LONGEST_MESSAGE


@pytest.mark.parametrize("wrong", ["1", None, True, float("nan"), float("inf"), 10**400])
def test_a_wrong_number_is_refused_by_name(wrong: float) -> None:
    with pytest.raises(TypeError, match="done must be a finite number"):
        progress(wrong)
    if wrong is not None:
        with pytest.raises(TypeError, match="total must be a finite number"):
            progress(1, wrong)


def test_a_reader_sees_one_line_every_few_seconds_and_never_the_frames() -> None:
    now, shown, lines = [0.0], [], []
    taken = ProgressLines(shown.append, clock=lambda: now[0])
    writer = LineWriter(lines.append, taken.take)
    for second in range(13):
        now[0] = float(second)
        writer.feed(f"line {second}\n" + to_line({"done": second, "total": 13, "message": ""}))
    taken.flush()
    taken.flush()

    assert shown == [f"Progress: {done}/13 ({100 * done / 13:.0f} %)" for done in (0, 5, 10, 12)]
    assert SHOW_INTERVAL == 5
    assert lines == [f"line {second}" for second in range(13)]
    assert writer.tail() == tuple(lines)
    assert taken.last == {"done": 12, "total": 13, "message": ""}


def test_a_report_in_the_middle_of_another_process_s_line_leaves_that_line() -> None:
    lines: list[str] = []
    writer = LineWriter(lines.append, ProgressLines(lambda line: None).take)
    writer.feed("(work pid=1) begin" + to_line(HALF) + " end\n\nlast")
    writer.flush()
    assert lines == ["(work pid=1) begin", " end", "", "last"]


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (HALF, "Progress: 5/10 (50 %), half"),
        ({"done": 1_000_000, "total": None, "message": ""}, "Progress: 1000000"),
        ({"done": 0.25, "total": 0, "message": "x"}, "Progress: 0.25, x"),
    ],
)
def test_a_report_is_one_compact_line(report: dict[str, object], text: str) -> None:
    assert describe(report) == text

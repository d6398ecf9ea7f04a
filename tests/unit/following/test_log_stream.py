"""A job's log is written whole and once, however the stream that brings it breaks."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
from airflow_provider_rayjobs.following import log_stream
from airflow_provider_rayjobs.following.log_stream import LogFollower
from airflow_provider_rayjobs.following.stream_slots import STREAMS_AT_ONCE, StreamSlots
from tests.support import answers
from tests.support.clients import cluster_at, until
from tests.support.scripted_server import ScriptedRay, Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NODE = "ab" * 28
FILE = "/api/v0/logs/file.*"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink the waits; a close that follows a message at once counts as natural, unless a test says otherwise."""
    for name, value in {
        "NATURAL_GAP": 0.0,
        "REOPEN_FIRST": 0.02,
        "REOPEN_LONGEST": 0.05,
        "OVER_PATIENCE": 0.1,
        "SETTLE": 0.02,
    }.items():
        monkeypatch.setattr(log_stream, name, value)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink the waits for what never comes; on a busy machine, what comes takes its time."""
    monkeypatch.setattr(log_stream, "DRAIN_REOPEN", 1.0)
    monkeypatch.setattr(log_stream, "DRAIN_IDLE", 1.0)


class Followed:
    """What a follower wrote and noted."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.notes: list[str] = []
        self.late = 0.0  # seconds from the news of the job's end to the log's


def follow(
    server: ScriptedRay,
    end_when: Callable[[Followed], bool],
    status: str = "SUCCEEDED",
    node_id: str | None = None,
    write: Callable[[str], None] | None = None,
) -> Followed:
    """Follow job "a"; it ends, and its owner notices, once a condition holds."""
    result = Followed()

    async def run() -> None:
        transport = AiohttpTransport(cluster_at(server))
        follower = LogFollower(transport, "a", write or result.lines.append, result.notes.append)
        follower.node_id = node_id
        running = asyncio.ensure_future(follower.run())
        try:
            async with asyncio.timeout(15):
                await until(lambda: end_when(result))
                server.set_status("a", status)
                follower.over.set()
                over = time.monotonic()
                await running
                result.late = time.monotonic() - over
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


def test_the_stream_is_not_waited_for_once_the_job_is_over(scripted_ray: ScriptedRay) -> None:
    lines = job_with(scripted_ray, ["one\n", "tw", "o\n", "three"])
    scripted_ray.tails(Tail(after=2, hang=True))
    result = follow(scripted_ray, lambda seen: seen.lines == ["one"], node_id=NODE)
    assert (result.lines, result.notes, opened(scripted_ray)) == (lines, [], 1)
    assert result.late < 0.5
    assert len(scripted_ray.received_on("GET", FILE)) == 1
    assert not scripted_ray.received_on("GET", ".*/logs")


@pytest.mark.parametrize("last", ["", "x", "no line break", "\n", "\n\n\n", "a\n\n", "☃\n😀"])
@pytest.mark.parametrize("seen", [1, 2])
def test_nothing_is_twice_or_missing_where_the_file_takes_over(last: str, seen: int, scripted_ray: ScriptedRay) -> None:
    lines = job_with(scripted_ray, ["one\n\n", "\ntwo\nha", "lf\n", last])
    scripted_ray.tails(Tail(after=seen, hang=True))
    assert follow(scripted_ray, lambda seen: "one" in seen.lines, node_id=NODE).lines == lines


def test_a_job_that_pauses_between_the_two_characters_of_a_line_end_loses_nothing(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a")
    scripted_ray.append_log("a", ["one\n", "\ntwo\n"])  # Ray's stream reads "one\r", and then "\ntwo\n"
    scripted_ray.tails(Tail(after=2, hang=True))
    scripted_ray.script("GET", FILE, answers.text(200, "one\r\ntwo\r\nthree\r\n"))
    result = follow(scripted_ray, lambda seen: "two" in seen.lines, node_id=NODE)
    assert result.lines == ["one", "", "two", "three"]


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("end", [Tail(after=2), Tail(after=2, hang=True), Tail(after=2, abort=True)], ids=str)
@pytest.mark.parametrize(
    "answer",
    [answers.internal_error(), answers.html(404), answers.default().but(cut_after=6), answers.drop()],
    ids=["500", "page", "cut", "reset"],
)
def test_a_rest_that_cannot_be_read_from_the_file_at_once_is_still_complete(
    answer: answers.Answer, end: Tail, scripted_ray: ScriptedRay
) -> None:
    lines = job_with(scripted_ray, [f"line {i}\npart" for i in range(6)])
    scripted_ray.tails(end)
    scripted_ray.script("GET", FILE, answer)
    scripted_ray.script("GET", ".*/logs", answer)
    result = follow(scripted_ray, lambda seen: len(seen.lines) >= 2, node_id=NODE)
    assert (result.lines, result.notes) == (lines, [])


@pytest.mark.usefixtures("_impatient")
def test_a_stream_that_hangs_after_the_end_is_opened_anew_once(scripted_ray: ScriptedRay) -> None:
    lines = job_with(scripted_ray, ["one\n", "two\n"])
    scripted_ray.tails(Tail(after=1, hang=True))
    result = follow(scripted_ray, lambda seen: seen.lines == ["one"])
    assert (result.lines, result.notes, opened(scripted_ray)) == (lines, [], 2)


@pytest.mark.usefixtures("_impatient")
def test_a_file_that_is_not_sent_leaves_the_rest_to_the_stream(scripted_ray: ScriptedRay) -> None:
    lines = job_with(scripted_ray, ["one\n", "two\n"])
    scripted_ray.tails(Tail(after=1, hang=True))
    scripted_ray.script("GET", FILE, answers.default(delay=30.0))
    assert follow(scripted_ray, lambda seen: seen.lines == ["one"], node_id=NODE).lines == lines


@pytest.mark.parametrize(
    "answer",
    [
        answers.html(200),
        answers.Answer(body=b'{"result": false, "msg": "one of many"}'),
        answers.text(200, ""),
        answers.text(200, "o"),
        answers.text(200, "0\n"),
    ],
    ids=["page", "JSON", "empty", "shorter", "an older Ray's error"],
)
def test_an_answer_that_is_not_the_log_is_not_taken_for_its_end(
    answer: answers.Answer, scripted_ray: ScriptedRay
) -> None:
    lines = job_with(scripted_ray, ["one\n", "two\n", "three\n"])
    scripted_ray.script("GET", FILE, answer)
    result = follow(scripted_ray, lambda seen: "one" in seen.lines, node_id=NODE)
    assert (result.lines, result.notes) == (lines, [])


def test_the_ends_of_many_logs_do_not_wait_for_each_other(scripted_ray: ScriptedRay) -> None:
    """Each holds a slot for its stream when it reads its end."""
    jobs = [f"job-{number}" for number in range(2 * STREAMS_AT_ONCE + 20)]
    for job in jobs:
        scripted_ray.add_job(job, "SUCCEEDED")
        scripted_ray.append_log(job, ["one\n", "two\n"])
    scripted_ray.tails(*[Tail(after=1, hang=True) for _ in jobs])

    async def run() -> list[list[str]]:
        transport = AiohttpTransport(cluster_at(scripted_ray))
        written: list[list[str]] = [[] for _ in jobs]
        slots = StreamSlots()
        followers = [
            LogFollower(transport, job, lines.append, print, slots=slots)
            for job, lines in zip(jobs, written, strict=True)
        ]
        try:
            for follower in followers:
                follower.node_id = NODE
                follower.over.set()
            async with asyncio.timeout(30):
                await asyncio.gather(*(follower.run() for follower in followers))
        finally:
            await transport.close()
        return written

    assert asyncio.run(run()) == [["one", "two"]] * len(jobs)


def test_a_file_that_is_not_served_leaves_the_stream_open(scripted_ray: ScriptedRay) -> None:
    lines = job_with(scripted_ray, ["one\n", "two\n"])
    scripted_ray.script("GET", FILE, answers.html(403), forever=True)
    result = follow(scripted_ray, lambda seen: len(seen.lines) == 2, node_id=NODE)
    assert (result.lines, result.notes, opened(scripted_ray)) == (lines, [], 1)


def test_a_large_log_is_not_read_again_for_its_rest(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_stream, "LARGEST_SKIP", 5)
    monkeypatch.setattr(log_stream, "LARGEST_CHECK", 5)
    lines = job_with(scripted_ray, ["one\n", "two\n", "three"])
    result = follow(scripted_ray, lambda seen: len(seen.lines) == 2, node_id=NODE)
    assert (result.lines, result.notes, opened(scripted_ray)) == (lines, [], 1)
    assert not scripted_ray.received_on("GET", FILE)


@pytest.mark.usefixtures("_impatient")
def test_a_stream_that_hangs_for_good_is_given_up_within_bounds(scripted_ray: ScriptedRay) -> None:
    job_with(scripted_ray, ["one\nhalf", "never\n"])
    scripted_ray.tails(*[Tail(after=1, hang=True)] * 9)
    scripted_ray.script("GET", ".*/logs", answers.internal_error(), forever=True)
    began = time.monotonic()
    result = follow(scripted_ray, lambda seen: seen.lines == ["one"])
    assert time.monotonic() - began < 6
    assert result.lines == ["one", "half"]
    assert result.notes == ["The end of the job's log did not arrive; the Ray dashboard has the whole log"]


@pytest.mark.usefixtures("_impatient")
def test_a_head_that_needs_long_to_build_the_whole_log_is_waited_for(scripted_ray: ScriptedRay) -> None:
    lines = job_with(scripted_ray, ["one\n", "two\n"])
    scripted_ray.script("GET", ".*/tail", answers.bad_gateway(), forever=True)
    scripted_ray.script("GET", ".*/logs", answers.default(delay=3 * log_stream.DRAIN_IDLE), forever=True)
    result = follow(scripted_ray, lambda seen: len(seen.notes) > 0)
    assert result.lines == lines


@pytest.mark.parametrize(("pause", "together"), [(0.0, False), (0.001, True)], ids=["fast", "slow"])
@pytest.mark.parametrize("ended", [True, False], ids=["ended", "running"])
def test_lines_are_written_together_only_where_writing_is_behind(
    pause: float, together: bool, ended: bool, scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    if together:
        monkeypatch.setattr(log_stream, "BEHIND", 0.1)
        monkeypatch.setattr(log_stream, "MOST_BEHIND", 0.2)
    lines = job_with(scripted_ray, ["".join(f"line {i}\n" for i in range(n, n + 10)) for n in range(0, 3000, 10)])

    records: list[str] = []

    def write(record: str) -> None:
        if pause:
            time.sleep(pause)
        records.append(record)

    def is_read() -> bool:
        return ended or (records != [] and records[-1].endswith("line 2999"))

    follow(scripted_ray, lambda _: is_read(), node_id=NODE, write=write)
    assert "\n".join(records) == "\n".join(lines)
    assert (len(records) < 1000) is together
    assert records[:20] == lines[:20]


def test_a_log_that_was_written_together_is_written_line_by_line_again_once_that_keeps_up(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "BEHIND", 0.05)
    monkeypatch.setattr(log_stream, "MOST_BEHIND", 0.1)
    job_with(scripted_ray, ["".join(f"line {i}\n" for i in range(500))])
    seen: list[str] = []

    def write(record: str) -> None:
        time.sleep(0.001)
        seen.append(record)
        if record.endswith("line 499"):
            threading.Timer(0.5, scripted_ray.append_log, ("a", ["a\nb\n"])).start()

    follow(scripted_ray, lambda _: "b" in seen, node_id=NODE, write=write)
    assert len(seen) < 400
    assert seen[-2:] == ["a", "b"]


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

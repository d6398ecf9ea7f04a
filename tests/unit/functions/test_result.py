"""The result is read whole and checked, or its lack is a clear error."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.exceptions import (
    RayAuthError,
    RayClusterUnreachableError,
    RayJobResultError,
    RayRequestRefusedError,
)
from airflow_provider_rayjobs.functions import result
from airflow_provider_rayjobs.functions.result import (
    NoResultError,
    Record,
    parse_record,
    read_record,
    traceback_of,
    value_of,
)
from airflow_provider_rayjobs.jobs import JobDetails, JobStatus
from tests.support import answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.clients import AiohttpClient
    from tests.support.scripted_server import ScriptedRay

FILE = r"/api/v0/logs/file\?node_id=ab12&filename=job-driver-j1.result&lines=-1"
LOG_FILE = r"/api/v0/logs/file\?node_id=ab12&filename=job-driver-j1.log.*"
log = logging.getLogger(__name__)
JOB = JobDetails("SUBMISSION", JobStatus.SUCCEEDED, driver_node_id="ab12", metadata={"airflow_submission": "s1"})


def file_of(text: str, **changes: Any) -> bytes:
    body = text.encode()
    header = {"format": 1, "submission": "s1", "outcome": "value", "progress": None}
    described = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    return json.dumps({**header, **described, **changes}).encode() + b"\n" + body


GOOD = file_of('{"a":[1,"\\u00fc"]}', progress={"done": 1, "total": None, "message": "x", "more": 1})


def test_a_good_file_is_a_value_and_a_progress_report() -> None:
    record = parse_record(GOOD, "job", "s1")
    assert value_of(record, "job") == {"a": [1, "ü"]}
    assert record.progress == {"done": 1, "total": None, "message": "x"}
    assert traceback_of(parse_record(file_of('"Trace\\nback"', outcome="error"), "job", "s1")) == "Trace\nback"


@pytest.mark.parametrize("size", [0, 1, 65_000, 65_536, 65_537, 200_000])
def test_the_blocks_of_older_rays_are_put_together(size: int) -> None:
    good = file_of(json.dumps("1" * size))
    blocks = [good[i : i + 65_536] for i in range(0, len(good), 65_536)]
    record = parse_record(b"".join(b"1" + block for block in blocks), "job", "s1")
    assert value_of(record, "job") == "1" * size


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "Expecting value"),
        (b"<html>", "Expecting value"),
        (b"[]\n1", "unknown format"),
        (file_of("1", format=3), "unknown format"),
        (file_of("1", outcome="pickle"), "'pickle'"),
        (file_of("1", submission="s2"), "that of another job, which had this id before"),
        (file_of("1", submission=None), "that of another job"),
        (file_of("1", progress=1), "progress"),
        (b'{"format":1,"submission":"s1","outcome":"value"}\n1', "bytes"),
        (GOOD[:-1], "17 bytes received are not the 18"),
        (GOOD + b" ", "19 bytes received"),
        (GOOD.replace(b"[1", b"[2"), "18 bytes received"),
        (GOOD[:-3] + b"\xff" + GOOD[-2:], "ascii"),
    ],
)
def test_a_damaged_file_is_an_error_not_a_value(data: bytes, said: str) -> None:
    with pytest.raises(RayJobResultError, match="job: its result is damaged") as raised:
        parse_record(data, "job", "s1")
    assert said in str(raised.value)


def test_a_value_that_is_none_of_ours_is_an_error() -> None:
    record = parse_record(file_of('{"__rayjobs__":"pickle","value":"x"}'), "job", "s1")
    with pytest.raises(RayJobResultError, match="unknown kind 'pickle'"):
        value_of(record, "job")


def read(client: AiohttpClient) -> Record:
    return client.call(read_record(client.transport, "j1", JOB, log))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "_PAUSE", 0.01)


def file_answer(data: bytes = GOOD) -> answers.Answer:
    return answers.Answer(200, data, "text/plain")


@pytest.mark.parametrize(
    "before",
    [
        [],
        [answers.drop(), answers.bad_gateway(), answers.drop()],
        [answers.text(429, "Max number of in-progress requests=100 reached")] * 4,
        [answers.text(500, "Agent for node id: ab12 doesn't exist.")] * 2,
        [file_answer().but(cut_after=40)],
    ],
    ids=["at once", "lost contact", "busy", "no agent yet", "cut"],
)
def test_a_result_is_read_through_passing_trouble(
    scripted_ray: ScriptedRay, connect_async: Callable[..., AiohttpClient], before: list[answers.Answer]
) -> None:
    scripted_ray.script("GET", FILE, *before, file_answer())
    assert value_of(read(connect_async(scripted_ray)), "job") == {"a": [1, "ü"]}


@pytest.mark.parametrize(
    ("answer", "none_was_written"),
    [
        (answers.text(500, "A file is not found at: /tmp/ray/session_1/logs/job-driver-j1.result"), True),
        (answers.text(500, "Agent for node id: ab12 doesn't exist."), False),
        (
            answers.text(200, "0Closing HTTP stream due to internal server error.\nA file is not found at: /tmp/ray"),
            True,
        ),
        (
            answers.text(200, "0Closing HTTP stream due to internal server error.\nGiven node id ab is not available"),
            False,
        ),
        (answers.text(200, ""), True),
    ],
    ids=["no file", "node gone", "no file, on an older Ray", "node gone, on an older Ray", "untold"],
)
def test_a_missing_result_is_an_error_that_says_why(
    scripted_ray: ScriptedRay,
    connect_async: Callable[..., AiohttpClient],
    answer: answers.Answer,
    none_was_written: bool,
) -> None:
    scripted_ray.script("GET", FILE, answer, forever=True)
    scripted_ray.script("GET", LOG_FILE, answers.text(200, "the log"), forever=True)
    with pytest.raises(RayJobResultError, match="The result of Ray job j1 is missing") as raised:
        read(connect_async(scripted_ray))
    assert raised.value.submission_id == "j1"
    assert isinstance(raised.value, NoResultError) is none_was_written
    assert (answer.body.decode().splitlines() or ["an empty answer"])[-1] in str(raised.value)


def test_an_older_ray_that_does_not_say_why_may_have_lost_the_node(
    scripted_ray: ScriptedRay, connect_async: Callable[..., AiohttpClient]
) -> None:
    """Then a value may be lost, and the task must not succeed without it."""
    scripted_ray.script("GET", FILE, answers.text(200, ""), forever=True)
    scripted_ray.script("GET", LOG_FILE, answers.text(500, "Agent for node id: ab12 doesn't exist."), forever=True)
    with pytest.raises(RayJobResultError, match="is missing") as raised:
        read(connect_async(scripted_ray))
    assert not isinstance(raised.value, NoResultError)


@pytest.mark.parametrize(
    "answer",
    [
        answers.text(404, "404: Not Found"),
        answers.forbidden(),
        *(answers.html(status) for status in (200, 302, 403, 404, 405)),
        *(answers.text(status, "no") for status in (302, 405, 410, 451, 501)),
        *(answers.as_json({"detail": "RBAC: access denied"}, status) for status in (403, 404)),
        *(answers.text(status, "") for status in (403, 404)),
    ],
    ids=lambda answer: f"{answer.status} {answer.body[:20]!r}",
)
def test_a_route_that_nobody_serves_is_named(
    scripted_ray: ScriptedRay, connect_async: Callable[..., AiohttpClient], answer: answers.Answer
) -> None:
    scripted_ray.script("GET", FILE, answer, forever=True)
    wanted = r"can't be read .* or a proxy in front of it, does not serve GET /api/v0/logs/file; configure the proxy to"
    with pytest.raises(RayRequestRefusedError, match=wanted) as raised:
        read(connect_async(scripted_ray))
    assert raised.value.status == answer.status
    assert len(scripted_ray.received) == 1


def test_a_proxy_that_wants_a_login_for_the_route_is_told_as_such(
    scripted_ray: ScriptedRay, connect_async: Callable[..., AiohttpClient]
) -> None:
    scripted_ray.script("GET", FILE, answers.html(401), forever=True)
    with pytest.raises(RayAuthError, match=r"can't be read \(GET /api/v0/logs/file\): .*requires credentials"):
        read(connect_async(scripted_ray))


def test_an_unreachable_cluster_is_no_missing_result(
    scripted_ray: ScriptedRay, connect_async: Callable[..., AiohttpClient]
) -> None:
    scripted_ray.script("GET", FILE, answers.bad_gateway(), forever=True)
    with pytest.raises(RayClusterUnreachableError, match="The result of Ray job j1: the cluster was unreachable"):
        read(connect_async(scripted_ray, unreachable_timeout=0.2))


def test_no_more_is_read_than_a_result_can_have(
    scripted_ray: ScriptedRay, connect_async: Callable[..., AiohttpClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result, "RESULT_LIMIT", 1000)
    scripted_ray.script("GET", FILE, file_answer(file_of(json.dumps("x" * 5_000_000))))
    with pytest.raises(RayJobResultError, match="damaged") as raised:
        read(connect_async(scripted_ray))
    assert "it has more than 66,536 bytes" in str(raised.value)

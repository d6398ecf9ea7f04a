"""Logs as a whole: which route is asked, and what each Ray makes of a log's bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.client import log_files
from airflow_provider_rayjobs.client.log_files import BLOCK, file_error, log_file_path, read_file, read_log
from airflow_provider_rayjobs.exceptions import (
    RayAPIError,
    RayAuthError,
    RayClusterUnreachableError,
    RayJobNotFoundError,
    RayProtocolError,
    RayRequestRefusedError,
)
from tests.support import answers
from tests.support.flows import answer_to, outcome, response

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_rayjobs.client.exchange import Flow
    from tests.support.answers import Answer

NODE = "ab12"


def version(ray: str) -> bytes:
    return json.dumps({"version": "4", "ray_version": ray}).encode()


def run(flow: Flow[Any], **by_path: bytes | tuple[int, str]) -> tuple[Any, list[str]]:
    """Answer each request by the last part of its path; return the flow's value and what was asked."""
    asked: list[str] = []
    try:
        step = next(flow)
        while True:
            name = step.path.partition("?")[0].rpartition("/")[2]  # type: ignore[union-attr]
            asked.append(name)
            answer = by_path[name]
            status, body = (200, answer) if isinstance(answer, bytes) else (answer[0], answer[1].encode())
            step = flow.send(answer_to(step, body, status))  # type: ignore[arg-type]
    except StopIteration as end:
        return end.value, asked


def taken(make: Callable[[Any], Flow[None]], **by_path: Any) -> tuple[str, list[str]]:
    """Return the text that a flow took, and what it asked."""
    parts: list[str] = []

    def begin() -> Callable[[str], None]:
        parts.clear()
        return parts.append

    _, asked = run(make(begin), **by_path)
    return "".join(parts), asked


def file(ray: str, body: bytes, size: int = 10**9) -> str:
    """Return the text of a file that a Ray of this version sends in pieces."""
    parts: list[str] = []
    flow = read_file("a", NODE, lambda: parts.append)
    assert outcome(flow, version(ray), body, sizes=[size] * (len(body) // size)) is None
    return "".join(parts)


def test_the_path_of_a_file_is_quoted() -> None:
    assert log_file_path("a-1", NODE) == "/api/v0/logs/file?node_id=ab12&filename=job-driver-a-1.log&lines=-1"
    path = log_file_path("a", "x&y=/", "result", lines=50)
    assert path == "/api/v0/logs/file?node_id=x%26y%3D%2F&filename=job-driver-a.result&lines=50"


@pytest.mark.parametrize("size", [1, 2, 3, 10**9])
def test_bytes_become_text_with_line_feeds(size: int) -> None:
    body = b"one\r\ntwo\rthree\n\xc3\xa4\xff \xe2\x98\x83\r"
    assert file("2.60.0", body, size) == "one\ntwo\nthree\nä\ufffd ☃\n"
    assert file("2.60.0", b"end\xc3", size) == "end\ufffd"


@pytest.mark.parametrize("ray", ["2.45.0", "2.60.0", "3.0.0", "nightly", "99999.1"])
@pytest.mark.parametrize("size", [1000, 10**9])
def test_a_newer_ray_sends_a_file_as_it_is(ray: str, size: int) -> None:
    assert file(ray, b"1" + b"x" * 2 * BLOCK, size) == "1" + "x" * 2 * BLOCK


@pytest.mark.parametrize("ray", ["2.9.3", "2.44.1", "1.13.0"])
@pytest.mark.parametrize("size", [1000, 10**9])
def test_an_older_ray_marks_each_block(ray: str, size: int) -> None:
    blocks = [b"a" * BLOCK, b"b" * BLOCK, b"c"]
    assert file(ray, b"".join(b"1" + block for block in blocks), size) == b"".join(blocks).decode()
    assert file(ray, b"", size) == ""


@pytest.mark.parametrize("size", [1, 1000, 10**9])
def test_an_error_of_an_older_ray_is_one_in_few_words(size: int) -> None:
    body = b"1" + b"a" * BLOCK + b"0no such\n  file" + b"!" * 5000
    with pytest.raises(RayAPIError, match="Ray could not read the log of job a: no such file!") as caught:
        file("2.9.3", body, size)
    assert len(str(caught.value)) < 1100


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (answers.internal_error("FileNotFoundError: no"), RayAPIError),
        (answers.bad_request("ValueError: no node"), RayRequestRefusedError),
        (answers.unauthorized(), RayAuthError),
        (answers.bad_gateway(), RayClusterUnreachableError),
    ],
)
def test_what_ray_says_of_a_file_is_its_error(answer: Answer, kind: type[Exception]) -> None:
    assert type(file_error(response(answer))) is kind
    assert "does not serve" not in str(file_error(response(answer)))


@pytest.mark.parametrize(
    "answer", [answers.html(403), answers.html(404), answers.text(405, ""), answers.text(302, ""), answers.html()]
)
def test_a_closed_route_is_named(answer: Answer) -> None:
    error = file_error(response(answer))
    assert type(error) is RayRequestRefusedError
    assert error.status == answer.status
    assert "does not serve GET /api/v0/logs/file; configure the proxy to pass it" in str(error)


# Which route is asked

FILE = {"version": version("2.60.0"), "file": b"by file\r\n"}
JSON = {"logs": b'{"logs": "by json"}'}
NO_FILE = {**FILE, "file": (500, "FileNotFoundError: gone")}


def test_the_file_is_asked_for_first_and_the_jobs_api_only_when_it_fails() -> None:
    def by_both(begin: Any) -> Flow[None]:
        return read_log("a", NODE, begin)

    assert taken(by_both, **FILE) == ("by file\n", ["version", "file"])
    assert taken(by_both, **NO_FILE, **JSON) == ("by json", ["version", "file", "logs"])
    with pytest.raises(RayAPIError, match=r"FileNotFoundError: gone.*; .*UnicodeDecodeError: no") as caught:
        taken(by_both, **NO_FILE, logs=(500, "UnicodeDecodeError: no"))
    assert caught.value.status == 500


@pytest.mark.parametrize("node", [None, ""])
def test_without_a_node_only_the_jobs_api_has_the_log(node: str | None) -> None:
    assert taken(lambda begin: read_log("a", node, begin), **JSON) == ("by json", ["logs"])


def test_the_second_route_may_be_too_dear() -> None:
    with pytest.raises(RayAPIError, match="FileNotFoundError: gone"):
        taken(lambda begin: read_log("a", NODE, begin, try_json=False), **NO_FILE)


def test_a_log_that_is_cut_is_an_error() -> None:
    with pytest.raises(RayProtocolError, match="it is incomplete"):
        taken(lambda begin: read_log("a", None, begin), logs=b'{"logs": "by')
    with pytest.raises(RayJobNotFoundError):
        taken(lambda begin: read_log("a", None, begin), logs=(404, "Job a does not exist"))


# The whole log as one text


def test_a_whole_log_comes_by_the_jobs_api() -> None:
    assert run(log_files.get_job_logs("a"), **JSON) == ("by json", ["logs"])


def test_a_log_whose_bytes_are_no_utf_8_comes_by_its_file() -> None:
    undecodable = {"logs": (500, "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff")}
    job = {"type": "SUBMISSION", "status": "FAILED", "submission_id": "a", "driver_node_id": NODE}
    text, asked = run(log_files.get_job_logs("a"), **undecodable, a=json.dumps(job).encode(), **FILE)
    assert (text, asked) == ("by file\n", ["logs", "a", "version", "file"])
    with pytest.raises(RayAPIError, match="another error"):
        run(log_files.get_job_logs("a"), logs=(500, "RuntimeError: another error"))


def test_a_log_that_is_larger_than_what_is_held_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "LOG_LIMIT", 20)
    with pytest.raises(RayProtocolError, match="it has more than 20 bytes"):
        run(log_files.get_job_logs("a"), logs=json.dumps({"logs": "x" * 20}).encode())

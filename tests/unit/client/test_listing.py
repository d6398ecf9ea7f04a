"""The list of all jobs: decoded while it comes, and refused when it is none or has no bounds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.client import listing
from airflow_provider_rayjobs.client.answers import MOST_JSON_PARTS
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError, RayProtocolError
from tests.support import answers
from tests.support.flows import ADDRESS, answer_to, outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.clients import Client
    from tests.support.scripted_server import ScriptedRay

JOBS = [{"type": "SUBMISSION", "status": "RUNNING", "submission_id": f"ä{number}"} for number in range(20)]


def read(body: bytes, size: int = 10**9) -> list[dict[str, Any]]:
    """Return the jobs of a list that comes in pieces."""
    found: list[dict[str, Any]] = []
    flow = listing.read_list(lambda: found.append, repeatable=False)
    number = outcome(flow, body, sizes=[size] * (len(body) // size))
    assert number == len(found)
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 10**9])
@pytest.mark.parametrize("separators", [(",", ":"), (" ,\r\n\t", " : ")], ids=["short", "wide"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_every_job_is_found_however_the_list_is_cut(size: int, separators: Any, ascii_only: bool) -> None:
    body = json.dumps(JOBS, separators=separators, ensure_ascii=ascii_only).encode()
    assert read(body, size) == JOBS
    assert read(b" \n" + body + b"\n ", size) == JOBS


@pytest.mark.parametrize("body", [b"[]", b" [ ] ", b"[\n]"])
def test_a_list_without_jobs_is_one(body: bytes) -> None:
    assert read(body) == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "an incomplete or malformed list of jobs"),
        (b"[", "an incomplete or malformed list of jobs"),
        (b'[{"a": 1}', "an incomplete or malformed list of jobs"),
        (b'[{"a": 1}, {"b"', "an incomplete or malformed list of jobs"),
        (b'[{"a": 1}] x', "an incomplete or malformed list of jobs"),
        (b'{"a": 1}', "it is not a list"),
        (b"<html>", "it is not a list"),
        (b"[1]", "it contains something other than objects"),
        (b'[{"a": 1}, [2]]', "it contains something other than objects"),
        (b"[" * 100_000, "it is nested too deeply|it has a job with too many parts"),
        (b"[" + b'{"a":' * 20_000, "it is nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "it contains a number that can't be read"),
        (b'[{"a": [' + b"1," * MOST_JSON_PARTS + b"1]}]", "it has a job with too many parts"),
    ],
)
def test_what_is_no_list_of_jobs_is_told(body: bytes, problem: str) -> None:
    with pytest.raises(RayProtocolError, match=problem) as caught:
        read(body)
    assert str(caught.value).startswith(f"{ADDRESS}: ")


def test_a_job_may_have_so_many_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "JOB_LIMIT", 1000)
    job = {"a": "x" * (1000 - len('{"a": ""}'))}
    body = json.dumps([job, job]).encode()
    assert read(body, size=100) == [job, job]
    with pytest.raises(RayProtocolError, match="it has a job of more than 1,000 characters"):
        read(json.dumps([{"a": "x" * 2000}]).encode(), size=100)


@pytest.mark.parametrize("size", [1000, 4099, 10**9])
@pytest.mark.parametrize(
    ("big", "problem"),
    [
        ({"env_vars": {f"a{index}": "" for index in range(MOST_JSON_PARTS)}}, "it has a job with too many parts"),
        ({"a": [{"b": '\\"}]['}] * MOST_JSON_PARTS}, "it has a job with too many parts"),
        ({"message": '}"\\' * 20_000}, "it has a job of more than 50,000 characters"),
    ],
    ids=["dict", "quotes", "long"],
)
def test_a_job_that_is_too_large_may_be_skipped(
    big: dict[str, Any], problem: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "message" in big:
        monkeypatch.setattr(listing, "JOB_LIMIT", 50_000)
        size = min(size, 4099)
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    body = json.dumps([big, *JOBS[:5], big, big, *JOBS[5:], big]).encode()
    flow = listing.read_list(lambda: found.append, repeatable=False, skipped=problems.append)
    assert outcome(flow, body, sizes=[size] * (len(body) // size)) == len(JOBS) + 4
    assert found == JOBS
    assert problems == [
        f"{problem}, {where}"
        for where in ("at the beginning", "after the job 'ä4'", "after the job 'ä4'", "after the job 'ä19'")
    ]
    cut = listing.read_list(lambda: found.append, repeatable=False, skipped=problems.append)
    with pytest.raises(RayProtocolError, match="an incomplete or malformed list"):
        outcome(cut, body[:-5], sizes=[size] * (len(body) // size))


def test_a_job_that_is_nested_too_deeply_may_be_skipped() -> None:
    found: list[dict[str, Any]] = []
    problems: list[str] = []
    deep = b'{"a":' * 20_000 + b"1" + b"}" * 20_000
    number = b'{"a": ' + b"9" * 5000 + b"}"
    body = b"[" + b", ".join([json.dumps(JOBS[0]).encode(), deep, json.dumps(JOBS[1]).encode(), number]) + b"]"
    flow = listing.read_list(lambda: found.append, repeatable=False, skipped=problems.append)
    assert outcome(flow, body) == 4
    assert found == JOBS[:2]
    assert [problem.split(",")[0][:25] for problem in problems] == [
        "it is nested too deeply",
        "it contains a number that",
    ]


def test_a_job_that_is_refused_makes_the_list_unusable() -> None:
    def refuse(job: dict[str, Any]) -> None:
        raise ValueError("a job whose status is odd")

    with pytest.raises(RayProtocolError, match="it contains a job whose status is odd"):
        outcome(listing.read_list(lambda: refuse, repeatable=False), b"[{}]")


def test_an_attempt_begins_with_an_empty_list(scripted_ray: ScriptedRay, connect: Callable[..., Client]) -> None:
    for number in range(50):
        scripted_ray.add_job(f"j{number}")
    scripted_ray.script("GET", "/api/jobs/", answers.default().but(cut_after=2000), answers.bad_gateway())
    jobs = connect(scripted_ray).run(listing.list_jobs())
    assert [job.submission_id for job in jobs] == [f"j{number}" for number in range(50)]
    assert len(scripted_ray.received) == 3


def test_the_number_of_actors_is_a_hint_that_may_be_missing() -> None:
    def count(text: str, status: int = 200) -> int | None:
        flow = listing.count_actors()
        request = next(flow)
        assert not request.repeatable  # type: ignore[union-attr]
        with pytest.raises(StopIteration) as end:
            flow.send(answer_to(request, text.encode(), status))  # type: ignore[arg-type]
        found: int | None = end.value.value
        return found

    assert count('{"data": {"result": {"total": 7}}}') == 7
    for odd in ("", "[]", "<html>", '{"data": null}', '{"data": {"result": {"total": "7"}}}', "[" * 100_000):
        assert count(odd) is None
    assert count("no such route", 404) is None
    lost = listing.count_actors()
    next(lost)
    with pytest.raises(StopIteration) as end:
        lost.throw(RayClusterUnreachableError("gone"))
    assert end.value.value is None


def test_live_jobs_are_those_whose_actors_are_alive() -> None:
    def live(body: str, status: int = 200) -> tuple[set[str], int] | None:
        flow = listing.live_jobs()
        request = next(flow)
        with pytest.raises(StopIteration) as end:
            flow.send(answer_to(request, body.encode(), status))  # type: ignore[arg-type]
        found: tuple[set[str], int] | None = end.value.value
        return found

    actors = [
        {"actor_id": "a1", "class_name": "JobSupervisor", "name": "_ray_internal_job_actor_etl.1"},
        {"actor_id": "a2", "class_name": "Trainer", "name": '"name": "_ray_internal_job_actor_no"'},
        {"actor_id": "a3", "class_name": "Trainer", "name": ""},
    ]
    assert live(json.dumps({"data": {"result": {"result": actors}}})) == ({"etl.1"}, 3)
    assert live("") == (set(), 0)
    assert live("no such route", 404) is None
    assert live('"actor_id": ' * listing.MOST_ACTORS) is None, "the answer may lack some"
    lost = listing.live_jobs()
    next(lost)
    with pytest.raises(StopIteration) as end:
        lost.throw(RayClusterUnreachableError("gone"))
    assert end.value.value is None

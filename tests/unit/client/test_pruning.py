"""Which records are deleted, in which order and at which pace."""

from __future__ import annotations

import json
import logging
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.client import pruning
from airflow_provider_rayjobs.client.exchange import Pause, Request
from airflow_provider_rayjobs.client.pruning import Choice, Pruned, by_status, choose, delete
from airflow_provider_rayjobs.exceptions import RayAPIError, RayAuthError, RayClusterUnreachableError
from tests.support import answers
from tests.support.clients import CLIENTS, FakeTime, cluster_at
from tests.support.flows import answer_to, outcome, response

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_rayjobs.client.ended import EndedJob
    from tests.support.answers import Answer
    from tests.support.clients import Client
    from tests.support.scripted_server import ScriptedRay

HOUR = 3600
NOW = 1_700_000_000


def entry(name: str, hours: float, status: str = "SUCCEEDED", deployment: str | None = "ours") -> dict[str, Any]:
    """Return an entry of a list: a job that ended a number of hours ago."""
    ended = status not in ("RUNNING", "PENDING")
    metadata = {} if deployment is None else {"airflow_deployment": deployment}
    times = {"start_time": 1, "end_time": int((NOW - hours * HOUR) * 1000) if ended else None}
    return {"type": "SUBMISSION", "submission_id": name, "status": status, "metadata": metadata, **times}


def chosen(jobs: Sequence[dict[str, Any]], **choice: Any) -> Pruned:
    found: Pruned = outcome(choose(Choice(**choice), clock=lambda: NOW), json.dumps(jobs).encode())
    return found


def names(pruned: Pruned) -> list[str]:
    return [job.submission_id for job in pruned.jobs]


RECORD = [
    entry("new", 1),
    entry("old", 200),
    entry("failed", 300, "FAILED"),
    entry("theirs", 400, deployment="theirs"),
    entry("by-hand", 500, deployment=None),
    entry("runs", 0, "RUNNING"),
    entry("waits", 0, "PENDING"),
    {"type": "DRIVER", "status": "SUCCEEDED", "job_id": "01000000"},
    {"status": "FAILED", "submission_id": "malformed", "end_time": "long ago"},
]


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ({"deployment": "ours"}, ["failed", "old"]),
        ({}, ["by-hand", "theirs", "failed", "old"]),
        ({"older_than": 250.0 * HOUR, "deployment": "ours"}, ["failed"]),
        ({"statuses": ["FAILED"]}, ["failed"]),
        ({"statuses": ["STOPPED"]}, []),
        ({"keep": 1, "deployment": "ours"}, ["failed", "old"]),  # the new one is kept
        ({"keep": 2, "deployment": "ours"}, ["failed"]),
        ({"keep": 9, "deployment": "ours"}, []),
    ],
)
def test_old_records_of_the_owner_and_the_status_are_chosen(choice: dict[str, Any], found: list[str]) -> None:
    pruned = chosen(RECORD, **choice)
    assert names(pruned) == found
    assert (pruned.listed, pruned.left, pruned.deleted) == (len(RECORD), 0, {})


@pytest.mark.parametrize(
    ("choice", "problem"),
    [
        ({"older_than": 60.0}, "older_than must be at least 3600 s"),
        ({"older_than": "7d"}, "older_than"),
        ({"older_than": None}, "older_than"),
        ({"older_than": float("inf")}, "older_than"),
        ({"keep": -1}, "keep is -1; it must be finite and not negative"),
        ({"keep": True}, "keep must be a whole number"),
        ({"statuses": ["RUNNING"]}, "statuses must be a list of STOPPED, SUCCEEDED, FAILED"),
        ({"statuses": "FAILED"}, "statuses must be a list"),
    ],
)
def test_a_wrong_choice_is_told(choice: dict[str, Any], problem: str) -> None:
    with pytest.raises((TypeError, ValueError), match=problem):
        Choice(**choice)


def test_a_list_that_comes_twice_counts_once() -> None:
    flow = choose(Choice(), clock=lambda: NOW)
    request = next(flow)
    assert isinstance(request, Request)
    assert request.receive is not None
    request.receive()(json.dumps(RECORD).encode()[:-100])  # a first attempt that is cut off
    with pytest.raises(StopIteration) as end:
        flow.send(answer_to(request, json.dumps(RECORD).encode()))
    assert names(end.value.value) == ["by-hand", "theirs", "failed", "old"]


def test_a_long_list_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "MOST_AT_ONCE", 100)
    flow = choose(Choice(keep=10), clock=lambda: NOW)
    request = next(flow)
    assert isinstance(request, Request)
    assert request.receive is not None
    feed = request.receive()
    feed(b"[")
    tracemalloc.start()
    try:
        for number in range(20_000):
            comma = b"," if number else b""
            feed(comma + json.dumps({**entry(f"job-{number}", 200 + number % 77), "message": "x" * 500}).encode())
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    feed(b"]")
    with pytest.raises(StopIteration) as end:
        flow.send(response(answers.text(200, "")))
    pruned = end.value.value
    assert (len(pruned.jobs), pruned.left, pruned.listed) == (100, 19_890, 20_000)
    assert {job.end_time for job in pruned.jobs} == {(NOW - 276 * HOUR) * 1000}, "not the oldest"


def test_a_record_that_can_t_be_read_is_left(caplog: pytest.LogCaptureFixture) -> None:
    big = {**entry("big", 999), "runtime_env": {"env_vars": {f"a{index}": "" for index in range(60_000)}}}
    body = json.dumps([entry("old", 500), big, entry("older", 600)]).encode()
    shown: list[EndedJob] = []
    log = logging.getLogger("prune")
    pruned = pruning.prune(lambda flow: outcome(flow, body), Choice(), log, shown.extend, "")
    assert (names(pruned), pruned.listed) == (["older", "old"], 3)
    assert "A record can't be read, and is left: it has a job with too many parts, after the job 'old'" in caplog.text


# On a server


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, scripted_ray: ScriptedRay) -> Iterator[Client]:
    """Both transports, whose pauses take no time."""
    client = CLIENTS[request.param](cluster_at(scripted_ray), FakeTime())
    yield client
    client.close()


@pytest.fixture
def jobs(scripted_ray: ScriptedRay) -> list[EndedJob]:
    """Three jobs that have ended and are chosen."""
    for number, status in enumerate(["SUCCEEDED", "FAILED", "SUCCEEDED"]):
        scripted_ray.add_job(f"a{number}", status, end_time=1000 + number)
    return [
        pruning.EndedJob(1000 + number, f"a{number}", "FAILED" if number == 1 else "SUCCEEDED") for number in range(3)
    ]


def pruned_of(jobs: list[EndedJob]) -> Pruned:
    return Pruned(len(jobs), jobs, 0, pruning.Counter())


def test_each_chosen_record_is_deleted_once(client: Client, scripted_ray: ScriptedRay, jobs: list[EndedJob]) -> None:
    scripted_ray.add_job("other", "SUCCEEDED")
    pruned = pruned_of(jobs)
    client.run(delete(pruned, print, print))
    assert list(scripted_ray.jobs) == ["other"]
    assert pruned.deleted == pruned.chosen == {"SUCCEEDED": 2, "FAILED": 1}
    assert len(scripted_ray.received_on("DELETE")) == 3


def test_an_id_that_now_belongs_to_another_job_is_left_alone(
    client: Client, scripted_ray: ScriptedRay, jobs: list[EndedJob]
) -> None:
    scripted_ray.add_job("a0", "RUNNING")
    scripted_ray.add_job("a1", "FAILED", end_time=2000)
    pruned = pruned_of(jobs)
    client.run(delete(pruned, print, print))
    assert list(scripted_ray.jobs) == ["a0", "a1"]
    assert pruned.deleted == {"SUCCEEDED": 1}
    assert [one.path for one in scripted_ray.received_on("DELETE")] == ["/api/jobs/a2"]


def test_a_lost_answer_does_no_harm(client: Client, scripted_ray: ScriptedRay, jobs: list[EndedJob]) -> None:
    scripted_ray.script("DELETE", "/api/jobs/a0", answers.text(502, "bad gateway"), answers.not_found("a0"))
    scripted_ray.script("GET", "/api/jobs/a1", answers.not_found("a1"))
    pruned = pruned_of(jobs)
    client.run(delete(pruned, print, print))
    assert pruned.deleted == {"SUCCEEDED": 2, "FAILED": 1}


def test_what_was_deleted_before_an_error_is_counted(
    client: Client, scripted_ray: ScriptedRay, jobs: list[EndedJob]
) -> None:
    scripted_ray.script("DELETE", "/api/jobs/a2", *[answers.text(503, "down")] * 20)
    pruned = pruned_of(jobs)
    with pytest.raises(RayClusterUnreachableError):
        client.run(delete(pruned, print, print))
    assert pruned.deleted == {"SUCCEEDED": 1, "FAILED": 1}


@pytest.mark.parametrize("name", ["..", "a/b", "s\ud800", "x" * 241])
def test_a_job_that_ray_s_routes_can_t_reach_is_only_counted(name: str) -> None:
    pruned = chosen([entry(name, 999), entry("old", 500), entry("..", 1)])
    assert (names(pruned), pruned.out_of_reach, pruned.left) == (["old"], 1, 0)


@pytest.mark.parametrize(
    "answer", [answers.text(500, "RuntimeError: x"), answers.text(200, "{}"), answers.text(404, "?")]
)
def test_a_record_that_is_refused_does_not_stop_the_others(
    client: Client, scripted_ray: ScriptedRay, jobs: list[EndedJob], answer: Answer
) -> None:
    scripted_ray.script("GET", "/api/jobs/a0", answer)
    pruned = pruned_of(jobs)
    refused: list[EndedJob] = []
    client.run(delete(pruned, print, lambda job, _: refused.append(job)))
    assert refused == jobs[:1]
    assert (pruned.deleted, pruned.refused) == ({"SUCCEEDED": 1, "FAILED": 1}, 1)


def test_it_gives_up_after_many_refusals_in_a_row(
    client: Client, scripted_ray: ScriptedRay, jobs: list[EndedJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "MOST_REFUSALS", 2)
    for name in ("a0", "a1"):
        scripted_ray.script("DELETE", f"/api/jobs/{name}", answers.text(500, "RuntimeError: x"))
    pruned = pruned_of(jobs)
    with pytest.raises(RayAPIError, match="RuntimeError: x"):
        client.run(delete(pruned, print, print))
    assert (pruned.deleted, pruned.refused) == ({}, 2)


def test_refused_credentials_end_it_at_once(client: Client, scripted_ray: ScriptedRay, jobs: list[EndedJob]) -> None:
    scripted_ray.script("GET", "/api/jobs/a0", answers.text(403, "no"))
    pruned = pruned_of(jobs)
    with pytest.raises(RayAuthError):
        client.run(delete(pruned, print, print))
    assert len(scripted_ray.received) == 1


@pytest.mark.parametrize(("took", "pause"), [(0.01, 0.04), (0.0, 0.0), (3.0, pruning.LONGEST_PAUSE)])
def test_requests_take_a_fifth_of_the_time(jobs: list[EndedJob], took: float, pause: float) -> None:
    now = [0.0]
    reports: list[int] = []
    flow = delete(pruned_of(jobs * 40), reports.append, print, clock=lambda: now[0])
    step: Request | Pause | None = next(flow)
    while step is not None:
        if isinstance(step, Pause):
            assert step.seconds == pytest.approx(pause)
            now[0] += step.seconds
            step = next(flow, None)
        else:
            now[0] += took
            step = flow.send(response(answers.not_found("a")))
    assert len(reports) == int(now[0] // (pruning.REPORT_INTERVAL + pause + took))
    assert reports == sorted(reports)


def test_numbers_of_jobs_are_text() -> None:
    assert by_status({"SUCCEEDED": 1234, "FAILED": 1}) == "1 FAILED, 1,234 SUCCEEDED"
    assert by_status({}) == "none"

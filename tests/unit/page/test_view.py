"""One job in detail: each part is read in bounded time, says in its own place what is wrong, and shows no secret."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_rayjobs.diagnosis.failure import Findings
from airflow_provider_rayjobs.exceptions import RayJobNotFoundError
from airflow_provider_rayjobs.page import view as view_module
from airflow_provider_rayjobs.page.view import MAX_PROBLEM, TAIL_LIMIT, problem, read_view, running_since, shown
from airflow_provider_rayjobs.progress import to_line
from tests.support import answers
from tests.support.clients import cluster_at
from tests.support.flows import outcome

if TYPE_CHECKING:
    from tests.support.scripted_server import ScriptedRay

ACTORS, ACTOR = r"/api/v0/actors\?.*", "/logical/actors/.*"
LOG = r"/api/v0/logs/file\?.*"


def view_of(server: ScriptedRay, submission_id: str = "job-1", *, whole: bool = True) -> dict[str, Any]:
    cluster = cluster_at(server)
    return shown(asyncio.run(read_view(cluster, submission_id, whole=whole)), cluster)


def test_a_history_server_is_linked_with_the_heads_session(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("job-1")
    cluster = cluster_at(scripted_ray, history_url="https://history/{session}/{submission_id}")
    found = shown(asyncio.run(read_view(cluster, "job-1", whole=False)), cluster)
    session = requests.get(f"{scripted_ray.url}/api/version", timeout=5).json()["session_name"]
    assert found["history_url"] == f"https://history/{session}/job-1"
    assert view_of(scripted_ray)["history_url"] == ""


def listed(*rows: dict[str, Any]) -> dict[str, Any]:
    """Return a list of Ray's State API."""
    return {"data": {"result": {"result": rows, "num_filtered": len(rows)}}}


def tell_start(server: ScriptedRay, milliseconds: int) -> None:
    """Have the server tell when the supervisor of a job started."""
    server.script("GET", ACTORS, answers.as_json(listed({"actor_id": "a1"})), forever=True)
    server.script("GET", ACTOR, answers.as_json({"data": {"detail": {"startTime": milliseconds}}}), forever=True)


def tell_nodes(server: ScriptedRay, *nodes: dict[str, list[float]]) -> None:
    """Have the server tell what its nodes have."""
    report = {"usageByNode": dict(enumerate(nodes))}
    status = {"data": {"clusterStatus": {"loadMetricsReport": report, "autoscalerReport": None}}}
    server.script("GET", "/api/cluster_status", answers.as_json(status), forever=True)


def test_a_running_job_shows_its_times_and_the_end_of_its_log(scripted_ray: ScriptedRay) -> None:
    job = scripted_ray.add_job("job-1", start_time=1000, entrypoint="python x.py")
    job.log = [f"line {number}\n" for number in range(100)]
    tell_start(scripted_ray, 5000)
    found = view_of(scripted_ray)
    assert (found["status"], found["submitted"], found["running"], found["ended"]) == ("RUNNING", 1000, 5000, None)
    assert found["log"] == {"lines": [f"line {number}" for number in range(50, 100)]}
    assert found["job_url"] == f"{scripted_ray.url}/#/jobs/job-1"
    assert found["entrypoint"] == "python x.py"
    assert found["waits"] is None


def test_a_waiting_job_says_why(scripted_ray: ScriptedRay) -> None:
    wanted = {"airflow_resources": json.dumps({"GPU": 4})}
    scripted_ray.add_job("job-1", "PENDING", metadata=wanted, message="Job has not started yet.")
    tell_nodes(scripted_ray, {"CPU": [1, 4], "GPU": [0, 1]})
    found = view_of(scripted_ray)
    assert found["waits"]["text"].startswith("needs 4 GPU on one node, but no node has 4 GPU (at most 1 GPU)")
    assert found["log"] is None
    paths = [request.path for request in scripted_ray.received]
    assert paths == ["/api/jobs/job-1", "/api/cluster_status"], "it has no log and did not start"


def test_details_for_a_row_need_one_request(scripted_ray: ScriptedRay) -> None:
    message = "failed\n" + "line of output\n" * 1000 + "ValueError: boom"
    scripted_ray.add_job("job-1", "FAILED", message=message)
    assert view_of(scripted_ray, whole=False)["message"] == message
    assert [request.path for request in scripted_ray.received] == ["/api/jobs/job-1"]


def test_the_last_report_of_progress_is_shown_and_is_no_line(scripted_ray: ScriptedRay) -> None:
    job = scripted_ray.add_job("job-1")
    job.log = ["one\n", to_line({"done": 2, "total": 8, "message": "epoch"}), "two\n"]
    found = view_of(scripted_ray)
    assert found["log"] == {"lines": ["one", "two"]}
    assert found["progress"] == {"text": "Progress: 2/8 (25 %), epoch"}


def test_no_secret_is_shown(scripted_ray: ScriptedRay) -> None:
    job = scripted_ray.add_job(
        "job-1",
        "FAILED",
        entrypoint="run --key tok-91aa07",
        message="failed\nsecond-91aa07 at https://me:pass@host/",
        metadata={"airflow_secret_env_vars": "DSN"},
        runtime_env={"env_vars": {"API_TOKEN": "tok-91aa07", "DSN": "first-91aa07\nsecond-91aa07"}},
    )
    job.log = ["the key is tok-91aa07\n", to_line({"done": 1, "total": 2, "message": "tok-91aa07"})]
    text = json.dumps(view_of(scripted_ray))
    assert "91aa07" not in text
    assert "pass" not in text
    assert "the key is ***" in text


def test_a_failed_job_says_why_and_how_far_it_came(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("job-1", "FAILED", job_id="0100", runtime_env={"env_vars": {"A_TOKEN": "tok-91aa07"}})
    failed = {"error_type": "OUT_OF_MEMORY", "func_or_class_name": "fit", "error_message": "killed; tok-91aa07"}
    scripted_ray.script("GET", "/api/v0/tasks\\?.*", answers.as_json(listed(failed, failed)), forever=True)
    summary = {"fit": {"state_counts": {"FINISHED": 7, "FAILED": 2}}}
    counted = {"data": {"result": {"result": {"node_id_to_summary": {"cluster": {"summary": summary}}}}}}
    scripted_ray.script("GET", "/api/v0/tasks/summarize.*", answers.as_json(counted), forever=True)
    view = asyncio.run(read_view(cluster_at(scripted_ray), "job-1", whole=True))
    assert isinstance(view.failure.value, Findings), "texts are masked in a thread, and not on the event loop"
    found = shown(view, cluster_at(scripted_ray))
    assert len([one for one in scripted_ray.received if "/summarize" in one.path]) == 1
    assert found["tasks"] == {"text": "Ray tasks: 7 of 9 done, 0 running, 2 failed (fit 7 of 9)"}
    assert found["failure"]["text"].splitlines() == [
        "out of memory, exit code 1",
        "2 of 9 Ray tasks failed (a retry counts again):",
        "  2 out of memory in fit: killed; ***",
    ]


# Parts that fail


def test_a_part_that_fails_says_so_in_its_place(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("job-1", "FAILED", start_time=1000)
    scripted_ray.script("GET", LOG, answers.text(500, "no such node"), forever=True)
    scripted_ray.script("GET", ACTORS, answers.bad_gateway(), forever=True)
    found = view_of(scripted_ray)
    assert (found["status"], found["submitted"], found["running"]) == ("FAILED", 1000, None)
    assert "no such node" in found["log"]["problem"]


def test_a_part_that_does_not_answer_is_given_up_and_delays_no_other(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_module, "PART_TIMEOUT", 1.0)
    job = scripted_ray.add_job("job-1")
    job.log = ["hello\n"]
    for path in (ACTORS, LOG):
        scripted_ray.script("GET", path, answers.default(delay=30), forever=True)
    began = time.monotonic()
    found = view_of(scripted_ray)
    assert time.monotonic() - began < 10, "the parts are read at the same time"
    assert found["status"] == "RUNNING"
    assert found["log"] == {"problem": "no answer within 1 s"}


def test_a_log_without_an_end_is_not_read_to_it(scripted_ray: ScriptedRay) -> None:
    job = scripted_ray.add_job("job-1")
    job.log = ["x" * (TAIL_LIMIT + 1000)]
    found = view_of(scripted_ray)
    assert "more than" in found["log"]["problem"]
    assert len(json.dumps(found)) < 10_000


def test_a_job_that_is_gone_is_an_error(scripted_ray: ScriptedRay) -> None:
    with pytest.raises(RayJobNotFoundError):
        view_of(scripted_ray, "gone")


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"{}",
        b'{"data": null}',
        json.dumps(listed()).encode(),
        json.dumps(listed({})).encode(),
    ],
)
def test_a_job_without_a_known_supervisor_has_no_known_start(body: bytes) -> None:
    assert outcome(running_since("job-1"), body) is None


@pytest.mark.parametrize(("told", "start"), [("5000", 5000), ("0", None), ('"soon"', None), ("null", None)])
def test_the_start_of_the_supervisor_is_the_jobs(told: str, start: int | None) -> None:
    actor = json.dumps(listed({"actor_id": "a/1"})).encode()
    assert (
        outcome(running_since("job-1"), actor, f'{{"data": {{"detail": {{"startTime": {told}}}}}}}'.encode()) == start
    )


def test_a_problem_is_one_line_of_bounded_length() -> None:
    assert problem("a\n  b \0") == r"a b \x00"
    assert len(problem("x" * 10_000)) == MAX_PROBLEM

"""What the protocol makes of each answer that a supported Ray gave: see ``tests/samples/record.py``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs import exceptions as errors
from airflow_provider_rayjobs import jobs
from airflow_provider_rayjobs.client import cluster_status, listing, log_files, package_store, verbs
from airflow_provider_rayjobs.client.answers import error_of
from airflow_provider_rayjobs.client.exchange import Request
from airflow_provider_rayjobs.following.lines import LineWriter
from airflow_provider_rayjobs.jobs import JobStatus
from tests.samples import record
from tests.support import samples
from tests.support.flows import answer_to
from tests.support.ray_head import LABEL_SELECTOR_SINCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_rayjobs.client.exchange import Body, Flow
    from tests.support.samples import Sample

VERSIONS = samples.versions()
START, END = 1767225600000, 1767225605000

#: Since when the head names its session, which tells a head that restarted from a job that was deleted.
SESSION_NAME_SINCE = (2, 35)


def nothing() -> Body:
    raise AssertionError("nothing is sent here")


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return samples.number(request.param)


@pytest.fixture
def recorded(version: tuple[int, ...]) -> dict[str, Sample]:
    return samples.read(".".join(map(str, version)))


def outcome(flow: Flow[Any], sample: Sample) -> Any:
    """Run a flow that asks once; return what it makes of the answer."""
    request = next(flow)
    assert isinstance(request, Request)
    assert f"{request.method} {request.path}" == sample.request
    with pytest.raises(StopIteration) as done:
        flow.send(
            sample.response if request.receive is None else answer_to(request, sample.body.encode(), sample.status)
        )
    return done.value.value


def test_the_oldest_and_the_newest_are_there() -> None:
    assert VERSIONS[0].startswith("2.8.")
    assert len(VERSIONS) >= 5


def test_every_answer_is_read_here(recorded: dict[str, Sample]) -> None:
    assert set(recorded) == {*JOBS, *VALUES, *REFUSALS, *OTHERS}


VALUES: dict[str, tuple[Callable[[], Flow[Any]], Any]] = {
    "stop_running": (lambda: verbs.stop_job("sleeps"), True),
    "stop_pending": (lambda: verbs.stop_job("waits"), True),
    "stop_ended": (lambda: verbs.stop_job("fails"), False),
    "delete_ended": (lambda: verbs.delete_job("fails"), True),
    "package_missing": (lambda: package_store.has_package(record.PACKAGE), False),
    "package_there": (lambda: package_store.has_package(record.PACKAGE), True),
    "package_put": (lambda: package_store.put_package(record.PACKAGE, nothing), True),
    "package_too_large": (lambda: package_store.put_package(record.PACKAGE, nothing), False),
    "cluster_status": (cluster_status.describe_resources, "1 node, 2 of 2 CPUs free"),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_verb_returns_what_ray_said(recorded: dict[str, Sample], name: str) -> None:
    flow, value = VALUES[name]
    assert outcome(flow(), recorded[name]) == value


def test_the_resources_of_each_node_are_read(recorded: dict[str, Sample]) -> None:
    (node,) = outcome(cluster_status.cluster_resources(), recorded["cluster_status"]).nodes
    assert (node["CPU"], node["here"], node["memory"]) == ((0.0, 2.0), (0.0, 1.0), (0.0, 4e9))


NOT_FOUND = (errors.RayJobNotFoundError, r"Job unknown does not exist$")
REFUSED = errors.RayRequestRefusedError
REFUSALS: dict[str, tuple[type[errors.RayJobsError], str]] = {
    "get_unknown": NOT_FOUND,
    "stop_unknown": NOT_FOUND,
    "delete_unknown": NOT_FOUND,
    "logs_unknown": NOT_FOUND,
    "delete_running": (errors.RayAPIError, r"HTTP 500: .*it is in a non-terminal state RUNNING"),
    "submit_duplicate": (errors.RayJobExistsError, "Job with submission_id fails already exists"),
    "submit_no_entrypoint": (REFUSED, "Ray refused the request: TypeError: .*missing 1 required .*'entrypoint'"),
    "submit_bad_cpus": (REFUSED, "TypeError: entrypoint_num_cpus must be a number"),
    "submit_bad_resources": (REFUSED, "TypeError: entrypoint_resources must be a dict"),
    "submit_bad_metadata": (REFUSED, "TypeError: metadata values must be strings"),
    "submit_bad_runtime_env": (REFUSED, "TypeError: runtime_env must be a dict"),
    "submit_unknown_field": (REFUSED, "TypeError: .*unexpected keyword argument 'of_a_later_ray'"),
    "no_such_route": (errors.RayProtocolError, "no such route"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_told_by_its_kind_and_in_rays_words(recorded: dict[str, Sample], name: str) -> None:
    kind, words = REFUSALS[name]
    error = error_of(recorded[name].response)
    assert type(error) is kind
    assert re.match("http://ray:8265: ", str(error))
    assert re.search(words, str(error))
    assert "\n" not in str(error)


#: The jobs of `record`, each in the status that it has when it is looked at: what all versions tell alike.
JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "get_pending": ("waits", {"status": "PENDING", "entrypoint": "true", "end_time": None}),
    "get_running": ("sleeps", {"status": "RUNNING", "entrypoint": "sleep 1000", "end_time": None}),
    "get_stopped": ("sleeps", {"status": "STOPPED", "entrypoint": "sleep 1000", "driver_exit_code": None}),
    "get_failed": ("fails", {"status": "FAILED", "entrypoint": record.FAILS.entrypoint, "driver_exit_code": 3}),
    "get_failed_setup": ("no-code", {"status": "FAILED", "entrypoint": "true", "driver_exit_code": None}),
    "get_connected": ("connects", {"status": "SUCCEEDED", "job_id": "02000000", "driver_exit_code": 0}),
    "get_succeeded": (
        "whole",
        {
            "status": "SUCCEEDED",
            "entrypoint": record.WHOLE.entrypoint,
            "metadata": record.WHOLE.metadata,
            "runtime_env": record.WHOLE.runtime_env,
            "driver_exit_code": 0,
        },
    ),
}
#: In words of Ray's own.
MESSAGES = {
    "waits": "may be waiting for resources",
    "sleeps": "currently running|intentionally stopped",
    "fails": r"exit code 3[^~]*boom\n",
    "no-code": r"runtime_env setup failed[^~]*_ray_pkg_missing\.zip",
    "connects": "finished successfully",
    "whole": "finished successfully",
}


@pytest.mark.parametrize("name", JOBS)
def test_the_details_of_a_job(recorded: dict[str, Sample], name: str) -> None:
    submission_id, told = JOBS[name]
    job = outcome(verbs.get_job_info(submission_id), recorded[name])
    ended = told["status"] in ("SUCCEEDED", "FAILED", "STOPPED")
    common = {"type": "SUBMISSION", "submission_id": submission_id, "start_time": START, "end_time": END}
    assert {field: getattr(job, field) for field in common | told} == common | told
    assert (job.status, job.status.is_terminal) == (JobStatus(told["status"]), ended)
    assert re.search(MESSAGES[submission_id], job.message)


def test_a_driver_is_found_where_it_ran(recorded: dict[str, Sample]) -> None:
    for name in ("get_running", "get_succeeded", "get_failed"):
        job = outcome(verbs.get_job_info(JOBS[name][0]), recorded[name])
        assert job.driver_node_id == "ab" * 28
        assert job.driver_agent_http_address == "http://127.0.0.1:52365"


def test_the_list_holds_jobs_and_drivers_that_nobody_submitted(recorded: dict[str, Sample]) -> None:
    jobs = outcome(listing.list_jobs(), recorded["list"])
    assert {job.submission_id: job.status for job in jobs} == {
        None: "SUCCEEDED",
        "connects": "SUCCEEDED",
        "fails": "FAILED",
        "no-code": "FAILED",
        "sleeps": "STOPPED",
        "waits": "PENDING",
        "whole": "SUCCEEDED",
    }
    assert {job.submission_id: job.type for job in jobs}[None] == "DRIVER"
    for name, (submission_id, _) in JOBS.items():
        if name != "get_running":
            assert outcome(verbs.get_job_info(submission_id), recorded[name]) in jobs


def test_the_head_names_its_version_and_session(recorded: dict[str, Sample], version: tuple[int, ...]) -> None:
    info = outcome(verbs.get_version(), recorded["version"])
    assert samples.number(info.ray_version) == version
    named = "session_2026-01-01_00-00-00_000000_1"
    assert info.session_name == (named if version >= SESSION_NAME_SINCE else None)


def submit(submission: jobs.Submission) -> Flow[str]:
    return verbs.submit_job(submission, lambda job: False, patience=0)


def test_a_submission_with_every_field_is_accepted(recorded: dict[str, Sample]) -> None:
    assert outcome(submit(record.WHOLE), recorded["submit"]) == "whole"


def test_a_label_selector_is_accepted_or_refused_by_name(recorded: dict[str, Sample], version: tuple[int, ...]) -> None:
    sample = recorded["submit_label_selector"]
    if version >= LABEL_SELECTOR_SINCE:
        assert outcome(submit(record.LABELLED), sample) == "labelled"
    else:
        flow = submit(record.LABELLED)
        next(flow)
        with pytest.raises(REFUSED, match="unexpected keyword argument 'entrypoint_label_selector'"):
            flow.send(sample.response)


def test_logs(recorded: dict[str, Sample]) -> None:
    logs = outcome(log_files.get_job_logs("whole"), recorded["logs"])
    assert [line for line in logs.splitlines() if line in ("first", "last")] == ["first", "last"]
    assert recorded["log_file"].body in (logs, f"1{logs}")  # with a byte before each block: see `functions/result.py`


def test_a_log_file_that_is_not_there_is_told(recorded: dict[str, Sample]) -> None:
    sample = recorded["log_file_missing"]
    assert "not found" in sample.body
    if sample.status == 200:  # what `results` makes of it is held by its own tests
        assert sample.body[0] == "0"
    else:
        assert type(error_of(sample.response)) is errors.RayAPIError


def test_the_log_stream_begins_and_ends_with_the_log_and_closes_in_good_order(recorded: dict[str, Sample]) -> None:
    stream, logs = recorded["tail"], recorded["logs"].json["logs"]
    lines: list[str] = []
    writer = LineWriter(lines.append)
    for frame in stream.frames:
        writer.feed(frame)
    assert lines == [logs.splitlines()[0], "last"]
    assert (stream.status, stream.close_code) == (101, 1000)
    assert recorded["tail_unknown"].status == 404


def test_actors_are_counted(recorded: dict[str, Sample]) -> None:
    assert outcome(listing.count_actors(), recorded["actors"]) >= len(JOBS) - 1


OTHERS = {
    *("actors", "list", "log_file", "log_file_missing", "logs", "submit", "submit_label_selector"),
    *("tail", "tail_unknown", "version"),
}

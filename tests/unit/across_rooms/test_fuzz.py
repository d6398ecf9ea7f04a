"""
Whatever a cluster answers, a trigger sends and a connection holds, nothing but documented errors comes of it.

``make fuzz`` runs this with a hundred thousand examples; a usual run takes a few.
"""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_rayjobs import jobs
from airflow_provider_rayjobs.client import cluster_status, listing, log_files, package_store, verbs
from airflow_provider_rayjobs.client.exchange import NO_RESPONSE, Pause, Request
from airflow_provider_rayjobs.client.submission import Submission
from airflow_provider_rayjobs.cluster.connection import ClusterConnection, read_connection
from airflow_provider_rayjobs.cluster.fields import FIELDS
from airflow_provider_rayjobs.compat import masking
from airflow_provider_rayjobs.exceptions import (
    RayClusterUnreachableError,
    RayConnectionConfigError,
    RayJobResultError,
    RayJobsError,
)
from airflow_provider_rayjobs.following.events import JobEvent, describe_failure, raise_for_outcome
from airflow_provider_rayjobs.functions.result import parse_record, traceback_of, value_of
from airflow_provider_rayjobs.jobs import JobDetails
from airflow_provider_rayjobs.page import rows
from tests.support.flows import answer_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_rayjobs.client.exchange import Flow

EXAMPLES = int(os.environ.get("RAYJOBS_FUZZ_EXAMPLES", "60"))
FUZZ = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

texts = st.one_of(
    st.text(max_size=8),
    st.text(st.sampled_from("a\0\n\x1b\ud800\udcff😀/@:$"), max_size=6),
    st.sampled_from(["SUCCEEDED", "FAILED", "RUNNING", "a", "", ".", "2.60.0", "X" * 300, "https://a:secret@b/?c=d"]),
)
scalars = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.integers(-(10**30), 10**30), st.floats(), texts),
    st.sampled_from([1e300, -1, 10**400, 1.5]),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)


def objects(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects with some of these fields, of any kind."""
    return st.dictionaries(st.sampled_from(names) | texts, values, max_size=len(names))


jobs = st.builds(
    lambda good, odd: {**good, **odd},
    st.just({"type": "SUBMISSION", "status": "RUNNING", "submission_id": "a"}),
    objects(*jobs._CHECKS),
)
documents = st.one_of(
    values,
    jobs,
    st.lists(jobs, max_size=3),
    objects("submission_id", "job_id", "stopped", "deleted", "logs", "ray_version", "session_name", "data"),
    st.builds(
        lambda usage, nodes: {"data": {"clusterStatus": {"loadMetricsReport": {"usage": usage, "nodeTypes": nodes}}}},
        values,
        values,
    ),
    st.builds(lambda total: {"data": {"result": {"total": total}}}, values),
)
bodies = st.one_of(
    documents.map(lambda value: json.dumps(value).encode()),
    documents.map(lambda value: json.dumps(value).encode()[:-1]),
    st.binary(max_size=40),
    st.sampled_from(
        [
            *(b"", b"[", b'{"logs": "', b"<html>", b"[" * 3000, b'{"a":' * 3000, b"1" * 5000, b"NaN", b"-Infinity"),
            *(b"Traceback\nValueError: already exists", b"Job a does not exist", b"No available agent to submit job"),
            b"RuntimeError: Request failed with status code 400: x",
        ]
    ),
)
statuses = st.one_of(
    st.just(200), st.sampled_from([301, 400, 401, 403, 404, 407, 413, 429, 500, 502]), st.integers(100, 599)
)
answers = st.tuples(statuses, bodies)

FLOWS: dict[str, Callable[[], Flow[Any]]] = {
    "details": lambda: verbs.get_job_info("a"),
    "version": verbs.get_version,
    "stop": lambda: verbs.stop_job("a"),
    "stop and wait": lambda: verbs.stop_and_wait("a", patience=0.0),
    "delete": lambda: verbs.delete_job("a"),
    "list": listing.list_jobs,
    "actors": listing.count_actors,
    "live actors": listing.live_jobs,
    "resources": cluster_status.describe_resources,
    "package": lambda: package_store.has_package("a.zip"),
    "log": lambda: log_files.get_job_logs("a"),
    "file": lambda: log_files.read_log("a", "ab", lambda: lambda text: None),
    "submit": lambda: verbs.submit_job(
        Submission("true", "a", runtime_env={"env_vars": {"A": "secret-1"}}), lambda job: False, patience=0.0
    ),
}


def refused(call: Callable[[], object], *errors: type[Exception]) -> str:
    """Call something that may raise documented errors; return the message of one, or an empty text."""
    try:
        call()
    except errors as e:
        return str(e)
    return ""


def drive(flow: Flow[Any], given: list[tuple[int, bytes]]) -> Any:
    """Answer a flow's questions until it ends or there is no answer left; each may be of a transport's own error."""
    step = next(flow)
    try:
        for status, body in given:
            if isinstance(step, Pause):
                step = flow.send(NO_RESPONSE)
                continue
            assert isinstance(step, Request)
            try:
                answer = answer_to(step, body, status)
            except RayJobsError as e:
                step = flow.throw(e)
            else:
                step = flow.send(answer)
    except StopIteration as end:
        return end.value
    flow.close()
    return None


@pytest.mark.parametrize("name", FLOWS)
def test_no_answer_is_another_error_than_ours(name: str) -> None:
    @FUZZ
    @given(st.lists(answers, min_size=1, max_size=6))
    def check(given_answers: list[tuple[int, bytes]]) -> None:
        said = refused(lambda: drive(FLOWS[name](), given_answers), RayJobsError)
        assert "secret-1" not in said
        assert len(said) < 3000
        said.encode()

    check()


@FUZZ
@given(jobs)
def test_what_is_made_of_a_job_can_be_shown_and_stored(data: dict[str, Any]) -> None:
    try:
        job = JobDetails.from_json(json.loads(json.dumps(data)))
    except ValueError:
        return
    public = masking.public_for(job)
    for text in (job.entrypoint, job.message or ""):
        public(text)
    kept = rows._shortened(job)
    (row,) = rows.masked_rows([kept], ClusterConnection("c", "http://head"))
    json.dumps(row.data, ensure_ascii=False).encode()


@FUZZ
@given(values | st.builds(lambda event: {"version": 1, **event}, objects(*JobEvent.__dataclass_fields__)))
def test_no_event_is_another_error_than_documented(data: Any) -> None:
    try:
        event = JobEvent.from_json(data)
    except ValueError:
        return
    describe_failure(event)
    json.dumps(event.to_json(), ensure_ascii=False).encode()
    refused(lambda: raise_for_outcome(event), RayJobsError)


@FUZZ
@given(
    st.binary(max_size=30)
    | st.builds(
        lambda header, body: (
            json.dumps({"format": 1, "submission": "s", "outcome": "value", **header}).encode() + b"\n" + body
        ),
        objects("format", "submission", "outcome", "bytes", "sha256", "progress"),
        bodies,
    )
)
def test_no_result_is_another_error_than_ours(data: bytes) -> None:
    try:
        record = parse_record(data, "job", "s")
        traceback_of(record)
        value_of(record, "job")
    except RayJobResultError:
        pass


hosts = texts | st.sampled_from(
    ["head", "http://head:1", "https://h/p?q=1", "head:70000", "module://x", "[::1]", "a b", "http://u:p@h", "http://["]
)
extras = st.one_of(
    objects(*FIELDS).map(json.dumps),
    texts,
    st.none(),
    st.dictionaries(st.sampled_from(list(FIELDS)), texts, max_size=6).map(json.dumps),
)


@FUZZ
@given(
    st.builds(
        SimpleNamespace,
        conn_type=st.just("ray_jobs"),
        host=st.none() | hosts,
        port=st.none() | st.integers(-1, 70000),
        schema=st.none() | texts | st.just("me:hunter2@head"),  # of a URI that Airflow could not split
        login=st.none() | texts,
        password=st.none() | texts | st.just("hunter2"),
        extra=extras,
    ),
    st.dictionaries(st.sampled_from(["RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"]), hosts, max_size=2),
)
def test_no_connection_is_another_error_than_documented(connection: Any, environ: dict[str, str]) -> None:
    def use() -> None:
        cluster = read_connection("c", connection, {k: v for k, v in environ.items() if "ray://" not in v})
        cluster.request_headers()
        cluster.job_page("a")

    said = refused(use, RayConnectionConfigError, RayClusterUnreachableError)
    assert "hunter2" not in said

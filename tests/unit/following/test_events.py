"""The event that a trigger sends its operator, and what each outcome raises."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayjobs import exceptions as errors
from airflow_provider_rayjobs.following.events import (
    EVENT_VERSION,
    JobEvent,
    Outcome,
    describe_failure,
    event_of_job,
    may_run_hint,
    raise_for_outcome,
)
from airflow_provider_rayjobs.jobs import FailedTasks, JobDetails, JobFailure, JobStatus

ADDRESS = "http://ray:8265"
KILLED = "if nobody sent it, the node's kernel did, because memory ran out; see entrypoint_memory"
GOOD = JobEvent("a", ADDRESS, Outcome.SUCCEEDED).to_json()


def events(text: st.SearchStrategy[str]) -> st.SearchStrategy[JobEvent]:
    return st.builds(
        JobEvent,
        submission_id=text.filter(bool),
        address=text,
        outcome=st.sampled_from(Outcome),
        detail=text,
        message=st.none() | text,
        error_type=st.none() | text,
        exit_code=st.none() | st.integers(-(2**31), 2**31),
        log_tail=st.lists(text).map(tuple),
        log_shown=st.booleans(),
        failure=st.none()
        | st.builds(
            JobFailure,
            cause=text,
            exit_code=st.none() | st.integers(-(2**31), 2**31),
            failed_tasks=st.lists(st.builds(FailedTasks, text, st.integers(1, 9), text, st.tuples(text))).map(tuple),
            dead_nodes=st.tuples(text),
        ),
        reattached_at=st.none() | st.floats(0, 1e10),
        ended_at=st.floats(0, 1e10),
        progress=st.none() | st.builds(dict, done=st.just(1), total=st.none(), message=text),
    )


@given(events(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)))
def test_an_event_survives_json(event: JobEvent) -> None:
    assert JobEvent.from_json(json.loads(json.dumps(event.to_json()))) == event


@given(events(st.text(st.sampled_from("a\0\ud800\udcff\U0001f600é"), max_size=6)))
def test_every_database_takes_an_event_whatever_a_job_printed(event: JobEvent) -> None:
    sent = json.dumps(event.to_json())
    assert "\\u0000" not in sent
    json.loads(sent.replace("\\ud83d\\ude00", "")).__repr__().encode()  # no half of a pair is left
    assert JobEvent.from_json(json.loads(sent)).outcome == event.outcome


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "is not of version 1: 'None'"),
        ("done", "must run the same version of airflow-provider-rayjobs"),
        ({}, "is not of version 1"),
        ({**GOOD, "version": EVENT_VERSION + 1}, "is not of version 1"),
        ({**GOOD, "outcome": "fine"}, "malformed event"),
        ({key: value for key, value in GOOD.items() if key != "outcome"}, "malformed event"),
        ({key: value for key, value in GOOD.items() if key != "address"}, "malformed event"),
        ({key: value for key, value in GOOD.items() if key != "submission_id"}, "malformed event"),
        ({**GOOD, "log_tail": 5}, "malformed event"),
        ({**GOOD, "submission_id": ""}, "without submission_id"),
        ({**GOOD, "submission_id": 5}, "without submission_id"),
    ],
)
def test_what_is_no_event_is_a_clear_error(data: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        JobEvent.from_json(data)


def test_a_field_that_a_later_provider_adds_is_no_error() -> None:
    assert JobEvent.from_json({**GOOD, "later": 1}) == JobEvent("a", ADDRESS, Outcome.SUCCEEDED)


def event(outcome: Outcome, **fields: Any) -> JobEvent:
    return JobEvent("a", ADDRESS, outcome, **fields)


def test_success_raises_nothing() -> None:
    raise_for_outcome(event(Outcome.SUCCEEDED))


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Outcome.FAILED, errors.RayJobFailedError),
        (Outcome.STOPPED, errors.RayJobStoppedError),
        (Outcome.TIMEOUT, errors.RayJobTimeoutError),
        (Outcome.LOST, errors.RayJobLostError),
        (Outcome.UNREACHABLE, errors.RayClusterUnreachableError),
    ],
)
def test_every_other_outcome_has_its_error_with_address_and_id(outcome: Outcome, kind: type[Exception]) -> None:
    with pytest.raises(errors.RayJobsError) as caught:
        raise_for_outcome(event(outcome, detail="exceeded its job_timeout"))
    assert type(caught.value) is kind
    text = str(caught.value)
    assert text.endswith(f"The job is a at {ADDRESS}") or text.startswith(f"{ADDRESS}: Ray job a ")
    if outcome not in (Outcome.FAILED, Outcome.STOPPED):
        assert "exceeded its job_timeout" in str(caught.value)
    if isinstance(caught.value, errors.RayJobError):
        assert caught.value.submission_id == "a"


def test_a_lost_job_tells_where_it_may_still_run() -> None:
    event = JobEvent("a", "http://ray", Outcome.LOST, "is gone", may_run=True, node_id="ab12", node_ip="10.0.0.7")
    with pytest.raises(errors.RayJobLostError) as caught:
        raise_for_outcome(JobEvent.from_json(json.loads(json.dumps(event.to_json()))))
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (error.submission_id, error.may_run, error.node_id, error.node_ip) == ("a", True, "ab12", "10.0.0.7")


def test_losing_contact_is_never_a_failed_job() -> None:
    with pytest.raises(errors.RayClusterUnreachableError) as caught:
        raise_for_outcome(event(Outcome.UNREACHABLE))
    assert not isinstance(caught.value, errors.RayJobError)


def test_every_outcome_is_covered() -> None:
    for outcome in set(Outcome) - {Outcome.SUCCEEDED}:
        with pytest.raises(errors.RayJobsError):
            raise_for_outcome(event(outcome))


def test_a_failure_tells_type_exit_code_message_and_log() -> None:
    text = describe_failure(
        event(
            Outcome.FAILED,
            error_type="RUNTIME_ENV_SETUP_FAILURE",
            exit_code=2,
            message="pip failed\nno such package\n",
            log_tail=("one", "two"),
        )
    )
    assert text.splitlines() == [
        "Ray job FAILED: runtime env setup failure; exit code 2",
        "Ray: pip failed",
        "no such package",
        "Last lines of the job's log:",
        "one",
        "two",
        "The job is a at http://ray:8265",
    ]


def test_a_failed_commands_log_is_not_told_twice() -> None:
    said = "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\n"
    failed = {"error_type": "JOB_ENTRYPOINT_COMMAND_ERROR", "exit_code": 1, "message": said + "boom\n"}
    start, end = "Ray job FAILED: exit code 1\n", "\nThe job is a at http://ray:8265"
    told = describe_failure(event(Outcome.FAILED, log_tail=("one", "boom"), **failed))
    assert told == f"{start}Last lines of the job's log:\none\nboom{end}"
    assert describe_failure(event(Outcome.FAILED, **failed)).count("boom") == 1
    shown = event(Outcome.FAILED, log_tail=("one", "boom", "", "\x1b[33m(raylet)\x1b[0m A worker died"), log_shown=True)
    told = describe_failure(replace(shown, **failed))
    assert told == f"{start}Last line of the job's log: boom{end}"
    told = describe_failure(replace(shown, log_tail=(), **{**failed, "message": said}))
    assert told == start + end.strip()


@pytest.mark.parametrize("shown", [True, False])
def test_the_traceback_of_a_function_is_told_once(shown: bool) -> None:
    sent = event(Outcome.FAILED, log_tail=("LookupError: ü",), log_shown=shown)
    told = describe_failure(sent, "Traceback (most recent call last):\n  …\nLookupError: ü")
    assert told.splitlines()[0] == "Ray job FAILED: LookupError: ü"
    assert ("Traceback" in told) is not shown


def test_a_failure_without_any_word_still_says_so() -> None:
    told = describe_failure(event(Outcome.FAILED))
    assert told == "Ray job FAILED: Ray gives no reason\nThe job is a at http://ray:8265"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0"),
        (7, "exit code 7"),
        (143, "exit code 143 (SIGTERM)"),
        (-15, "exit code -15 (SIGTERM)"),
        (137, f"exit code 137 (SIGKILL: {KILLED})"),
        (-9, f"exit code -9 (SIGKILL: {KILLED})"),
        (255, "exit code 255"),
    ],
)
def test_an_exit_code_that_stands_for_a_signal_names_it(code: int, words: str) -> None:
    assert describe_failure(event(Outcome.FAILED, exit_code=code)).splitlines()[0] == f"Ray job FAILED: {words}"


def test_the_error_of_a_failed_job_has_what_a_retry_policy_needs() -> None:
    failure = JobFailure("OUT_OF_MEMORY", 1, (FailedTasks("OUT_OF_MEMORY", 2, "7 of 8 GB", ("train",)),), tasks=3)
    sent = event(Outcome.FAILED, exit_code=1, error_type="JOB_ENTRYPOINT_COMMAND_ERROR", failure=failure)
    with pytest.raises(errors.RayJobFailedError) as caught:
        raise_for_outcome(JobEvent.from_json(json.loads(json.dumps(sent.to_json()))))
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (error.cause, error.exit_code, error.failed_tasks) == ("OUT_OF_MEMORY", 1, failure.failed_tasks)
        assert str(error).splitlines()[:3] == [
            "Ray job FAILED: out of memory; exit code 1",
            "2 of 3 Ray tasks failed (a retry counts again):",
            "  2 out of memory in train: 7 of 8 GB",
        ]


def test_an_event_tells_when_things_happened() -> None:
    times = {"submitted_at": 100.0, "left_pending_at": None, "finished_at": 110.5}
    sent = json.loads(json.dumps(event(Outcome.SUCCEEDED, **times).to_json()))
    read = JobEvent.from_json(sent)
    assert {name: getattr(read, name) for name in times} == times
    older = {name: value for name, value in sent.items() if name not in times}
    assert JobEvent.from_json(older).submitted_at is None
    with pytest.raises(ValueError, match="malformed event"):
        JobEvent.from_json({**sent, "finished_at": "soon"})


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "STOPPED"])
def test_the_event_of_an_ended_job(status: str) -> None:
    job = JobDetails(
        "SUBMISSION", JobStatus(status), submission_id="a", message="m", error_type="E", driver_exit_code=3
    )
    made = event_of_job(job, ADDRESS, reattached_at=1.0)
    assert made == JobEvent(
        "a", ADDRESS, Outcome(status.lower()), message="m", error_type="E", exit_code=3, reattached_at=1.0
    )


@pytest.mark.parametrize("address", ["http://[", "", "x" * 1000])
def test_a_node_whose_address_is_none_is_named_by_its_id(address: str) -> None:
    data = {"type": "SUBMISSION", "status": "RUNNING", "driver_agent_http_address": address, "driver_node_id": "ab12"}
    hint = may_run_hint("a", JobDetails.from_json(data))
    assert "node with unknown address (node id ab12)" in hint

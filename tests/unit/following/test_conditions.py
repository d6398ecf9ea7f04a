"""What the sensors wait for: each look is a flow, answered here without a server."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.client.exchange import NO_RESPONSE, Pause
from airflow_provider_rayjobs.exceptions import (
    RayJobFailedError,
    RayJobLostError,
    RayJobNotFoundError,
    RayJobStoppedError,
)
from airflow_provider_rayjobs.following.conditions import PROBE_ATTEMPTS, ClusterRunsJobs, JobReaches
from airflow_provider_rayjobs.jobs import JobDetails
from tests.support import answers
from tests.support.flows import response

if TYPE_CHECKING:
    from tests.support.answers import Answer


def test_a_sensors_job_that_is_gone_is_told_with_the_node_where_it_may_still_run() -> None:
    fields = {"driver_agent_http_address": "http://10.0.0.7:52365", "driver_node_id": "ab12"}
    condition = JobReaches("a", ["SUCCEEDED"])
    gone = RayJobNotFoundError("http://ray: there is no job a")
    assert condition.missing(gone) is False
    assert condition.reached(JobDetails.from_json({"type": "SUBMISSION", "status": "RUNNING", **fields})) is False
    with pytest.raises(RayJobLostError, match=r"may still run on node 10\.0\.0\.7 \(node id ab12\)") as caught:
        condition.missing(gone)
    assert (caught.value.may_run, caught.value.node_id, caught.value.node_ip) == (True, "ab12", "10.0.0.7")


def answered(flow: Any, *given: Answer) -> Any:
    """Answer the requests of a look, pauses left out, and return what it returns."""
    replies = iter(given)
    step = next(flow)
    while True:
        reply = NO_RESPONSE if isinstance(step, Pause) else response(next(replies))
        try:
            step = flow.send(reply)
        except StopIteration as end:
            assert not list(replies)
            return end.value


def details(status: str, submission_id: str = "a", **fields: Any) -> Answer:
    return answers.as_json({"type": "SUBMISSION", "status": status, "submission_id": submission_id, **fields})


MISSING = answers.not_found("a")


# A job that reaches a status


def test_a_job_is_waited_for_until_it_has_one_of_the_statuses() -> None:
    condition = JobReaches("a", ["RUNNING", "SUCCEEDED"])
    assert answered(condition.look(), MISSING) is False
    assert answered(condition.look(), details("PENDING")) is False
    assert answered(condition.look(), details("SUSPENDED")) is False
    assert answered(condition.look(), details("RUNNING")) is True
    assert condition.job is not None
    assert condition.job.status == "RUNNING"
    assert answered(condition.look(), details("SUCCEEDED")) is True


@pytest.mark.parametrize(
    ("status", "kind"),
    [("FAILED", RayJobFailedError), ("STOPPED", RayJobStoppedError), ("SUCCEEDED", RayJobStoppedError)],
)
def test_another_end_is_told_with_what_ray_said(status: str, kind: type[Exception]) -> None:
    condition = JobReaches("a", ["RUNNING", "PENDING"])
    with pytest.raises(kind, match=rf"^Ray job a ended {status} instead of RUNNING or PENDING: no env$") as caught:
        answered(condition.look(), details(status, message=" no env\n"))
    assert type(caught.value) is kind
    assert caught.value.submission_id == "a"  # type: ignore[attr-defined]


def test_a_failed_job_may_be_what_is_waited_for() -> None:
    assert answered(JobReaches("a", ["FAILED"]).look(), details("FAILED")) is True


def test_a_job_that_was_there_and_is_gone_is_lost() -> None:
    condition = JobReaches("a", ["SUCCEEDED"])
    answered(condition.look(), details("RUNNING"))
    with pytest.raises(RayJobLostError, match="it was there before"):
        answered(condition.look(), MISSING)


@pytest.mark.parametrize(
    ("kind", "condition"),
    [
        (JobReaches, JobReaches("a", ["FAILED"])),
        (ClusterRunsJobs, ClusterRunsJobs("p", {"entrypoint_num_cpus": 2}, {"m": "n"})),
    ],
)
def test_a_condition_is_json_that_makes_an_equal_one(kind: Any, condition: Any) -> None:
    assert kind(**json.loads(json.dumps(condition.to_json()))) == condition


# A cluster that runs jobs


def test_a_cluster_runs_jobs_when_a_trivial_one_succeeded() -> None:
    condition = ClusterRunsJobs("a", {"entrypoint_num_cpus": 2}, {"m": "n"})
    flow = condition.look()
    next(flow)
    submission = flow.send(response(MISSING))
    assert (submission.method, submission.path) == ("POST", "/api/jobs/")  # type: ignore[union-attr]
    assert submission.json == {  # type: ignore[union-attr]
        "entrypoint": "true",
        "submission_id": "a",
        "metadata": {"m": "n", "airflow_resources": '{"CPU": 2}'},
        "entrypoint_num_cpus": 2,
    }
    with pytest.raises(StopIteration) as end:
        flow.send(response(answers.as_json({"submission_id": "a"})))
    assert end.value.value is False
    assert answered(condition.look(), details("PENDING")) is False
    assert answered(condition.look(), details("RUNNING")) is False
    assert answered(condition.look(), details("SUCCEEDED")) is True


def test_a_trivial_job_that_failed_is_followed_by_another_so_many_times() -> None:
    condition = ClusterRunsJobs("a")
    ids = ["a", *(f"a.{number}" for number in range(2, PROBE_ATTEMPTS + 1))]
    for made, following in pairwise(ids):
        assert condition.current_id == made
        new = answers.as_json({"submission_id": following})
        end = "FAILED" if len(made) % 2 else "STOPPED"
        assert answered(condition.look(), details(end, made), answers.not_found(following), new) is False
    with pytest.raises(
        RayJobFailedError, match=rf"^10 trivial jobs failed .*, {ids[-1]}, ended FAILED: no room"
    ) as caught:
        answered(condition.look(), details("FAILED", ids[-1], message="no room"))
    assert caught.value.submission_id == ids[-1]

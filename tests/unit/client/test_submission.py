"""Submissions: the body that is sent, and how a job is recognized again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.client.submission import Submission, make_submission, with_runtime_env
from airflow_provider_rayjobs.cluster.connection import ClusterConnection
from airflow_provider_rayjobs.jobs import JobDetails, JobStatus


def test_fields_that_are_not_set_are_not_sent() -> None:
    small = Submission("true", "a").request().json
    assert small == {"entrypoint": "true", "submission_id": "a", "metadata": {}}
    whole: dict[str, Any] = {
        "entrypoint": "true",
        "submission_id": "a",
        "runtime_env": {"pip": ["x"]},
        "metadata": {"k": "v"},
        "entrypoint_num_cpus": 0,
        "entrypoint_num_gpus": 0.5,
        "entrypoint_memory": 1,
        "entrypoint_resources": {"r": 1.0},
        "entrypoint_label_selector": {"zone": "a"},
    }
    assert json.loads(json.dumps(Submission(**whole).request().json)) == whole


def test_env_vars_show_in_no_repr() -> None:
    submission = Submission("true", "a", runtime_env={"env_vars": {"K": "hush-hush"}})
    assert "hush-hush" not in repr(submission) + repr(submission.request())
    assert submission.request().secrets == ("hush-hush",)


CLUSTER = ClusterConnection(conn_id="ray_x", address="http://ray:8265", metadata={"team": "theirs", "b": "2"})


def job(submission: Submission) -> JobDetails:
    """Return the job that a cluster makes of a submission."""
    return JobDetails("SUBMISSION", JobStatus.RUNNING, metadata=submission.metadata)


def test_the_connections_metadata_is_laid_over_the_jobs() -> None:
    submission, _ = make_submission(CLUSTER, entrypoint="true", metadata={"team": "mine", "a": "1"}, submission_key="k")
    assert submission.metadata == {"a": "1", "b": "2", "team": "theirs", keys.SUBMISSION: "k"}


def test_a_submission_knows_its_own_job_again_and_no_other() -> None:
    (first, is_first), (second, is_second) = (make_submission(CLUSTER, entrypoint="true") for _ in range(2))
    assert (is_first(job(first)), is_second(job(second))) == (True, True)
    assert (is_first(job(second)), is_second(job(first))) == (False, False)
    assert not is_first(JobDetails("SUBMISSION", JobStatus.RUNNING))
    again, _ = make_submission(CLUSTER, entrypoint="other", submission_key=first.metadata[keys.SUBMISSION])
    assert is_first(job(again))


def test_words_are_quoted_and_a_line_is_not() -> None:
    assert make_submission(CLUSTER, entrypoint=["echo", "a b", "$X"])[0].entrypoint == "echo 'a b' '$X'"
    assert make_submission(CLUSTER, entrypoint="echo $X | wc")[0].entrypoint == "echo $X | wc"


def test_ids_are_given_or_random() -> None:
    assert make_submission(CLUSTER, entrypoint="true", submission_id="a")[0].submission_id == "a"
    assert make_submission(CLUSTER, entrypoint="true")[0].submission_id.startswith("raysubmit_")


@pytest.mark.parametrize(
    "wrong",
    [
        {"entrypoint": ""},
        {"submission_id": "a/b"},
        {"metadata": {"a": 1}},
        {"runtime_env": []},
        {"entrypoint_num_cpus": -1},
    ],
)
def test_a_wrong_field_is_named(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises((TypeError, ValueError), match=name):
        make_submission(CLUSTER, **{"entrypoint": "true", **wrong})


def test_what_a_runtime_env_became_is_checked_again() -> None:
    before = Submission("true", "a", runtime_env={"pip": "requirements.txt"})
    after = with_runtime_env(before, {"pip": {"packages": ["x"]}})
    assert (before.runtime_env, after.runtime_env) == ({"pip": "requirements.txt"}, {"pip": {"packages": ["x"]}})
    assert with_runtime_env(before, None).runtime_env is None
    with pytest.raises(ValueError, match=r"the largest part is runtime_env\['pip'\]"):
        with_runtime_env(before, {"pip": {"packages": ["x" * 140_000]}})

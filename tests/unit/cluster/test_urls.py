"""The pages of jobs in a history server: templates, and the values that are put in."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from airflow_provider_rayjobs.cluster.urls import (
    filled,
    folder_problem,
    history_page,
    history_problem,
    without_connection,
)

RAY = "https://history.example.com/{session}/#/jobs/{submission_id}"
EVIL = ["javascript:alert(1)", "//evil.example", "/../x", "a b", "{session}", "@evil.example", "\\evil", "\ud800", "é"]


def test_values_are_put_in() -> None:
    assert history_problem(RAY) == ""
    assert history_page(RAY, "job-1", "session_1") == "https://history.example.com/session_1/#/jobs/job-1"
    assert history_page("https://grafana/d/ray?var-SessionName={session}", "job-1", "s&x=y") == (
        "https://grafana/d/ray?var-SessionName=s%26x%3Dy"
    )


@pytest.mark.parametrize("value", EVIL)
def test_no_value_changes_where_a_link_leads(value: str) -> None:
    url = urlsplit(history_page("https://history/a/{submission_id}/b", value, None))
    assert (url.scheme, url.netloc) == ("https", "history")
    assert url.path.count("/") == 3
    assert (url.query, url.fragment) == ("", "")


@pytest.mark.parametrize("session", [None, "", ".", ".."])
def test_without_a_value_that_it_needs_there_is_no_page(session: str | None) -> None:
    assert history_page(RAY, "job-1", session) == ""
    assert history_page("https://history/{submission_id}", "job-1", session) == "https://history/job-1"


def test_no_template_means_no_page() -> None:
    assert history_page("", "job-1", "session_1") == ""


def test_other_placeholders_wait_for_their_values() -> None:
    half = filled("https://history/{namespace}/{cluster}/{session}/{submission_id}", {"namespace": "r", "cluster": "c"})
    assert half == "https://history/r/c/{session}/{submission_id}"


@pytest.mark.parametrize("url", ["https://h", "http://h:1/{session}?x=%7B1%7D", "HTTPS://h?q={submission_id}"])
def test_valid_templates(url: str) -> None:
    assert history_problem(url) == ""


@pytest.mark.parametrize(
    ("url", "for_nodes"),
    [
        ("s3://aws_default@bucket/a/b", "s3://bucket/a/b"),
        ("s3://bucket", "s3://bucket"),
        ("gs://gcp@my-bucket.example/x", "gs://my-bucket.example/x"),
        ("file:///mnt/shared", "file:///mnt/shared"),
    ],
)
def test_folders_for_packages(url: str, for_nodes: str) -> None:
    assert folder_problem(url) == ""
    assert without_connection(url) == for_nodes

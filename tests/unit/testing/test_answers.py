"""Answers are values: parts of one can be replaced."""

from __future__ import annotations

from airflow_provider_rayjobs.testing import answers


def test_a_copy_differs_in_what_is_given() -> None:
    page = answers.bad_gateway(503)
    late = page.but(delay=2.0)
    assert (late.status, late.body, late.delay, page.delay) == (503, page.body, 2.0, 0.0)


def test_an_error_of_the_agent_arrives_as_500_with_its_reason() -> None:
    answer = answers.already_exists("a")
    assert answer.status == 500
    assert b"Job with submission_id a already exists" in answer.body

"""Submission ids: which ones Ray can handle, and random ones."""

from __future__ import annotations

import re

import pytest

from airflow_provider_rayjobs.client import ids as ids_module


@pytest.mark.parametrize("wrong", ["a/b", "a b", "", ".", "..", "ä", "a\n"])
def test_an_id_that_no_route_finds_again_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="submission_id"):
        ids_module.check_submission_id(wrong)


def test_an_id_that_is_no_text_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="submission_id must be a string, not 5"):
        ids_module.check_submission_id(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("good", ["a", "a-B_1.2", "...", "x" * 240])
def test_an_id_that_ray_finds_again_is_taken(good: str) -> None:
    assert ids_module.check_submission_id(good) is good
    assert ids_module.is_submission_id(good)


@pytest.mark.parametrize("wrong", [None, 5, "", ".", "..", "a/b", "a\n", "x" * 241])
def test_what_a_cluster_can_not_call_a_job_is_no_id(wrong: object) -> None:
    assert not ids_module.is_submission_id(wrong)


def test_the_longest_id_is_bounded_by_file_names() -> None:
    with pytest.raises(ValueError, match="submission_id must have at most 240 characters, not 241"):
        ids_module.check_submission_id("x" * 241)


def test_random_ids_are_ids_of_rays_form_and_differ() -> None:
    made = {ids_module.new_submission_id() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"raysubmit_[A-Za-z0-9]{16}", one) for one in made)
    assert all(map(ids_module.is_submission_id, made))


@pytest.mark.parametrize(
    ("value", "missing"),
    [
        (None, True),
        ("", True),
        (" ", True),
        ("None", True),
        (" None\n", True),
        ("none", False),
        ("a", False),
        (0, False),
    ],
)
def test_what_a_template_makes_of_nothing_names_no_job(value: object, missing: bool) -> None:
    assert ids_module.is_not_given(value) is missing

"""Submission ids: which ones Ray can handle, and random ones."""

from __future__ import annotations

import pytest

from airflow_provider_rayjobs.client import ids as ids_module


@pytest.mark.parametrize("wrong", ["a/b", "a b", "", ".", "..", "ä", "a\n"])
def test_an_id_that_no_route_finds_again_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="submission_id"):
        ids_module.check_submission_id(wrong)


def test_an_id_that_is_no_text_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="submission_id must be a text, not 5"):
        ids_module.check_submission_id(5)  # type: ignore[arg-type]

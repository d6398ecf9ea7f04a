"""How deeply JSON values may be nested."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_rayjobs.text.json_levels import MOST_LEVELS, has_at_most_levels


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "[[[["])
def test_what_is_no_container_counts_as_one_level(value: Any) -> None:
    assert has_at_most_levels(value, 1)
    assert not has_at_most_levels(value, 0)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[1,{"b":2,"a":', "}]")])
def test_levels_are_counted_to_the_deepest(opening: str, closing: str) -> None:
    levels = 40
    value = json.loads(opening * levels + "1" + closing * levels)
    deep = levels * (2 if len(closing) > 1 else 1)
    assert has_at_most_levels(value, deep + 1)
    assert not has_at_most_levels(value, deep)
    assert has_at_most_levels([1, {}, [], value], deep + 2)
    assert not has_at_most_levels({"shallow": [], "deep": value}, deep + 1)


def test_the_most_levels_are_far_from_what_python_takes() -> None:
    value: Any = 1
    for _ in range(MOST_LEVELS):
        value = [value]
    assert not has_at_most_levels(value, MOST_LEVELS)
    assert has_at_most_levels(value[0], MOST_LEVELS)
    for _ in range(100_000):
        value = [value]
    assert not has_at_most_levels(value, MOST_LEVELS)  # ends before Python gives up

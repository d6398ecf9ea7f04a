"""What is remembered of the ends that were told, in bounded space."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_rayjobs.client.ended import EndedJob
from airflow_provider_rayjobs.following.told import MOST, MOST_AHEAD, SLACK, Told, mark_of

NOW = 1_700_000_000_000


def job(name: str, end_time: int = NOW, start_time: int = 1) -> EndedJob:
    return EndedJob(end_time, name, "SUCCEEDED", start_time)


def add(told: Told, *jobs: EndedJob, now: float = NOW) -> None:
    for one in jobs:
        told.add(mark_of(one), one.end_time, now)


def test_only_what_was_told_is_known() -> None:
    told = Told()
    add(told, job("a"))
    assert told.knows(job("a"))
    assert not told.knows(job("b"))
    assert not told.knows(job("a", NOW + 1, start_time=2)), "the same id, used again"


@pytest.mark.parametrize("later", [1, 30_000, SLACK])
def test_an_end_that_ray_writes_again_is_known(later: int) -> None:
    told = Told()
    add(told, job("a"))
    assert told.knows(job("a", NOW + later))
    add(told, job("b", NOW + SLACK + later // 2), now=NOW + 2 * SLACK)
    assert Told.from_text(told.to_text()).knows(job("a", NOW + later))


def test_what_an_earlier_version_noted_is_known() -> None:
    told = Told.from_text('{"floor":0,"ends":{"%s":%d}}' % (mark_of(job("a", start_time=0)), NOW))  # noqa: UP031 - braces
    assert told.knows(job("a"))
    assert not told.knows(job("b"))


def test_ends_in_the_future_wait_for_their_time() -> None:
    told = Told()
    far = job("far", NOW + SLACK + 1)
    assert not told.is_due(far, NOW)
    assert told.is_due(far, NOW + 1)
    near = [job(f"n{index}", NOW + SLACK - index) for index in range(2 * MOST)]
    for one in near:
        if told.is_due(one, NOW):
            add(told, one)
    assert sum(map(told.knows, near)) == MOST_AHEAD
    assert told.is_due(job("b"), NOW)
    assert all(told.is_due(one, NOW + SLACK) for one in near)


def test_ends_in_the_future_never_raise_the_floor_above_now() -> None:
    told = Told()
    add(told, *(job(f"n{index}", NOW + index) for index in range(2 * MOST)))
    told = Told.from_text(told.to_text())
    assert told.floor <= NOW
    assert not told.knows(job("honest", NOW + 10_000))


def test_an_end_may_come_later_than_others_with_later_times() -> None:
    told = Told()
    add(told, job("a"))
    assert not told.knows(job("late", NOW - SLACK + 1))
    assert told.knows(job("too late", NOW - SLACK))


def test_a_clock_that_is_ahead_does_not_skip_the_ends_of_others() -> None:
    told = Told()
    add(told, job("ahead", NOW + 86_400_000))
    assert not told.knows(job("b"))
    assert told.knows(job("ahead", NOW + 86_400_000))


def test_the_floor_never_falls() -> None:
    told = Told()
    add(told, job("a"), job("late", NOW - 1000))
    assert told.floor == NOW - SLACK


@pytest.mark.parametrize("number", [MOST, MOST + 1, 2 * MOST + 1, 10 * MOST])
def test_what_is_kept_has_bounds(number: int) -> None:
    told = Told()
    jobs = [job(f"j{index}", NOW + index) for index in range(number)]
    add(told, *jobs, now=NOW + number)
    assert all(map(told.knows, jobs))
    assert not told.knows(job("new", NOW + number))
    text = told.to_text()
    assert len(text) < 40 * MOST
    assert len(told.ends) <= MOST
    assert all(map(Told.from_text(text).knows, jobs))


def test_it_is_the_same_after_it_was_stored() -> None:
    told = Told(of=("http://ray:8265", "ours"))
    add(told, job("a"), job("old", NOW - SLACK), job("b\ud800", NOW + 5))
    again = Told.from_text(told.to_text())
    assert (again.floor, again.ends, again.of) == (told.floor, told.ends, told.of)
    assert again.knows(job("a"))
    assert again.knows(job("old", NOW - SLACK))


@pytest.mark.parametrize(
    "value",
    [
        *("", "x", [], {}, {"floor": 1}, {"floor": -1, "ends": {}}, {"floor": "1", "ends": {}}),
        *({"floor": 1, "ends": []}, {"floor": True, "ends": {}}, {"floor": 1, "ends": {"a": "b"}}),
        {"floor": 1, "ends": {"a": None}},
        *({"floor": 1, "ends": {}, "of": of} for of in ("x", ["a"], ["a", 1])),
    ],
)
def test_what_people_wrote_is_checked(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - also JSON's own
        Told.from_text(value if isinstance(value, str) else json.dumps(value))

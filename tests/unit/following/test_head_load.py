"""What looking costs the head: the cheapest way is taken, and a list in vain stays a small thing beside the rest."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayjobs.client.listing import read_list
from airflow_provider_rayjobs.exceptions import RayProtocolError
from airflow_provider_rayjobs.following.head_load import (
    LIST_COST,
    LOOK_COST,
    MOST_LISTED,
    READ_COST,
    SHARE,
    HeadLoad,
    list_interval,
)
from tests.support.flows import outcome

DELAYS = st.lists(st.floats(0.1, 60.0), min_size=1, max_size=50)


def alone(delays: list[float]) -> float:
    """Return the head's load of single requests."""
    return sum(LOOK_COST / delay for delay in delays)


def promise(delay: float, record: int) -> float:
    """Return the interval of lists that tell in time of jobs that ask for such a delay."""
    return pytest.approx(max(delay - (LIST_COST + READ_COST) * record, LIST_COST * record / SHARE))


@given(DELAYS, st.integers(1, 5000))
def test_the_list_never_asks_more_of_the_head_than_single_requests(delays: list[float], record: int) -> None:
    assert LIST_COST * record / list_interval(delays, record) <= alone(delays) * (1 + 1e-9)


@given(DELAYS, st.integers(1, 5000))
def test_the_list_is_never_later_than_single_requests_that_leave_the_head_time(
    delays: list[float], record: int
) -> None:
    if (interval := list_interval(delays, record)) < math.inf:
        held_back = max(alone(delays) / SHARE, 1.0)
        assert interval + (LIST_COST + READ_COST) * record <= min(delays) * held_back * (1 + 1e-8)


def test_the_list_pays_when_a_fifth_of_all_jobs_on_record_is_followed() -> None:
    assert list_interval([2.0] * 100, 400) == promise(2.0, 400)
    assert list_interval([2.0] * 100, 700) == math.inf
    assert list_interval([1.0] * 60 + [30.0] * 40, 100) == promise(1.0, 100), "the quickest job sets the pace"
    assert list_interval([1.0] + [30.0] * 99, 100) == math.inf, "a list as often as one job asks for is too many"
    assert list_interval([1.0] * 100_000, MOST_LISTED + 1) == math.inf


def test_a_list_that_would_be_late_comes_as_often_as_the_head_can_make_it() -> None:
    assert list_interval([1.0] * 5000, 5000) == pytest.approx(5000 * LIST_COST / SHARE)
    assert list_interval([1.35] * 400, 20_000) == math.inf, "single requests, held back, are earlier than such a list"


def spent(load: HeadLoad, seconds: float) -> HeadLoad:
    for _ in range(math.ceil(seconds / LOOK_COST)):
        load.looked()
    return load


def test_nothing_is_listed_for_a_few_jobs_or_beside_too_many() -> None:
    load = spent(HeadLoad(), 1000.0)
    assert load.list_interval([1.0] * 5) == math.inf
    load.estimate(100_000)
    assert load.list_interval([1.0] * 1000) == math.inf
    assert load.list_cost(1000) == math.inf


def test_a_list_is_risked_only_when_much_was_spent() -> None:
    load = HeadLoad()
    delays = [1.0] * 100
    assert load.list_interval(delays) == math.inf
    spent(load, 21 * 100 * LOOK_COST)
    assert load.list_interval(delays) == promise(1.0, 100)
    load.listed(10_000)
    assert load.list_interval(delays) == math.inf
    spent(load, 19 * 10_000 * LIST_COST)
    assert load.list_interval(delays) == math.inf
    spent(load, 2 * 10_000 * LIST_COST)
    assert load.list_interval(delays) == promise(1.0, 100), "jobs may have been deleted"


def test_an_estimate_serves_until_the_list_tells() -> None:
    load = HeadLoad()
    load.estimate(120)
    assert load.list_interval([1.0] * 100) == promise(1.0, 120)
    assert load.list_cost(100) == pytest.approx(120 * LIST_COST)
    load.listed(80)
    assert load.list_cost(100) == pytest.approx(100 * LIST_COST)


def test_the_head_keeps_time_for_others() -> None:
    load, now = HeadLoad(), 0.0
    for _ in range(2000):
        now += load.pause(0.01, now)
    assert 2000 * 0.01 / now == pytest.approx(SHARE, rel=0.05)


@given(st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=9)), max_size=8), st.lists(st.integers(0, 30)))
def test_a_list_is_read_however_it_is_cut_into_pieces(jobs: list[dict[str, str]], sizes: list[int]) -> None:
    found: list[dict[str, Any]] = []
    body = json.dumps(jobs, ensure_ascii=False).encode()
    number = outcome(read_list(lambda: found.append, repeatable=False), body, sizes=sizes)
    assert (found, number) == (jobs, len(jobs))


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b'{"a": {}}', b'[{"a": 1}', b'[{"a": 1}, {"b', b'[{"a": 1}] [', b"[1]", b'[{"a": 1} x]'),
        *(b'[{"a": ' + b"[" * 20_000, b'[{"a": ' + b"1" * 5000 + b"}]", b'[{"a": [' + b"{}," * 90_000),
        b'[{"a": "' + b"x" * 5_000_000,
    ],
    ids=lambda body: repr(body[:12]),
)
@pytest.mark.parametrize("sizes", [[3], [16384] * 400])
def test_what_is_not_a_list_of_jobs_is_an_error(body: bytes, sizes: list[int]) -> None:
    with pytest.raises(RayProtocolError, match=r"can't be read: it |list of jobs"):
        outcome(read_list(lambda: lambda job: job["a"], repeatable=False), body, sizes=sizes)


def test_a_large_job_in_a_list_is_not_decoded_anew_with_each_piece_of_it() -> None:
    body = json.dumps([{"a": "x}" * 1_500_000}]).encode()
    began = time.process_time()
    assert outcome(read_list(lambda: lambda job: None, repeatable=False), body, sizes=[4096] * 1000) == 1
    assert time.process_time() - began < 1.0

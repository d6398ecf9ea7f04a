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
    ALIVE_LAG,
    LIST_COST,
    LOOK_COST,
    MOST_LISTED,
    NO_LIST,
    READ_COST,
    SHARE,
    HeadLoad,
    Plan,
    best_plan,
)
from tests.support.flows import outcome

DELAYS = st.lists(st.floats(0.1, 60.0), min_size=1, max_size=50)


def load_of(delays: list[float], record: int, plan: Plan) -> float:
    """Return the head's load with a list at an interval, and looks at those jobs that want more."""
    lists = LIST_COST * record / plan.interval
    return lists + sum(LOOK_COST / delay for delay in delays if delay < plan.covers)


def promise(covers: float, record: int) -> Plan:
    """Return the plan that tells in time of jobs that ask for such a delay."""
    return Plan(max(covers - (LIST_COST + READ_COST) * record, LIST_COST * record / SHARE), covers)


def lateness(plan: Plan, record: int) -> float:
    """Return the seconds after which a list tells, at most, as a share of what its jobs ask for."""
    return (plan.interval + (LIST_COST + READ_COST) * record) / plan.covers


@given(DELAYS, st.integers(1, 5000))
def test_the_list_never_asks_more_of_the_head_than_looks_alone(delays: list[float], record: int) -> None:
    assert load_of(delays, record, best_plan(delays, record)) <= load_of(delays, record, NO_LIST) * (1 + 1e-9)


@given(DELAYS, st.integers(1, 5000))
def test_the_list_never_tells_later_than_looks_that_leave_the_head_time(delays: list[float], record: int) -> None:
    if (plan := best_plan(delays, record)) != NO_LIST:
        held_back = max(load_of(delays, record, NO_LIST) / SHARE, 1.0)
        assert lateness(plan, record) <= held_back * (1 + 1e-9)


@given(st.lists(st.floats(1.35, 30.0), min_size=1, max_size=20), st.integers(1, 20), st.integers(1, 3))
def test_of_many_old_jobs_and_some_young_ones_no_plan_is_cheaper(young: list[float], times: int, ratio: int) -> None:
    delays = [*young, *[30.0] * 20 * times]  # the longest delay is the poll_interval of most
    record = len(delays) * ratio
    plans = [plan for delay in delays if lateness(plan := promise(delay, record), record) < 1 + 1e-9]
    chosen = load_of(delays, record, best_plan(delays, record))
    assert chosen <= min((load_of(delays, record, plan) for plan in plans), default=math.inf) + 0.01


def test_the_list_pays_when_a_fifth_of_all_jobs_on_record_is_followed() -> None:
    assert best_plan([2.0] * 100, 400) == promise(2.0, 400)
    assert best_plan([2.0] * 100, 700) == NO_LIST
    assert best_plan([1.0] + [30.0] * 99, 100) == promise(30.0, 100), "one quick job is looked at by itself"
    assert best_plan([1.0] * 100_000, MOST_LISTED + 1) == NO_LIST


def test_a_list_that_would_be_late_comes_as_often_as_the_head_bears() -> None:
    interval, covers, _ = best_plan([1.0] * 5000, 5000)
    assert (interval, covers) == (pytest.approx(5000 * LIST_COST / SHARE), 1.0)
    assert best_plan([1.35] * 400, 20_000) == NO_LIST, "held back, looks are earlier than such a list"


def spent(load: HeadLoad, seconds: float) -> HeadLoad:
    for _ in range(math.ceil(seconds / LOOK_COST)):
        load.looked()
    return load


def test_nothing_is_listed_for_a_few_jobs_or_beside_too_many() -> None:
    load = spent(HeadLoad(), 1000.0)
    assert load.plan([1.0] * 5) == NO_LIST
    load.estimate(100_000)
    assert load.plan([1.0] * 1000) == NO_LIST
    assert load.list_cost(1000) == math.inf


def test_beside_too_many_old_jobs_the_live_actors_are_listed() -> None:
    load = HeadLoad()
    load.estimate(100_000)
    delays = [2.0] * 1000
    plan = load.plan(delays, delays)
    assert plan == Plan(pytest.approx(2.0 - load.alive_cost() - 0.1 - ALIVE_LAG, rel=0.01), 2.0, of_actors=True)
    assert load.plan(delays, delays[:5]) == NO_LIST, "the list tells nothing of jobs that wait"
    load.alive = 9000
    assert load.plan(delays[:100], delays[:100]) == NO_LIST, "other actors are too many"
    load.alive = math.inf
    assert load.plan(delays, delays) == NO_LIST
    load.listed(1100)
    assert load.plan(delays, delays) == promise(2.0, 1100)


def test_an_unknown_record_is_risked_only_when_much_was_spent() -> None:
    load = HeadLoad()
    delays = [1.0] * 100
    assert load.plan(delays) == NO_LIST
    spent(load, 21 * 100 * LOOK_COST)
    assert load.plan(delays) == promise(1.0, 100)
    load.listed(10_000)
    assert load.plan(delays) == NO_LIST
    spent(load, 19 * 10_000 * LIST_COST)
    assert load.plan(delays) == NO_LIST
    spent(load, 2 * 10_000 * LIST_COST)
    assert load.plan(delays) == promise(1.0, 100), "jobs may have been deleted"


def test_an_estimate_serves_until_the_list_tells() -> None:
    load = HeadLoad()
    load.estimate(120)
    assert load.plan([1.0] * 100) == promise(1.0, 120)
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

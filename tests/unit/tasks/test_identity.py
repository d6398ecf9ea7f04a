"""Ids and metadata: by them a try finds the jobs of earlier tries, and never another task's."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.client.ids import check_submission_id
from airflow_provider_rayjobs.jobs import JobDetails, JobStatus
from airflow_provider_rayjobs.tasks.identity import TaskIdentity

BASE = TaskIdentity(
    deployment="prod",
    dag_id="dag",
    run_id="scheduled__2026-01-01T00:00:00+00:00",
    task_id="group.task",
    map_index=-1,
    try_number=1,
    max_tries=2,
    run_started="2026-01-01T00:00:00+00:00",
)

texts = st.text(max_size=60)
identities = st.builds(
    TaskIdentity,
    deployment=texts,
    dag_id=texts,
    run_id=texts,
    task_id=texts,
    map_index=st.integers(-1, 10**6),
    try_number=st.integers(1, 10**4),
    max_tries=st.integers(0, 100),
    run_started=texts,
)


def job_of(identity: TaskIdentity, **metadata: str) -> JobDetails:
    return JobDetails("SUBMISSION", JobStatus.RUNNING, metadata={**identity.metadata(), **metadata})


def all_ids(identity: TaskIdentity) -> set[str]:
    first = identity.submission_id()
    return {first, identity.second_submission_id(first), identity.second_submission_id("explicit")}


@given(identities, st.integers(1, 10**4))
@example(replace(BASE, dag_id="d" * 250, task_id="t" * 250, run_id="r" * 250, map_index=10**6), 10**4)
def test_ids_are_short_routable_and_deterministic(identity: TaskIdentity, number: int) -> None:
    first = identity.submission_id(number)
    for made in (first, identity.second_submission_id(first, number), *all_ids(identity)):
        assert len(made) < 100
        assert check_submission_id(made) == made
    assert replace(identity).submission_id(number) == first
    assert all_ids(replace(identity)) == all_ids(identity)


@given(st.from_regex(r"[A-Za-z0-9_.-]{1,300}", fullmatch=True))
def test_the_second_id_of_an_explicit_one_is_short_and_routable(explicit: str) -> None:
    second = BASE.second_submission_id(explicit)
    assert len(check_submission_id(second)) < 100
    assert second != explicit


def test_an_id_tells_its_reader_whose_job_it_is() -> None:
    made = replace(BASE, dag_id="sales", task_id="train", map_index=7, try_number=3).submission_id()
    assert re.fullmatch(r"sales-train-m7-scheduled__2026.*-t3-[0-9a-f]{20}", made)


@pytest.mark.parametrize(
    "change",
    [
        {"deployment": "test"},
        {"dag_id": "dag2"},
        {"run_id": "manual"},
        {"task_id": "other"},
        {"map_index": 0},
        {"try_number": 2},
    ],
)
def test_what_tells_two_tries_apart_makes_other_ids(change: dict[str, Any]) -> None:
    assert not all_ids(BASE) & all_ids(replace(BASE, **change))


def test_names_that_differ_only_in_characters_that_ids_cannot_hold_make_other_ids() -> None:
    names = ["a b", "a/b", "a:b", "a_b", "a+b", "ä_b", "a\tb"]
    for field in ("dag_id", "task_id", "run_id", "deployment"):
        assert len({replace(BASE, **{field: name}).submission_id() for name in names}) == len(names)


def test_names_that_differ_only_behind_the_cut_make_other_ids() -> None:
    for field in ("dag_id", "task_id", "run_id"):
        ids = {replace(BASE, **{field: "x" * 200 + end}).submission_id() for end in ("a", "b")}
        assert len(ids) == 2


@given(st.lists(st.text(alphabet="a-:1_|", max_size=4), min_size=4, max_size=4), st.randoms())
def test_parts_that_are_shifted_across_a_separator_make_other_keys(parts: list[str], chance: Any) -> None:
    names = ("deployment", "dag_id", "run_id", "task_id")
    whole = "".join(parts)
    cuts = sorted(chance.randint(0, len(whole)) for _ in range(3))
    shifted = [whole[i:j] for i, j in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    mine = replace(BASE, **dict(zip(names, parts, strict=True)))
    other = replace(BASE, **dict(zip(names, shifted, strict=True)))
    assert (mine.key == other.key) == (parts == shifted)
    assert (mine.submission_id() == other.submission_id()) == (parts == shifted)


def test_a_run_made_anew_shares_the_first_id_but_neither_the_second_nor_the_attempt() -> None:
    anew = replace(BASE, run_started="2026-02-02T00:00:00+00:00")
    first = BASE.submission_id()
    assert anew.submission_id() == first
    assert anew.second_submission_id(first) != BASE.second_submission_id(first)
    assert anew.attempt_key != BASE.attempt_key


def test_an_attempt_is_a_try_of_a_run() -> None:
    assert BASE.attempt_key == replace(BASE, max_tries=9).attempt_key
    assert BASE.attempt_key != replace(BASE, try_number=2).attempt_key


@given(identities)
def test_metadata_is_texts_under_the_providers_prefix(identity: TaskIdentity) -> None:
    for name, value in identity.metadata().items():
        assert isinstance(value, str)
        assert name.startswith(keys.PREFIX)


def test_a_job_is_owned_by_its_task_instance_whatever_the_try() -> None:
    assert BASE.owns(job_of(replace(BASE, try_number=5, max_tries=7)))
    for change in ({"deployment": "test"}, {"map_index": 0}, {"run_id": "x"}, {"task_id": "x"}, {"dag_id": "x"}):
        assert not BASE.owns(job_of(replace(BASE, **change)))
    assert not BASE.owns(JobDetails("DRIVER", JobStatus.RUNNING))


def test_a_clear_or_a_new_run_begins_a_new_generation_and_a_retry_does_not() -> None:
    later = replace(BASE, try_number=2)
    assert later.same_generation(job_of(BASE))
    assert not replace(later, max_tries=4).same_generation(job_of(BASE))  # a clear
    assert not replace(later, run_started="x").same_generation(job_of(BASE))
    assert not later.same_generation(JobDetails("SUBMISSION", JobStatus.RUNNING))


def test_two_lives_of_a_run_are_told_apart() -> None:
    assert BASE.same_run(job_of(replace(BASE, max_tries=9)))
    assert not BASE.same_run(job_of(replace(BASE, run_started="x")))

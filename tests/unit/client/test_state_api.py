"""Lists and counts of Ray's State API, from a route that may give anything."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from airflow_provider_rayjobs.client.exchange import Request
from airflow_provider_rayjobs.client.state_api import NODES, TASKS, Listed, count_tasks, list_state
from airflow_provider_rayjobs.exceptions import RayProtocolError
from tests.support.flows import outcome
from tests.support.state_answers import counted, listed


def test_a_list_has_its_rows_and_the_number_of_all() -> None:
    found = outcome(list_state(TASKS, [("job_id", "=", "02")], limit=1), listed({"name": "a"}, number=7))
    assert found == Listed(({"name": "a"},), 7)


def test_each_filter_is_three_parameters_and_its_value_is_quoted() -> None:
    request = next(list_state(TASKS, [("job_id", "=", "02&limit=9"), ("state", "!=", "FAILED")], limit=5))
    assert isinstance(request, Request)
    assert request.path.startswith("/api/v0/tasks?")
    assert parse_qsl(urlsplit(request.path).query) == [
        ("filter_keys", "job_id"),
        ("filter_predicates", "="),
        ("filter_values", "02&limit=9"),
        ("filter_keys", "state"),
        ("filter_predicates", "!="),
        ("filter_values", "FAILED"),
        ("limit", "5"),
        ("detail", "1"),
    ]


def test_tasks_are_counted_by_function_and_state() -> None:
    states = {"train": {"FINISHED": 3, "RUNNING": 1}, "load": {"FAILED": 2}}
    assert outcome(count_tasks("02"), counted(states)) == states


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"<html>", b"{}", b'{"data": null}', b'{"data": {"result": []}}', b'{"data": {"result": {}}}'],
)
def test_another_answer_is_an_error_of_ours(body: bytes) -> None:
    for flow in (list_state(NODES, [], limit=1), count_tasks("02")):
        with pytest.raises(RayProtocolError):
            outcome(flow, body)


@pytest.mark.parametrize(
    "body",
    [
        listed("x"),  # type: ignore[arg-type]
        b'{"data": {"result": {"num_filtered": "many", "result": []}}}',
        b'{"data": {"result": {"num_filtered": 1, "result": 5}}}',
        listed(number=10**30),  # which no database and no triggerer can store
        listed(number=-1),
    ],
)
def test_a_malformed_list_is_an_error_of_ours(body: bytes) -> None:
    with pytest.raises(RayProtocolError, match="malformed list from /api/v0/tasks"):
        outcome(list_state(TASKS, [], limit=1), body)


def test_a_malformed_summary_is_an_error_of_ours() -> None:
    for number in ("three", 10**30, -1, True, 1.5):
        with pytest.raises(RayProtocolError, match="malformed summary"):
            outcome(count_tasks("02"), counted({"train": {"FINISHED": number}}))  # type: ignore[dict-item]

"""The retry policy of both transports."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tenacity import Retrying

from airflow_provider_rayjobs.client import retries
from airflow_provider_rayjobs.exceptions import RayAPIError, RayClusterUnreachableError, RayTLSError
from tests.support import answers
from tests.support.flows import response


def test_the_waits_grow_to_a_few_seconds() -> None:
    found = [wait for wait, _ in zip(retries.absence_waits(), range(20), strict=False)]
    assert found[0] < 0.6
    assert 4.0 < found[-1] <= max(found) <= retries.LONGEST_ABSENCE_WAIT


def attempts_at(error: Exception) -> list[float]:
    """Return the waits between the attempts at a request that always fails so."""
    waits: list[float] = []

    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        Retrying(sleep=waits.append, **retries.retry_policy())(fail)
    assert caught.value is error
    return waits


def test_lost_contact_is_retried_in_bounded_time_with_jitter() -> None:
    first, second = (attempts_at(RayClusterUnreachableError("gone")) for _ in range(2))
    assert len(first) == retries.ATTEMPTS - 1
    assert first != second
    for waits in (first, second):
        for number, wait in enumerate(waits):
            least = min(retries.FIRST_WAIT * 2**number, retries.LONGEST_WAIT)
            assert least <= wait <= least + retries.FIRST_WAIT


@pytest.mark.parametrize("error", [RayTLSError("certificate"), RayAPIError("no"), ValueError("no")])
def test_what_stays_wrong_is_not_retried(error: Exception) -> None:
    assert attempts_at(error) == []


def test_only_an_answer_that_asks_to_come_again_is_an_error_here() -> None:
    for answer in (answers.no_agent(), answers.too_many(), *map(answers.bad_gateway, (502, 503, 504))):
        with pytest.raises(RayClusterUnreachableError):
            retries.settled(response(answer))
    for answer in (answers.as_json({}), answers.not_found("a"), answers.unauthorized(), answers.internal_error()):
        given = response(answer)
        assert retries.settled(given) is given


@pytest.mark.parametrize(("status", "dropped"), [(401, True), (403, True), (200, False), (404, False), (500, False)])
def test_a_token_that_changes_is_dropped_when_it_is_refused(status: int, dropped: bool) -> None:
    drops: list[str] = []
    cluster: Any = SimpleNamespace(rotating=[SimpleNamespace(drop=lambda: drops.append(""))])
    assert retries.drop_outdated_token(cluster, status) is dropped
    assert len(drops) == dropped
    assert not retries.drop_outdated_token(SimpleNamespace(rotating=[]), status)  # type: ignore[arg-type]

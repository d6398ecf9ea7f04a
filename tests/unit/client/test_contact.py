"""Lost contact: logged once, waited for within the budget, and counted anew after each answer."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_rayjobs.client import contact as contact_module
from airflow_provider_rayjobs.client.contact import Contact

LOG = logging.getLogger("tests.contact")
FIRST, SECOND = ConnectionError("first"), ConnectionError("second")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Where the clock is set."""
    clock = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(contact_module, "time", SimpleNamespace(monotonic=lambda: clock.seconds))
    return clock


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.INFO, LOG.name)
    return lambda: [record.getMessage() for record in caplog.records]


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(now: Any, lines: Any) -> None:
    contact = Contact(60, LOG)
    contact.back()
    assert not lines()
    for error in (FIRST, SECOND, SECOND):
        assert contact.failed(error) is None
        now.seconds += 5
    assert contact.lost
    contact.back()
    contact.back()
    assert not contact.lost
    assert lines() == [
        "No contact with the cluster; retrying for up to 60 s: first",
        "Contact with the cluster is back after 15 s",
    ]


def test_the_budget_ends_to_the_second_and_the_last_error_is_told(now: Any) -> None:
    contact = Contact(60, LOG)
    assert contact.left == math.inf
    contact.failed(FIRST)
    now.seconds += 59.9
    assert contact.failed(SECOND) is None
    assert contact.left == pytest.approx(0.1)
    assert contact.given_up() is None
    now.seconds += 0.2
    assert contact.given_up() == (
        "the cluster was unreachable for 60 s (the connection's unreachable_timeout is 60 s). Last error: second"
    )
    assert contact.failed(FIRST) is not None


def test_the_budget_begins_anew_after_an_answer(now: Any) -> None:
    contact = Contact(60, LOG)
    contact.failed(FIRST)
    now.seconds += 50
    contact.back()
    assert contact.given_up() is None
    contact.failed(FIRST)
    now.seconds += 50
    assert contact.failed(FIRST) is None


def test_an_outage_may_have_begun_before_it_was_noted(now: Any) -> None:
    contact = Contact(60, LOG)
    assert contact.failed(FIRST, since=now.seconds - 61) is not None
    assert contact.left == -1
    contact.failed(SECOND, since=now.seconds)  # the first one counts
    assert contact.left == -1


def test_a_slow_answer_is_logged_once_and_not_while_contact_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    contact = Contact(60, logging.getLogger("contact"))
    for _ in range(3):
        contact.is_slow("http://ray:8265")
    assert [record.getMessage() for record in caplog.records] == ["No answer from http://ray:8265 yet; waiting"]
    lost = Contact(60, logging.getLogger("contact"))
    lost.failed(RuntimeError("refused"))
    lost.is_slow("http://ray:8265")
    assert len(caplog.records) == 2

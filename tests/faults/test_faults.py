"""Exactly one Ray job per intended run, despite faults. Each case is checked on the cluster and by a witness file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults import cases_head, cases_kill, cases_meaning, cases_network, cases_process, cases_stop
from tests.support.witness import TERMINAL

if TYPE_CHECKING:
    from tests.faults.case import Case
    from tests.faults.conftest import Stage

CASES = [
    *cases_stop.CASES,
    *cases_kill.CASES,
    *cases_process.CASES,
    *cases_meaning.CASES,
    *cases_network.CASES,
    *cases_head.CASES,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_fault(stage: Stage, case: Case) -> None:
    stage.result(case)


def test_nothing_is_left_running(stage: Stage, leftovers: list[int]) -> None:
    """Finds jobs that appeared after the check of their case."""
    stage.wait()
    alive = [job for job in stage.head.jobs() if job["status"] not in TERMINAL]
    leftovers.append(len(alive))
    assert alive == []

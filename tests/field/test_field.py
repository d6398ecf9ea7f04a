"""Faults in a distributed Airflow: each case is one fault at one moment of a task in one mode."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.field.faults import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.field.case import Case, Facts

CASES = [case for fault in FAULTS for case in fault.cases()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case, facts_of: Callable[[Case], Facts]) -> None:
    facts = facts_of(case)
    problems = case.problems(facts)
    if problems:
        pytest.fail(f"{'; '.join(problems)}\n{facts}\nexpected {case.expected}", pytrace=False)

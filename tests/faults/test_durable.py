"""What Airflow's own ``durable`` operators do after each fault, and what the provider's does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults import cases_durable
from tests.support.airflow_processes import airflow_version

if TYPE_CHECKING:
    from tests.faults.case import Case
    from tests.faults.conftest import Stage

CASES = cases_durable.CASES if airflow_version() >= (3, 3) else []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_window(stage: Stage, case: Case) -> None:
    stage.result(case)

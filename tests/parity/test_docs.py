"""docs/parity.md lists each difference, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from tests.parity.cases import CASES

PAGE = Path(__file__).parents[2] / "docs" / "parity.md"

#: Methods with differences, see test_verbs.py.
VERBS = {"tail_job_logs", "get_version", "get_job_info"}


def test_the_page_lists_the_differences() -> None:
    rows = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert listed - VERBS == {case.name for case in CASES.values() if case.hook_ends}
    assert listed >= VERBS

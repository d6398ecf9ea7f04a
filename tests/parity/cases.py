"""All cases of the suite, by name."""

from __future__ import annotations

from tests.parity import cases_errors, cases_files, cases_job

CASES = {case.name: case for case in (*cases_job.CASES, *cases_files.CASES, *cases_errors.CASES)}

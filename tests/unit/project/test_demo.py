"""The output of `make demo`: which lines of Airflow's log it shows, and as whose."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_rayjobs.following.lines import LineWriter

ROOT = Path(__file__).parents[3]


def shown(record: logging.LogRecord) -> str:
    """Return what the demo shows of a log record."""
    line = {"event": record.getMessage(), "filename": record.filename, "level": "info", "logger": record.name}
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); import demo; print(demo.readable(sys.argv[1]))"
    command = [sys.executable, "-E", "-c", code, json.dumps(line)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pi is about 3.14", "job     | pi is about 3.14"),
        ("2026-01-31 12:00:00,123\tINFO worker.py:1841 -- Connecting", ""),
    ],
)
def test_the_demo_shows_the_job_s_output_without_ray_s_own_lines(
    line: str, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("airflow_provider_rayjobs.operators.submit")
    with caplog.at_level(logging.INFO, log.name):
        LineWriter(log.info).feed(f"{line}\n")
    (record,) = caplog.records
    assert shown(record) == expected

"""The file that a job leaves: beside which log, and of which submission."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.functions.shipped import result_file

if TYPE_CHECKING:
    from pathlib import Path

PRINT_LOG = (
    "from airflow_provider_rayjobs.functions.shipped.result_file import job_log; print(job_log(), file=open('{}', 'w'))"
)


@pytest.mark.parametrize("redirect", ["", "> /dev/null", "> /dev/null 2>&1", "2>&1 | cat"])
def test_the_log_is_found_wherever_the_output_goes(tmp_path: Path, redirect: str) -> None:
    log, found = tmp_path / "job-driver-a.b.log", tmp_path / "found"
    command = f'"{sys.executable}" -c "{PRINT_LOG.format(found)}" {redirect}; true'
    with log.open("ab") as output:
        subprocess.run(command, shell=True, stdout=output, stderr=output, check=True)
    assert found.read_text().strip() == str(log)
    assert result_file.result_beside(log) == tmp_path / "job-driver-a.b.result"


def test_no_log_of_a_job_is_an_error(tmp_path: Path) -> None:
    with (tmp_path / "worker-1.out").open("ab") as output:
        command = [sys.executable, "-c", PRINT_LOG.format(tmp_path / "found")]
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert f"the standard output goes to {tmp_path}/worker-1.out, not to the log of a Ray job" in done.stderr


@pytest.mark.parametrize(
    ("variable", "expected"),
    [(None, None), ("", None), ("{}", None), ('{"metadata": {"airflow_submission": "s1"}}', "s1")],
)
def test_ray_tells_a_job_its_submission(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str | None, expected: str | None
) -> None:
    monkeypatch.delenv(result_file.CONFIG_VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(result_file.CONFIG_VARIABLE, variable)
    result_file.write_record(tmp_path / "file", "value", "1")
    assert json.loads((tmp_path / "file").read_text().splitlines()[0])["submission"] == expected

"""Triggers, which are rows of Airflow's database, remain valid after an upgrade of Airflow."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.upgrade import MARK

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.databases import Database
    from tests.upgrade.conftest import Airflow

SAMPLES = Path(__file__).parent / "trigger_rows_0.1.0.json"


@pytest.fixture
def environment(tmp_path: Path, new_database: Callable[[Path], Database]) -> dict[str, str]:
    """The settings of one deployment, for each Airflow version."""
    database = new_database(tmp_path)
    database.create()
    (tmp_path / "airflow.cfg").write_text("[core]\n")  # or each version would write its own
    return {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(b"k" * 32).decode(),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        **database.environment(),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def rows(airflow: Airflow, environment: dict[str, str], *arguments: str | Path) -> dict[str, Any]:
    output = airflow.run("-m", "tests.upgrade.rows", *arguments, env=environment)
    (line,) = [line for line in output.splitlines() if line.startswith(MARK)]
    found: dict[str, Any] = json.loads(line.removeprefix(MARK))
    return found


@pytest.mark.timeout(1200)
def test_each_airflow_reads_the_rows_of_all_earlier_ones(airflows: list[Airflow], environment: dict[str, str]) -> None:
    samples = [[sample["classpath"], sample["kwargs"]] for sample in json.loads(SAMPLES.read_text())]
    written: dict[str, Any] = {}
    for airflow in airflows:
        airflow.run("-m", "airflow", "db", "migrate", env=environment)
        assert rows(airflow, environment, "read") == written, f"upgraded to {airflow.version}"
        new = rows(airflow, environment, "write", SAMPLES)
        assert list(new.values()) == samples
        assert not new.keys() & written.keys()
        written |= new
        assert rows(airflow, environment, "read") == written, f"written by {airflow.version} itself"
    assert len(written) == len(samples) * len(airflows)

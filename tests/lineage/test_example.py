"""The function of the example, with OpenLineage's client: its event is valid, and names its task's run."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support import lineage_schemas

if TYPE_CHECKING:
    import pytest

EXAMPLE = Path(__file__).parents[2] / "example_dags" / "ray_job_lineage.py"
RUN = "01a2274e-367e-7c71-b942-d1d37b6807e5"


def test_the_event_of_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    operator = module.dag.get_task("clean_orders")
    assert operator.openlineage_inject_parent_job_info
    assert operator.openlineage_inject_transport_info

    for name in [name for name in os.environ if name.startswith("OPENLINEAGE")]:
        monkeypatch.delenv(name)
    file = tmp_path / "events.jsonl"
    transport = {"TYPE": "file", "LOG_FILE_PATH": str(file), "APPEND": "true"}
    for name, value in transport.items():
        monkeypatch.setenv(f"OPENLINEAGE__TRANSPORT__{name}", value)
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", f"ns/dag.task/{RUN}")
    assert operator.python_callable() == RUN

    [event] = [json.loads(line) for line in file.read_text().splitlines()]
    assert "parent" in lineage_schemas.check_event(event)
    parent = event["run"]["facets"]["parent"]
    assert (parent["job"]["name"], parent["run"]["runId"]) == ("dag.task", RUN)
    assert event["job"]["name"] == "dag.task.clean"

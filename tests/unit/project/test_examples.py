"""Every example can be read by Airflow, without a cluster."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import DAG

FOLDER = Path(__file__).parents[3] / "example_dags"


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_example_is_a_dag_of_its_files_name(file: Path) -> None:
    spec = importlib.util.spec_from_file_location(f"example_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    dags = [value for value in vars(module).values() if isinstance(value, DAG)]
    found = {dag.dag_id for dag in dags} or set(_declared(file))
    assert found == {file.stem}


def _declared(file: Path) -> list[str]:
    """Return the ids of the DAGs of `with DAG(...)` statements that are bound to no name."""
    import ast

    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "DAG"]
    return [ast.literal_eval(call.args[0]) for call in named]

"""The examples in docstrings of public classes run as they stand, and the public modules name what is public."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import importlib
import inspect
import json
import os
import re
import textwrap
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import BaseOperator
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

if TYPE_CHECKING:
    from tests.support.scripted_server import ScriptedRay

MODULES = [
    importlib.import_module(f"airflow_provider_rayjobs.{name}")
    for name in (
        *("hooks", "operators.submit", "operators.stop_delete", "operators.prune", "operators.serve", "sensors"),
        *("triggers", "decorators", "links", "jobs", "exceptions", "retries", "serve", "testing.head"),
        *(("events",) if AIRFLOW_V_3_1_PLUS else ()),
    )
]
#: Without what only newer versions of Airflow have.
PUBLIC = [vars(module)[name] for module in MODULES for name in module.__all__ if name in vars(module)]
#: All public classes but the errors: one example stands for these.
CLASSES = [value for value in PUBLIC if inspect.isclass(value) and not issubclass(value, Exception)]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.partition(".")[2])
def test_all_names_the_public_classes(module: Any) -> None:
    made_here = {
        name for name, value in vars(module).items() if inspect.isclass(value) and value.__module__ == module.__name__
    }
    classes = {name for name in module.__all__ if inspect.isclass(vars(module).get(name))}
    assert classes == {name for name in made_here if not name.startswith("_")}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_the_example_of_a_public_class_runs(
    kind: type, scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url}))
    found = re.search(r"^ *Example::\n\n((?: {8}.*\n|\n)+)", str(kind.__doc__), re.MULTILINE)
    assert found, f"{kind.__name__} has no example"
    source = textwrap.dedent(found[1]).strip()
    assert 1 <= source.count("\n") + 1 <= 8
    names = {
        **{kind.__name__: kind for kind in CLASSES},
        "BaseOperator": BaseOperator,
        "contextlib": contextlib,
        "os": os,
        "time": time,
        "self": SimpleNamespace(defer=lambda **_: None),
        "submission_id": "a",
    }
    code = compile(source, kind.__name__, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = eval(code, names)
    if inspect.iscoroutine(running):
        asyncio.run(running)
    if operator := names.get("TrainOperator"):
        stored: dict[str, Any] = {}
        operator(task_id="train").execute(
            {"ti": SimpleNamespace(xcom_push=lambda key, value: stored.update({key: value}))}
        )
        assert list(stored) == [kind().xcom_key]

"""The package's shape: imports run one way, and a DAG file pays for no HTTP library."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import airflow_provider_rayjobs

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "airflow_provider_rayjobs"
FOLDER = Path(airflow_provider_rayjobs.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py"))

#: A module imports from its own row and the rows above it. A new module gets its place here.
LAYERS = (
    {"__init__", "get_provider_info", "exceptions", "contact", "progress", "values", "form", "threads", "turns"},
    {"safe_text", "job_secrets", "answer_body"},
    {"answers", "identity", "ignore_rules", "runtime_env", "authentication", "driver", "json_text", "log_lines"},
    {"addresses"},
    {"protocol", "connection", "folder"},
    {
        *{
            "validation",
            "events",
            "conditions",
            "foreign_errors",
            "network",
            "load",
            "packages",
            "zip_writer",
            "retries",
        },
        *{"task_log", "packing", "shipping", "log_file"},
    },
    {"requests_transport", "aiohttp_transport", "resources", "job_list", "followed", "submission", "spool"},
    {"logs", "poller", "follow", "compat", "working_dir", "results"},
    {"hooks", "links", "rendering"},
    {"exactly_once", "guard", "sharing", "jobs_table"},
    {"triggers", "stop_delete", "cli_output"},
    {"operators", "sensors", "cli", "cli_follow", "jobs_page"},
    {"decorators", "cli_commands", "__main__", "plugin"},
)
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}

#: Of these, those from `hooks` on and `compat` may know Airflow.
WITH_AIRFLOW = {"compat"} | {module for module, rank in RANK.items() if rank >= RANK["hooks"]}

#: Each heavy library, and where it may be imported at all.
HEAVY = {
    "requests": {"requests_transport", "foreign_errors", "network"},
    "urllib3": {"requests_transport", "foreign_errors", "network"},
    "aiohttp": {"aiohttp_transport", "foreign_errors"},
    "tenacity": {"requests_transport", "aiohttp_transport", "retries"},
    "certifi": {"network"},
    "pathspec": {"ignore_rules"},
    "yaml": {"runtime_env"},
    "fastapi": {"jobs_page"},
    "sqlalchemy": {"jobs_page"},
    "ray": set(),
}


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the full names that are imported when the code runs, in functions too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from imported(ast.Module(node.orelse, []))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imported(node)


@functools.cache
def imports_of(module: str) -> frozenset[str]:
    return frozenset(imported(ast.parse((FOLDER / f"{module}.py").read_text())))


def own_imports(module: str) -> set[str]:
    """Return the modules of the package that a module imports."""
    names = {name.split(".")[1] for name in imports_of(module) if name.startswith(f"{PACKAGE}.")}
    return {name if name in MODULES else "__init__" for name in names} - {module}


def roots(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports_of(module)}


def test_every_module_has_its_place() -> None:
    assert set(MODULES) <= set(RANK), "put the new module into LAYERS"


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    wrong = {name for name in own_imports(module) if RANK[name] > RANK[module]}
    assert not wrong, f"{module} imports {wrong}"


def test_no_modules_import_each_other() -> None:
    graph = {module: own_imports(module) for module in MODULES}
    while free := {module for module, needs in graph.items() if not needs}:
        graph = {module: needs - free for module, needs in graph.items() if module not in free}
    assert not graph, f"a circle among {sorted(graph)}"


@pytest.mark.parametrize("module", MODULES)
def test_only_the_modules_from_hooks_on_know_airflow(module: str) -> None:
    assert "airflow" not in roots(module) or module in WITH_AIRFLOW


@pytest.mark.parametrize("module", MODULES)
def test_each_library_is_used_in_its_place_only(module: str) -> None:
    assert not [library for library, places in HEAVY.items() if library in roots(module) and module not in places]


def test_the_protocol_knows_neither_airflow_nor_a_transport() -> None:
    for module in ("protocol", "answers", "exceptions"):
        assert not roots(module) & {"airflow", "requests", "aiohttp", "tenacity", "asyncio", "socket", "ssl"}


def loaded_by(*statements: str) -> list[set[str]]:
    """Run statements in a fresh interpreter; return what each one loaded besides what was loaded before it."""
    code = ["import json, sys", "seen = [set(sys.modules)]"]
    for statement in statements:
        code += [statement, "seen.append(set(sys.modules))"]
    code.append("print(chr(10) + json.dumps([sorted(b - a) for a, b in zip(seen, seen[1:])]))")
    command = [sys.executable, "-W", "ignore", "-c", "\n".join(code)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [set(names) for names in json.loads(done.stdout.splitlines()[-1])]


def test_the_protocol_loads_neither_airflow_nor_a_library() -> None:
    (loaded,) = loaded_by(f"import {PACKAGE}.protocol, {PACKAGE}.connection, {PACKAGE}.validation, {PACKAGE}.events")
    assert {name.split(".")[0] for name in loaded} <= {PACKAGE, *sys.stdlib_module_names}


@pytest.mark.parametrize(
    ("airflows", "ours"),
    [
        ("import airflow.providers.standard.operators.bash", ("operators", "sensors")),
        # A decorator costs what Airflow's own do: 2.11 loads all of them together.
        ("import airflow.providers.standard.decorators.python", ("decorators",)),
    ],
    ids=["operators", "decorators"],
)
def test_importing_costs_no_more_than_importing_airflows_own(airflows: str, ours: tuple[str, ...]) -> None:
    _, more = loaded_by(airflows, f"import {', '.join(f'{PACKAGE}.{name}' for name in ours)}")
    # Airflow's own common.compat, which every provider of today imports, compares versions with `packaging`.
    foreign = {name.split(".")[0] for name in more} - {PACKAGE, "airflow", "packaging", *sys.stdlib_module_names}
    assert not foreign

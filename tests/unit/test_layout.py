"""The package's shape: imports run one way, and a DAG file pays for no HTTP library."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_provider_rayjobs
from tests.support.reach import imported

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
    {"logs", "poller", "follow", "compat", "task_end", "working_dir", "results"},
    {"hooks", "links", "rendering"},
    {"exactly_once", "guard", "sharing", "jobs_table"},
    {"triggers", "stop_delete", "cli_output"},
    {"operators", "sensors", "cli", "cli_follow", "jobs_page"},
    {"decorators", "cli_commands", "__main__", "plugin"},
)
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}

#: Of these, those from `hooks` on and `compat` and `task_end` may know Airflow.
WITH_AIRFLOW = {"compat", "task_end"} | {module for module, rank in RANK.items() if rank >= RANK["hooks"]}

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


#: For each import: what Airflow has loaded before it, and what is run.
IMPORTS = {
    "plugin": (
        "import airflow.configuration, airflow.plugins_manager, airflow.providers.common.compat.version_compat",
        f"import {PACKAGE}.plugin",
    ),
    "commands": (
        f"import airflow.cli.cli_config, {PACKAGE}",
        f"import {PACKAGE}.cli; {PACKAGE}.cli.get_ray_jobs_cli_commands()",
    ),
    "operators": (
        "import airflow.providers.standard.operators.bash",
        f"import {PACKAGE}.operators, {PACKAGE}.sensors",
    ),
    # A decorator costs what Airflow's own do: 2.11 loads all of them together.
    "decorators": ("import airflow.providers.standard.decorators.python", f"import {PACKAGE}.decorators"),
}

#: Runs each pair of statements in a fork, and prints what the second one loads.
MEASURE = """
import json, os, sys
first, pairs = json.loads(sys.argv[1])
exec(first)
for name, (before, statement) in pairs.items():
    if os.fork() == 0:
        exec(before)
        seen = set(sys.modules)
        exec(statement)
        print(chr(10) + "LOADED", json.dumps([name, sorted(set(sys.modules) - seen)]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, name
"""


def measured(first: str, pairs: dict[str, tuple[str, str]]) -> dict[str, set[str]]:
    """Return what the second statement of each pair loads in a fresh interpreter, after ``first`` and the other one."""
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, json.dumps([first, pairs])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = [line.removeprefix("LOADED ") for line in done.stdout.splitlines() if line.startswith("LOADED ")]
    return {name: set(modules) for name, modules in map(json.loads, found)}


@functools.cache
def loaded_after_airflow() -> dict[str, set[str]]:
    """Return what each of ``IMPORTS`` loads; Airflow takes long to load, so this is done once."""
    return measured("import airflow", IMPORTS)


def test_the_protocol_loads_neither_airflow_nor_a_library() -> None:
    names = ("protocol", "connection", "validation", "events")
    statement = "import " + ", ".join(f"{PACKAGE}.{name}" for name in names)
    loaded = measured("", {"protocol": ("", statement)})["protocol"]
    assert {f"{PACKAGE}.{name}" for name in names} <= loaded
    assert {name.split(".")[0] for name in loaded} <= {PACKAGE, *sys.stdlib_module_names}


@pytest.mark.parametrize("ours", ["operators", "decorators"])
def test_importing_costs_no_more_than_importing_airflows_own(ours: str) -> None:
    more = loaded_after_airflow()[ours]
    assert f"{PACKAGE}.{ours}" in more
    # Airflow's own common.compat, which every provider of today imports, compares versions with `packaging`.
    foreign = {name.split(".")[0] for name in more} - {PACKAGE, "airflow", "packaging", *sys.stdlib_module_names}
    assert not foreign

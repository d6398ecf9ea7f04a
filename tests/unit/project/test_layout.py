"""The package's rooms: imports run one way, a DAG file pays for no HTTP library, and tests mirror the modules."""

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

#: The rooms, from the top floor down: folders and modules of the package. A room imports what stands below it only.
ROOMS = (
    *("testing", "__main__", "plugin", "get_provider_info", "cli", "page", "kuberay", "decorators", "operators"),
    *("retries", "sensors", "links", "events", "triggers", "tasks", "observability", "hooks", "kubernetes", "compat"),
    # No Airflow from here on.
    *("job", "functions", "following", "diagnosis", "packaging", "client", "cluster", "migration"),
    *("jobs", "serve", "text", "exceptions", "metadata", "progress", "__init__"),
)
WITHOUT_AIRFLOW = ROOMS[ROOMS.index("compat") + 1 :]

#: Each heavy library, and where it may be imported at all.
HEAVY = {
    "requests": {"client.requests_transport", "client.foreign_errors", "cluster.network"},
    "urllib3": {"client.requests_transport", "client.foreign_errors", "cluster.network", "kubernetes.api"},
    "aiohttp": {
        *("client.aiohttp_transport", "client.foreign_errors", "kubernetes.api"),
        *("testing.http_server", "testing.ray_server"),
    },
    "pytest": {"testing"},
    "kubernetes": {"kubernetes.api"},
    "kubernetes_asyncio": {"kubernetes.api"},
    "tenacity": {"client.requests_transport", "client.aiohttp_transport", "client.retries"},
    "certifi": {"cluster.network"},
    "pathspec": {"packaging.ignore_rules"},
    "yaml": {"packaging.resolve", "kubernetes.manifest", "client.serve_config"},
    "openlineage": {"observability.facets"},
    "fastapi": {"page.app"},
    "opentelemetry": {"observability.traces"},
    "sqlalchemy": {"page.app", "page.made", "tasks.told_ends"},
    "ray": set(),
}

#: The unit tests: a folder for each room, a file for each module.
UNIT = Path(__file__).parents[1]

#: Folders of tests of several rooms, of the project itself, and of what the tests rest on.
OF_NO_ROOM = {"across_rooms", "project", "support"}

#: Modules that share a test file: both transports keep one contract, so each of its tests runs with both.
SHARED_TESTS = dict.fromkeys(("aiohttp_transport", "requests_transport"), "test_transports")


def _name_of(file: Path) -> str:
    """Return a module's name below the package; a folder's ``__init__`` has the folder's."""
    parts = file.relative_to(FOLDER).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


FILES = {_name_of(file): file for file in FOLDER.rglob("*.py")}
MODULES = sorted(FILES)


def room_of(module: str) -> str:
    return module.partition(".")[0]


@functools.cache
def imports_of(module: str) -> frozenset[str]:
    return frozenset(imported(ast.parse(FILES[module].read_text())))


def own_imports(module: str) -> set[str]:
    """Return the modules of the package that a module imports."""
    found = set()
    for name in imports_of(module):
        if name.startswith(f"{PACKAGE}."):
            parts = name.split(".")[1:]
            names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
            found.add(next((known for known in names if known in FILES), "__init__"))
    return found - {module}


def roots(module: str) -> set[str]:
    return {name.split(".")[0] for name in imports_of(module)}


def test_every_module_is_in_a_room() -> None:
    assert {room_of(module) for module in MODULES} == set(ROOMS)


@pytest.mark.parametrize("module", MODULES)
def test_no_room_imports_what_stands_above_it(module: str) -> None:
    above = ROOMS[: ROOMS.index(room_of(module))]
    wrong = {name for name in own_imports(module) if room_of(name) in above}
    assert not wrong, f"{module} imports {wrong}"


def test_no_modules_import_each_other() -> None:
    graph = {module: own_imports(module) for module in MODULES}
    while free := {module for module, needs in graph.items() if not needs}:
        graph = {module: needs - free for module, needs in graph.items() if module not in free}
    assert not graph, f"a circle among {sorted(graph)}"


@pytest.mark.parametrize("module", [module for module in MODULES if room_of(module) in WITHOUT_AIRFLOW])
def test_the_lower_rooms_import_no_airflow(module: str) -> None:
    assert "airflow" not in roots(module)


@pytest.mark.parametrize("module", MODULES)
def test_each_library_is_used_in_its_place_only(module: str) -> None:
    assert not [library for library, places in HEAVY.items() if library in roots(module) and module not in places]


def test_verbs_and_answers_know_no_transport() -> None:
    for module in ("client.verbs", "client.exchange", "jobs", "client.answers", "exceptions"):
        assert not roots(module) & {"requests", "aiohttp", "tenacity", "asyncio", "socket", "ssl"}


def mirror_of(file: Path) -> Path:
    """Return the test file of a module, without its ending."""
    return UNIT / file.relative_to(FOLDER).with_name(SHARED_TESTS.get(file.stem, f"test_{file.stem.strip('_')}"))


def has_code(file: Path) -> bool:
    return not all(isinstance(node, ast.Expr) for node in ast.parse(file.read_text()).body)


def test_each_module_has_a_test_file() -> None:
    wanted = [mirror_of(file).with_suffix(".py") for file in FILES.values() if has_code(file)]
    missing = [str(file.relative_to(UNIT)) for file in wanted if not file.is_file()]
    assert not missing, f"write {', '.join(missing)}"


def test_each_test_file_is_named_after_a_module() -> None:
    """One that tests a part of a module has a suffix: ``test_transports_tls`` is of the transports."""
    rooms = [file for file in UNIT.rglob("test_*.py") if file.relative_to(UNIT).parts[0] not in OF_NO_ROOM]
    names = {str(mirror_of(file)) for file in FILES.values()}
    strays = [file for file in rooms if not any(f"{file.with_suffix('')}_".startswith(f"{name}_") for name in names)]
    assert rooms
    assert not strays, f"of no module: {', '.join(str(file.relative_to(UNIT)) for file in strays)}"


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
        f"import {PACKAGE}.operators, {PACKAGE}.sensors, {PACKAGE}.kuberay",
    ),
    "first objects": (
        "from airflow.providers.standard.operators.bash import BashOperator as O; O(task_id='a', bash_command='')",
        f"from {PACKAGE}.operators import RaySubmitJobOperator; from {PACKAGE}.sensors import RayJobSensor; "
        "RaySubmitJobOperator(task_id='b', entrypoint='true'); RayJobSensor(task_id='c', submission_id='d')",
    ),
    "retries": ("import airflow.providers.standard.operators.bash", f"import {PACKAGE}.retries"),
    # A decorator costs what Airflow's own do: 2.11 loads all of them together.
    "decorators": ("import airflow.providers.standard.decorators.python", f"import {PACKAGE}.decorators"),
}

#: The modules of the package that a DAG file with operators and sensors loads. Each costs up to a millisecond in each
#: DAG file: import others in the methods that run in a task.
OF_A_DAG_FILE = {
    *("operators", "operators.submit", "operators.lineage", "operators.own_cluster", "operators.result"),
    "operators.stop_delete",
    *("sensors", "links"),
    *("tasks", "tasks.rendering", "tasks.arguments"),
    *("client", "client.checks", "client.ids", "client.plain_values"),
    *("cluster", "cluster.fields", "compat", "compat.versions", "kubernetes", "kubernetes.given"),
    *("exceptions", "metadata"),
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


def test_the_verbs_load_neither_airflow_nor_a_library() -> None:
    names = ("client.verbs", "cluster.connection", "client.checks", "following.events")
    statement = "import " + ", ".join(f"{PACKAGE}.{name}" for name in names)
    loaded = measured("", {"verbs": ("", statement)})["verbs"]
    assert {f"{PACKAGE}.{name}" for name in names} <= loaded
    assert {name.split(".")[0] for name in loaded} <= {PACKAGE, *sys.stdlib_module_names}


def foreign(modules: set[str]) -> set[str]:
    """Return the libraries among modules, except Airflow and what it needs itself."""
    # Airflow's own common.compat, which every provider of today imports, compares versions with `packaging`.
    return {name.split(".")[0] for name in modules} - {PACKAGE, "airflow", "packaging", *sys.stdlib_module_names}


@pytest.mark.parametrize("ours", ["operators", "decorators"])
def test_importing_costs_no_more_than_importing_airflows_own(ours: str) -> None:
    more = loaded_after_airflow()[ours]
    assert f"{PACKAGE}.{ours}" in more
    assert not foreign(more)


def test_a_retry_policy_loads_nothing_but_the_errors() -> None:
    loaded = loaded_after_airflow()["retries"]
    assert {name for name in loaded if name.startswith(f"{PACKAGE}.")} == {
        f"{PACKAGE}.retries",
        f"{PACKAGE}.exceptions",
    }
    assert not foreign(loaded)


def test_a_dag_file_loads_what_its_classes_and_their_arguments_need() -> None:
    loaded = loaded_after_airflow()["first objects"]
    own = {name.removeprefix(f"{PACKAGE}.") for name in loaded if name.startswith(f"{PACKAGE}.")}
    assert {"operators.submit", "sensors"} <= own <= OF_A_DAG_FILE
    assert not foreign(loaded)

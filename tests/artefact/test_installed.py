"""The wheel, installed beside an Airflow: its modules import without warnings, and Airflow finds the provider.

These tests run in any environment that has the wheel; `make artefact` creates one. The tested code runs in separate
interpreters that see only what is installed, whatever folder pytest was started in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import pytest

PACKAGE = "airflow_provider_rayjobs"
NAME = "airflow-provider-rayjobs"
AIRFLOW = tuple(map(int, version("apache-airflow").split(".")[:2]))

#: The first Airflow that supports a module. (On older ones, nothing imports it.)
NEEDS = {f"{PACKAGE}.{name}": (3, 1) for name in ("page.app", "page.made", "page.task", "events")}

#: Modules that need a package that the wheel does not require: OpenLineage's, with the extra.
OF_EXTRAS = {f"{PACKAGE}.observability.facets"}


def modules() -> list[str]:
    """Return the modules of the wheel."""
    try:
        files = distribution(NAME).files or []
    except PackageNotFoundError:
        return []
    names = [file.as_posix().removesuffix(".py") for file in files if file.suffix == ".py"]
    found = {name.replace("/", ".").removesuffix(".__init__") for name in names if name.startswith(PACKAGE)}
    return sorted(found - OF_EXTRAS)


MODULES = modules()

#: Prints the other modules that these modules load; all warnings are ignored.
LOADED = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
for name in {names}:
    importlib.import_module(name)
print("\\n" + json.dumps([name for name in sys.modules if name.split(".")[0] != "{package}"]))
"""

#: Imports each module as the first one of the package, with `-W error`. Airflow and libraries are imported before:
#: their own warnings don't count, and filters of `-W` can't name all of them.
IMPORTED = """
import importlib, json, os, sys, traceback, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for name in {loaded}:
        try:
            importlib.import_module(name)
        except Exception:
            pass  # only importable by its owner
ours = [name for name in sys.modules if name.split(".")[0] == "{package}"]  # loaded by Airflow, for example the plugin
problems = {{}}
for name in {names}:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for old in ours:
                del sys.modules[old]
            warnings.resetwarnings()
            warnings.simplefilter("error")
            importlib.import_module(name)
            os.write(writing, b"ok")
        except BaseException:
            os.write(writing, traceback.format_exc()[-20000:].encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as output:
        problems[name] = output.read().decode()
    os.waitpid(child, 0)
print("\\n" + json.dumps(problems))
"""


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="session")
def answer(home: Path) -> Any:
    """A function that runs code in a new interpreter without the source tree, and returns its last line, from JSON."""

    def run(code: str) -> Any:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTHON"))}
        env["AIRFLOW_HOME"] = str(home)
        command = [sys.executable, "-I", "-c", code]
        done = subprocess.run(command, check=False, cwd=home, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="session", autouse=True)
def _the_wheel_is_installed(answer: Any) -> None:
    try:
        origin = json.loads(distribution(NAME).read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        pytest.exit(f"{NAME} is not installed here. Install the wheel, or run `make artefact`", 4)
    where = Path(answer(f"import importlib.util as u, json; print(json.dumps(u.find_spec({PACKAGE!r}).origin))"))
    if origin.get("dir_info") or Path(sysconfig.get_paths()["purelib"]) not in where.parents:
        pytest.exit(f"{where} is the source tree, not the wheel. Install the wheel, or run `make artefact`", 4)


@pytest.fixture(scope="session")
def imported(answer: Any) -> dict[str, str]:
    names = [name for name in MODULES if NEEDS.get(name, (2, 11)) <= AIRFLOW]
    loaded = answer(LOADED.format(names=names, package=PACKAGE))
    result: dict[str, str] = answer(IMPORTED.format(loaded=loaded, names=names, package=PACKAGE))
    return result


def test_there_are_modules() -> None:
    assert {f"{PACKAGE}.operators", f"{PACKAGE}.triggers", f"{PACKAGE}.__main__"} <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_imported_without_a_warning(module: str, imported: dict[str, str]) -> None:
    needs = NEEDS.get(module, (2, 11))
    if needs > AIRFLOW:
        pytest.skip(f"needs Airflow {needs[0]}.{needs[1]} or later")
    assert imported[module] == "ok", imported[module]


def test_a_warning_would_be_found(answer: Any) -> None:
    """The check above detects a module that warns at its import."""
    warning = "import warnings; warnings.warn('old', DeprecationWarning, stacklevel=2)"
    code = f"import pathlib, sys; sys.path.append('.'); pathlib.Path('warns.py').write_text({warning!r})\n"
    found = answer(code + IMPORTED.format(loaded=[], names=["warns"], package=PACKAGE))
    assert "DeprecationWarning: old" in found["warns"]


def test_the_environment_has_what_the_wheel_requires_without_its_extras() -> None:
    from packaging.requirements import Requirement

    for line in distribution(NAME).requires or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        assert requirement.specifier.contains(version(requirement.name), prereleases=True), line


def test_the_provider_info_is_valid_in_airflows_schema(answer: Any) -> None:
    code = f"""
import importlib.resources, json, jsonschema
from {PACKAGE}.get_provider_info import get_provider_info
schema = json.loads((importlib.resources.files("airflow") / "provider_info.schema.json").read_text())
validator = jsonschema.validators.validator_for(schema)
validator.check_schema(schema)
faults = [error.message for error in validator(schema).iter_errors(get_provider_info())]
invalid = dict(get_provider_info(), name=3)
print("\\n" + json.dumps([faults, len(list(validator(schema).iter_errors(invalid)))]))
"""
    faults, faults_of_invalid_info = answer(code)
    assert not faults
    assert faults_of_invalid_info


def test_airflow_lists_the_provider(answer: Any) -> None:
    code = f"""
import json
from airflow.providers_manager import ProvidersManager
manager = ProvidersManager()
provider = manager.providers[{NAME!r}]
hook = manager.hooks["ray_jobs"]
print("\\n" + json.dumps([provider.version, hook.hook_class_name, hook.hook_name, hook.package_name,
    "{PACKAGE}.links.RayJobLink" in manager.extra_links_class_names]))
"""
    hook = f"{PACKAGE}.hooks.RayJobHook"
    assert answer(code) == [version(NAME), hook, "Ray Jobs", NAME, True]


def test_airflow_finds_the_decorator(answer: Any) -> None:
    code = """
import json
from airflow.providers.common.compat.sdk import task
print("\\n" + json.dumps(task.ray_job.__module__))
"""
    assert answer(code) == f"{PACKAGE}.decorators"


def test_airflow_finds_the_plugin(answer: Any) -> None:
    code = """
import json
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS
from airflow import plugins_manager as manager
if hasattr(manager, "_get_plugins"):
    plugins, problems = manager._get_plugins()
else:
    manager.ensure_plugins_loaded()
    plugins, problems = manager.plugins, manager.import_errors
print("\\n" + json.dumps([[plugin.name for plugin in plugins], list(problems)]))
"""
    plugins, problems = answer(code)
    assert "ray_jobs" in plugins
    assert not problems


def test_the_command_line_lists_its_commands(answer: Any) -> None:
    code = f"""
import contextlib, io, json, runpy, sys
sys.argv[1:] = ["--help"]
output = io.StringIO()
with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
    runpy.run_module({PACKAGE!r}, run_name="__main__", alter_sys=True)
print("\\n" + json.dumps(output.getvalue()))
"""
    text = answer(code)
    assert all(command in text for command in ("submit", "list", "status", "logs", "stop", "delete"))

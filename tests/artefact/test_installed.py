"""The wheel, installed beside an Airflow: it imports without a warning, and Airflow takes it for a provider.

This runs in any environment that has the wheel; `make artefact` makes one. What is tested runs in interpreters of its
own that see what is installed and nothing else, no matter from where pytest was started.
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

#: The first Airflow that has what a module is for. (Nothing imports it on older ones.)
NEEDS = {f"{PACKAGE}.page.app": (3, 1)}


def modules() -> list[str]:
    """Return the modules of the wheel."""
    try:
        files = distribution(NAME).files or []
    except PackageNotFoundError:
        return []
    names = [file.as_posix().removesuffix(".py") for file in files if file.suffix == ".py"]
    return sorted(name.replace("/", ".").removesuffix(".__init__") for name in names if name.startswith(PACKAGE))


MODULES = modules()

#: Tells what else the modules load, with all warnings off.
LOADED = """
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
for name in {names}:
    importlib.import_module(name)
print("\\n" + json.dumps([name for name in sys.modules if name.split(".")[0] != "{package}"]))
"""

#: Imports each module, as the first of its package, with `-W error` in force. What Airflow and libraries warn of while
#: they are imported is theirs to mend, and some of it no filter of `-W` can name; so they are all there before.
IMPORTED = """
import importlib, json, os, sys, traceback, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for name in {loaded}:
        try:
            importlib.import_module(name)
        except Exception:
            pass  # a name that only its owner can import
ours = [name for name in sys.modules if name.split(".")[0] == "{package}"]  # Airflow has loaded the plugin, say
problems = {{}}
for name in {names}:
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for old in ours:
                del sys.modules[old]
            warnings.resetwarnings()
            warnings.simplefilter("error")
            importlib.import_module(name)
            os.write(told, b"ok")
        except BaseException:
            os.write(told, traceback.format_exc()[-20000:].encode())
        finally:
            os._exit(0)
    os.close(told)
    with open(heard, "rb") as said:
        problems[name] = said.read().decode()
    os.waitpid(child, 0)
print("\\n" + json.dumps(problems))
"""


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("airflow")


@pytest.fixture(scope="session")
def answer(home: Path) -> Any:
    """Runs code in a fresh interpreter that knows what is installed only; returns what it printed last, from JSON."""

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
        pytest.exit(f"{NAME} is not installed here: install the wheel, or run `make artefact`", 4)
    where = Path(answer(f"import importlib.util as u, json; print(json.dumps(u.find_spec({PACKAGE!r}).origin))"))
    if origin.get("dir_info") or Path(sysconfig.get_paths()["purelib"]) not in where.parents:
        pytest.exit(f"{where} is the source tree, not the wheel: install that, or run `make artefact`", 4)


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
        pytest.skip(f"Airflow {needs[0]}.{needs[1]} is the first that has what it is for")
    assert imported[module] == "ok", imported[module]


def test_a_warning_would_be_found(answer: Any) -> None:
    """The look for warnings sees them: of a module that warns when it is imported."""
    warning = "import warnings; warnings.warn('old', DeprecationWarning, stacklevel=2)"
    code = f"import pathlib, sys; sys.path.append('.'); pathlib.Path('warns.py').write_text({warning!r})\n"
    found = answer(code + IMPORTED.format(loaded=[], names=["warns"], package=PACKAGE))
    assert "DeprecationWarning: old" in found["warns"]


def test_the_environment_has_what_the_wheel_requires() -> None:
    from packaging.requirements import Requirement

    for line in distribution(NAME).requires or []:
        requirement = Requirement(line)
        assert requirement.specifier.contains(version(requirement.name), prereleases=True), line


def test_airflows_schema_takes_the_provider_info(answer: Any) -> None:
    code = f"""
import importlib.resources, json, jsonschema
from {PACKAGE}.get_provider_info import get_provider_info
schema = json.loads((importlib.resources.files("airflow") / "provider_info.schema.json").read_text())
validator = jsonschema.validators.validator_for(schema)
validator.check_schema(schema)
faults = [error.message for error in validator(schema).iter_errors(get_provider_info())]
lame = dict(get_provider_info(), name=3)
print("\\n" + json.dumps([faults, len(list(validator(schema).iter_errors(lame)))]))
"""
    faults, of_a_wrong_one = answer(code)
    assert not faults
    assert of_a_wrong_one


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


def test_the_command_is_there(answer: Any) -> None:
    code = f"""
import contextlib, io, json, runpy, sys
sys.argv[1:] = ["--help"]
said = io.StringIO()
with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
    runpy.run_module({PACKAGE!r}, run_name="__main__", alter_sys=True)
print("\\n" + json.dumps(said.getvalue()))
"""
    text = answer(code)
    assert all(command in text for command in ("submit", "list", "status", "logs", "stop", "delete"))

"""The documentation says what the code says: error texts, arguments, fields and examples."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import airflow_provider_rayjobs
from airflow_provider_rayjobs import exceptions, retries
from airflow_provider_rayjobs.cluster.connection import ClusterConnection
from airflow_provider_rayjobs.cluster.fields import FIELDS
from airflow_provider_rayjobs.decorators import RayJobDecoratedOperator
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.operators import (
    RayDeleteJobOperator,
    RayPruneJobsOperator,
    RayServeDeployOperator,
    RayStopJobOperator,
    RaySubmitJobOperator,
)
from airflow_provider_rayjobs.sensors import RayClusterSensor, RayJobSensor, RayServeSensor
from tests.faults.cases_durable import WINDOWS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PACKAGE = Path(airflow_provider_rayjobs.__file__).parent

#: Stands in a message of the code for what is put in.
VALUE = "\0"


def page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text()


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield the texts of some code, without docstrings, with VALUE for what is put in."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else VALUE for part in node.values]
            yield "".join(map(str, parts))
            yield from texts(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[\d.]*[a-z]", VALUE, node.value)
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            yield from texts(node)


@functools.cache
def messages() -> tuple[str, ...]:
    return tuple(text for path in PACKAGE.rglob("*.py") for text in texts(ast.parse(path.read_text())))


def occurs(quoted: str) -> bool:
    """Whether the code has a text with this in it, in which each … stands for anything."""
    pattern = re.compile(".*".join(map(re.escape, quoted.strip("…").split("…"))), re.DOTALL)
    return any(pattern.search(message) for message in messages())


def quoted_errors() -> list[str]:
    """Return what the page on errors quotes: the terms of its lists that are written as code."""
    terms = re.findall(r"^(`.+`)\n: ", page("troubleshooting"), re.MULTILINE)
    return [quoted for term in terms for quoted in re.findall(r"`([^`]+)`", term)]


def test_the_page_on_errors_quotes_many() -> None:
    assert len(quoted_errors()) > 80


@pytest.mark.parametrize("quoted", quoted_errors())
def test_an_error_that_is_quoted_is_one_of_the_code(quoted: str) -> None:
    assert occurs(quoted)


@pytest.mark.parametrize("quoted", ["a text that nobody says", "the host name is … not known", "Losing contact"])
def test_what_is_no_text_of_the_code_is_found_out(quoted: str) -> None:
    assert not occurs(quoted)


def test_every_error_is_explained() -> None:
    classes = {name for name, value in vars(exceptions).items() if inspect.isclass(value)}
    bases = {"RayJobsError", "RayJobError"}
    # That of a job which is asked for by its id and is not there is caught where the provider asks.
    told = page("troubleshooting") + page("retries")
    assert {name for name in classes - bases if f"`{name}`" not in told} == {"RayJobNotFoundError"}


def rows(name: str) -> set[str]:
    """Return the names in the first cells of a page's tables."""
    cells = re.findall(r"^\| (`[^|]+) \|", page(name), re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`(\w+)", cell)}


def test_every_key_of_the_connection_is_told() -> None:
    extra = page("connection").partition("## Extra")[2]
    cells = re.findall(r"^\| `(\w+)` \|", extra, re.MULTILINE)
    assert set(cells) == set(FIELDS)


@pytest.mark.parametrize("key", ["connect_timeout", "read_timeout", "unreachable_timeout", "max_upload_size"])
def test_defaults_of_the_connection_are_told(key: str) -> None:
    (told,) = re.findall(rf"^\| `{key}` \|.*\| `(\d+)` \|$", page("connection"), re.MULTILINE)
    assert float(told) == getattr(ClusterConnection, key)


def own_arguments(kind: type, *, but: type | None = None) -> set[str]:
    inherited = own_arguments(but) if but else set()
    return set(inspect.signature(kind.__init__).parameters) - {"self", "args", "kwargs"} - inherited


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("operators", (RaySubmitJobOperator, RayStopJobOperator, RayDeleteJobOperator, RayPruneJobsOperator)),
        ("sensors", (RayJobSensor, RayClusterSensor)),
        ("serve", (RayServeDeployOperator, RayServeSensor)),
    ],
)
def test_every_argument_is_told(name: str, kinds: tuple[type, ...]) -> None:
    assert set().union(*map(own_arguments, kinds)) == rows(name)


def test_every_argument_of_the_decorator_is_told() -> None:
    own = own_arguments(RayJobDecoratedOperator, but=RaySubmitJobOperator) - {"python_callable"}
    assert own | {"multiple_outputs"} == rows("functions")


def test_every_route_that_a_proxy_must_pass_is_told() -> None:
    told = re.findall(r"`(/api/[^`{]*)`", page("connection").partition("## Routes")[2].partition("\n## ")[0])
    of_ours = (PACKAGE / "page" / "app.py").read_text()  # Airflow serves these
    used = {text for text in messages() if text.startswith("/api/") and text not in of_ours}
    assert len(used) >= 6
    assert {text for text in used if not text.startswith(tuple(told))} == set()
    assert {route for route in told if not any(text.startswith(route) for text in used)} == set()


def test_defaults_of_the_operator_are_told() -> None:
    told = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", page("operators"), re.MULTILINE)
    signatures = [
        inspect.signature(kind.__init__).parameters
        for kind in (RaySubmitJobOperator, RayStopJobOperator, RayDeleteJobOperator, RayPruneJobsOperator)
    ]
    for name, default in told:
        if not default.startswith("["):  # an option of Airflow
            assert ast.literal_eval(default) in [s[name].default for s in signatures if name in s], name


def test_the_page_tells_what_became_of_the_work_after_each_fault() -> None:
    wanted = [(window.name, window.mixin.told, window.ours.told) for window in WINDOWS]
    beside = page("exactly-once").partition("## Beside Airflow's own")[2].partition("\n## ")[0]
    assert re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", beside, re.MULTILINE)[1:] == wanted


def test_every_verb_of_the_hook_is_told() -> None:
    verbs = {name for name, value in vars(RayJobHook).items() if inspect.isfunction(value) and name[0] != "_"}
    assert verbs - {"get_conn", "close"} == rows("hooks")


def blocks() -> list[Any]:
    """Return the Python of all pages, one by one."""
    found = []
    for path in [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"]:
        for number, code in enumerate(
            re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)
        ):
            found.append(pytest.param(code, id=f"{path.relative_to(ROOT)}-{number}"))
    files = sorted((DOCS / "examples").glob("*.py"))
    return found + [pytest.param(path.read_text(), id=path.name) for path in files]


@pytest.mark.parametrize("code", blocks())
def test_an_example_uses_what_there_is(code: str) -> None:
    tree = ast.parse(code)
    compile(tree, "<documentation>", "exec")
    foreign = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("airflow_provider_rayjobs"):
            module = importlib.import_module(str(node.module))
            there = {*vars(module), *getattr(module, "__all__", ())}  # some only with newer versions of Airflow
            assert {alias.name for alias in node.names} <= there
        elif isinstance(node, ast.ImportFrom):
            foreign |= {alias.name for alias in node.names}
    jobs = (RaySubmitJobOperator, RayStopJobOperator, RayDeleteJobOperator, RayPruneJobsOperator)
    ours = (*jobs, RayServeDeployOperator, RayJobSensor, RayClusterSensor, RayServeSensor)
    kinds = {kind.__name__: kind for kind in ours if kind.__name__ not in foreign}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in kinds:
            taken = set().union(*(own_arguments(base) for base in kinds[call.func.id].__mro__[:-1]))
            assert {keyword.arg for keyword in call.keywords} <= taken | {"retry_policy"}  # of Airflow 3.3


def test_the_command_line_has_the_commands_that_are_told() -> None:
    cli = pytest.importorskip("airflow_provider_rayjobs.cli")
    (group,) = cli.get_ray_jobs_cli_commands()
    assert {command.name for command in group.subcommands} == rows("command-line")
    told = re.findall(r"^\| (\d+) \| (.+) \|$", page("command-line"), re.MULTILINE)
    assert told == re.findall(r"^ +(\d+)  (.+)$", cli.EXIT_CODES, re.MULTILINE)


def column(name: str) -> dict[str, str]:
    """Return what the page on versions says of one Airflow, by the first words of its rows."""
    table = [re.split(r" *\| *", line.strip("| ")) for line in page("versions").splitlines() if line.startswith("|")]
    assert name in table[0], f"docs/versions.md has no column for Airflow {name}"
    index = table[0].index(name) + 1  # the first cell of the header is empty, and is stripped
    return {re.sub(r"\]\([^)]*\)|[\[`]", "", row[0]): row[index] for row in table[2:]}


def test_the_page_on_versions_says_what_this_airflow_has() -> None:
    from airflow.providers.common.compat.sdk import BaseOperator
    from airflow.providers_manager import ProvidersManager
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_rayjobs.plugin import RayJobsPlugin

    installed = version("apache-airflow")
    told = column(".".join(installed.split(".")[:2]))
    assert installed in page("versions")
    has = {
        'Page "Ray jobs"': bool(getattr(RayJobsPlugin, "fastapi_apps", None)),
        "Commands: airflow ray-jobs …": hasattr(ProvidersManager, "cli_command_functions"),
        "retry_policy by the errors' classes": "retry_policy" in inspect.signature(BaseOperator.__init__).parameters,
        "RayRetryPolicy": "RayRetryPolicy" in vars(retries),
    }
    assert {name: told[name].startswith("yes") for name in has} == has
    assert ("on_kill" in told["The same for a deferred task"]) is hasattr(BaseTrigger, "on_kill")


def test_the_readme_leads_to_pages_that_are_there() -> None:
    links = re.findall(r"\]\((docs/[^)#]+)", (ROOT / "README.md").read_text())
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_no_page_holds_both_sides_of_a_merge() -> None:
    for path in (*DOCS.rglob("*.md"), *ROOT.glob("*.md")):
        assert not re.findall(r"^(?:<{7}|>{7}) .*$", path.read_text(), re.MULTILINE), path

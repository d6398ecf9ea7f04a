"""Finds the code that a test can reach, by following the imports of its module."""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import TYPE_CHECKING

import airflow_provider_rayjobs

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The packages whose imports are followed, with their folders; of others only the name counts.
_OURS = {
    "airflow_provider_rayjobs": Path(airflow_provider_rayjobs.__file__).parents[1],
    "tests": Path(__file__).parents[2],
}


def knows_airflow(test_module: Path) -> bool:
    """
    Return whether a test module, the fixtures of its folder, or anything that they reach imports Airflow.

    Test modules that start programs count too, because these may be Airflow's.

    :param test_module: a file in the repository.
    """
    tests = _OURS["tests"] / "tests"
    fixtures = test_module.with_name("conftest.py")
    for file in reached(test_module) | (reached(fixtures) if fixtures.is_file() else set()):
        telling = {"airflow", "subprocess"} if file.is_relative_to(tests) else {"airflow"}
        if not telling.isdisjoint(name.partition(".")[0] for name in _imported(file)):
            return True
    return False


def reached(file: Path) -> set[Path]:
    """Return a file and all files of this repository that it imports, directly or indirectly, also in functions."""
    seen: set[Path] = set()
    ahead = {file}
    while ahead:
        seen |= ahead
        ahead = {found for known in ahead for name in _imported(known) if (found := _file_of(name))} - seen
    return seen


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the full names that the code imports at run time, also in functions."""
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
def _imported(file: Path) -> frozenset[str]:
    return frozenset(imported(ast.parse(file.read_text())))


@functools.cache
def _file_of(name: str) -> Path | None:
    """Return the file of a module of this repository, or of the module that defines the name; None for others."""
    parts = name.split(".")
    if parts[0] not in _OURS:
        return None
    for length in range(len(parts), 0, -1):
        place = _OURS[parts[0]].joinpath(*parts[:length])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return file
    return None

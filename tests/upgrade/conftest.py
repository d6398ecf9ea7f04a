"""The Airflow versions of the upgrade, from the oldest to the newest."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import environment
from tests.support.processes import output_of

HERE = Path(__file__).parent
REPO = HERE.parents[1]

#: The variable with an environment for each version: ``2.11=/somewhere/bin/python,3.0=...``.
VARIABLE = "RAYJOBS_UPGRADE_PYTHONS"


@dataclass(frozen=True)
class Airflow:
    """An environment with an Airflow and this provider."""

    version: str
    python: Path

    def run(self, *arguments: str | Path, env: dict[str, str], timeout: float = 300) -> str:
        """
        Run its Python.

        :param timeout: seconds.
        :return: its stdout.
        :raises RuntimeError: if it fails, with its output.
        """
        command = [self.python, *arguments]
        made = environment.for_programs() | {"PYTHONPATH": str(REPO)} | env
        return output_of(command, cwd=REPO, env=made, timeout=timeout)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of this folder. They run only if they are named, because they need several environments."""
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    for item in ours:
        item.add_marker(pytest.mark.upgrade)
    if "upgrade" not in config.option.markexpr and not any("upgrade" in argument for argument in config.args):
        items[:] = [item for item in items if item not in ours]
        config.hook.pytest_deselected(items=ours)


def _installed() -> list[Airflow]:
    if named := os.environ.get(VARIABLE):
        pairs = [entry.strip().split("=", 1) for entry in named.split(",")]
    else:
        found = REPO.glob(".envs/airflow-*/bin/python")
        pairs = [[python.parents[1].name.removeprefix("airflow-"), str(python)] for python in found]
    made = [Airflow(version, Path(python)) for version, python in pairs]
    return sorted(made, key=lambda airflow: tuple(map(int, airflow.version.split("."))))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize a test of one upgrade with each pair of successive versions."""
    if "upgrade" in metafunc.fixturenames:
        pairs = list(itertools.pairwise(_installed()))
        metafunc.parametrize("upgrade", pairs, ids=[f"{old.version}-to-{new.version}" for old, new in pairs])


@pytest.fixture(scope="session")
def airflows() -> list[Airflow]:
    """All Airflow environments, oldest first: those in the variable, or those in ``.envs``."""
    installed = _installed()
    if len(installed) < 2:
        message = f"an upgrade needs two environments: name them in {VARIABLE}, or create them in .envs"
        if "CI" in os.environ:
            pytest.fail(message)
        pytest.skip(message)
    return installed

"""Fixtures for tests of all kinds."""

from __future__ import annotations

import atexit
import os
import platform
import secrets
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lanes import FAILED_VARIABLE
from tests.support import environment, reach, shared
from tests.support.databases import Database, PostgresDatabase, SqliteDatabase, wants_sqlite
from tests.support.faulty_proxy import FaultyProxy
from tests.support.postgres import Postgres
from tests.support.private_ca import PrivateCA
from tests.support.ray_head import AUTH_VARIABLE, RayHead, find_ray, ray_version, require_ray
from tests.support.scripted_server import ScriptedRay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: The most characters of a parameter in the name of a test.
LONGEST_NAME = 100

environment.clean()

# Airflow reads and writes its configuration in AIRFLOW_HOME when it is first imported, possibly while tests are
# collected. The default, a folder in the user's home, may have files of another version that this one can't read.
_home = tempfile.TemporaryDirectory(prefix="airflow-tests-")
os.environ["AIRFLOW_HOME"] = _home.name
atexit.register(_home.cleanup)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need the shared head, directly or through another fixture, and those marked by their file."""
    for item in items:
        if "ray_head" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.integration)
        if item.path.name == "test_harness.py" or item.path.parent.name == "support":
            item.add_marker(pytest.mark.harness)
        if "unit" in item.path.parts and not reach.knows_airflow(item.path):
            item.add_marker(pytest.mark.any_airflow)
        if (group := worker_of(item)) and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(group))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write the name of a failed test, without its group, to the file that `tests/lanes.py` reads."""
    file = os.environ.get(FAILED_VARIABLE)
    if file and report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        name, at, group = report.nodeid.rpartition("@")
        with Path(file).open("a") as failed:
            failed.write(f"{report.nodeid if not at or set(group) & set(']:') else name}\n")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a long parameter by its length, because names are sent to all workers and stored in the results."""
    return f"{argname} of {len(val)}" if isinstance(val, (str, bytes)) and len(val) > LONGEST_NAME else None


def worker_of(item: pytest.Item) -> str:
    """Return the group of tests that run on the same worker as this one; empty if it may run on any."""
    # Tests with the Airflow and the head that all workers share run in parallel; others share what their module starts.
    return "" if item.path.parent.name in ("airflow", "integration") else item.path.stem


@pytest.fixture(scope="session", autouse=True)
def _versions(record_testsuite_property: Callable[[str, object], None]) -> None:
    """Record the tested versions in the results."""
    ray = find_ray()
    record_testsuite_property("airflow", version("apache-airflow"))
    record_testsuite_property("python", platform.python_version())
    record_testsuite_property("database", "sqlite" if wants_sqlite() else "postgresql")
    found = ".".join(map(str, ray_version(ray))) if ray else "none"
    record_testsuite_property("ray", f"{found} {os.environ.get(AUTH_VARIABLE, '')}".strip())


@pytest.fixture(scope="session")
def ray_head() -> Iterator[RayHead]:
    """A real head that all tests share: use unique ids, and change only your own jobs.

    A test that kills or restarts a head must create its own with :class:`RayHead`.
    """
    if shared.are_wanted():
        yield shared.get("ray_head")
        return
    with RayHead(num_cpus=4, ray_bin=require_ray()) as head:
        yield head


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server that all tests share. A test that stops a server must create its own."""
    if shared.are_wanted():
        yield shared.get("postgres")
        return
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def new_database(request: pytest.FixtureRequest) -> Callable[[Path], Database]:
    """A function that returns a new database for an Airflow, given its home: PostgreSQL by default, else SQLite."""
    if wants_sqlite():
        return lambda home: SqliteDatabase(home / "airflow.db")
    server: Postgres = request.getfixturevalue("postgres")
    return lambda _home: PostgresDatabase(server.url(f"airflow_{secrets.token_hex(4)}"))


@pytest.fixture
def faulty_proxy(ray_head: RayHead) -> Iterator[FaultyProxy]:
    """A proxy in front of the shared head, without rules."""
    with FaultyProxy(ray_head.host, ray_head.port) as proxy:
        yield proxy


@pytest.fixture
def scripted_ray() -> Iterator[ScriptedRay]:
    """A scripted server without jobs."""
    with ScriptedRay() as server:
        yield server


@pytest.fixture(scope="session")
def private_ca(tmp_path_factory: pytest.TempPathFactory) -> PrivateCA:
    """A certificate authority with a server and a client certificate."""
    return PrivateCA(tmp_path_factory.mktemp("ca"))

"""
Tests of the built wheel, on each supported Airflow, Python and Ray; `make matrix` calls this.

    nox --list                          what there is
    nox -t matrix                       every cell
    nox -s "matrix(3.1, 3.12, 2.40)"    one: Airflow, Python, Ray; and ", token" where the head asks for one
    nox -s report                       the table of what was run

The Pythons of the matrix are to be on the PATH. Arguments after `--` go to pytest.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nox

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "tools"))
import artefact  # noqa: E402
import environment  # noqa: E402

environment.use(environment.for_installers())
# An environment that another Python made is made anew.
os.environ["NOX_ENABLE_STALENESS_CHECK"] = "1"
nox.options.tags = ["matrix"]
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"

RESULTS = ROOT / "build" / "matrix"
NEWEST_RAY, OLDEST_RAY = "2.60", "2.8"

#: Airflow, Python, Ray, and whether the head asks for a token: every version at least once, and the corners.
CELLS = (
    ("2.11", "3.11", OLDEST_RAY, ""),
    ("2.11", "3.12", NEWEST_RAY, "token"),
    ("3.0", "3.11", "2.30", ""),
    ("3.1", "3.12", "2.40", ""),
    ("3.2", "3.12", "2.50", ""),
    ("3.3", "3.11", OLDEST_RAY, ""),
    ("3.3", "3.13", NEWEST_RAY, ""),
    ("3.3", "3.13", NEWEST_RAY, "token"),
    ("3.3", "3.14", NEWEST_RAY, ""),
)

#: Cells whose Airflows are on SQLite; those of all others are on PostgreSQL.
ON_SQLITE = (("2.11", "3.11", OLDEST_RAY, ""), ("3.3", "3.13", NEWEST_RAY, ""))

#: The cell in which the coverage is measured, and what it must at least be, in percent of lines and branches.
#: CONTRIBUTING.md shows it. Raise both when it has grown.
MEASURED = ("3.3", "3.13", NEWEST_RAY, "")
LEAST_COVERAGE = 92


@nox.session(tags=["matrix"])
@nox.parametrize("airflow,python,ray,auth", CELLS, ids=[", ".join(filter(None, cell)) for cell in CELLS])
def matrix(session: nox.Session, airflow: str, ray: str, auth: str) -> None:
    """Test the wheel in one cell of the matrix: Airflow, Python, Ray, and whether the head asks for a token."""
    results = results_of(airflow, str(session.python), ray, auth)
    results.unlink(missing_ok=True)  # what ends before its tests leaves no older results
    # Some tests say nothing of the cell.
    whole = [] if session.posargs else [f"--junit-xml={results}"]
    env = {"RAYJOBS_TEST_AUTH": auth}
    if (airflow, session.python, ray, auth) == MEASURED and not session.posargs:
        whole += ["--cov=airflow_provider_rayjobs", "--cov-branch", f"--cov-fail-under={LEAST_COVERAGE}"]
    if (airflow, session.python, ray, auth) in ON_SQLITE:
        env["RAYJOBS_TEST_DATABASE"] = "sqlite"
    run(session, airflow, ray, artefact.NOT_ELSEWHERE, *whole, env=env)


@nox.session(tags=["matrix"], venv_backend="none")
def report(session: nox.Session) -> None:
    """Print the table of all cells; one that has no results is red."""
    files = [str(results_of(*cell)) for cell in CELLS]
    session.run(sys.executable, "tools/matrix_report.py", *files)


def results_of(*cell: str) -> Path:
    """Return the file for the results of a cell."""
    return RESULTS / f"{' '.join(filter(None, cell))}.xml"


def run(
    session: nox.Session, airflow: str, ray: str, marks: str, *options: str, env: Mapping[str, str] | None = None
) -> None:
    """Build the project, install the wheel among pinned packages, and test it with what the sdist holds."""
    session.run_install("uv", "pip", "sync", "--quiet", f"requirements/airflow-{airflow}.txt", external=True)
    ray_bin = ray_environment(session, ray) / "bin" / "ray"
    # Not below session.create_tmp(): that sets TMPDIR, with a path too long for the sockets of some programs.
    built = Path(session.virtualenv.location).resolve() / "dist"
    shutil.rmtree(built, ignore_errors=True)
    session.run_install("uv", "build", "--quiet", "--out-dir", str(built), external=True)
    session.install("--no-deps", *map(str, built.glob("*.whl")))

    stage = artefact.unpacked(built, built / "unpacked")
    session.chdir(stage)
    session.run("pytest", "--quiet", "--confcutdir=tests/artefact", "tests/artefact/test_installed.py")
    found = {"PYTHONPATH": str(stage), "RAYJOBS_RAY_BIN": str(ray_bin)}
    session.run("pytest", "-m", marks, *options, *session.posargs, env=found | dict(env or {}))


def ray_environment(session: nox.Session, ray: str) -> Path:
    """Make an environment for Ray alone, with the Python of the session; functions that are pickled want the same."""
    requirements = ROOT / "requirements" / f"ray-{ray}.txt"
    ask = "import sys; print(sys.base_prefix, '%d.%d' % sys.version_info[:2])"
    base, python = str(session.run_install("python", "-c", ask, silent=True)).split()
    place = ROOT / ".nox" / f"ray-{ray}-python-{python}"
    made_from, now = place / "made-from.txt", f"{base}\n{requirements.read_text()}"
    if not made_from.exists() or made_from.read_text() != now:
        uv = ("uv", "--quiet")
        session.run_install(*uv, "venv", "--clear", "--python", f"{base}/bin/python{python}", str(place), external=True)
        session.run_install(
            *(*uv, "pip", "install", "--python", str(place), "--no-deps", "--compile-bytecode"),
            *("--requirement", str(requirements)),
            external=True,
        )
        made_from.write_text(now)
    return place

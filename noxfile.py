"""
Tests of the built wheel, on each supported Airflow, Python and Ray; `make test` and `make matrix` call this.

    nox --list                          what there is
    nox -s test                         the default pair: the newest and the oldest Airflow, with the newest Ray
    nox -t matrix                       every cell
    nox -s matrix -k "3.1 and not 3.11" some cells
    nox -s report                       the table of what was run

The Pythons of the matrix are to be on the PATH. Arguments after `--` go to pytest.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path

import nox

nox.options.sessions = ["test"]
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"

ROOT = Path(__file__).parent
RESULTS = ROOT / "build" / "matrix"
NEWEST_RAY, OLDEST_RAY = "2.60", "2.8"

#: Airflow, Python, Ray: every version at least once, and the corners.
CELLS = (
    ("2.11", "3.11", OLDEST_RAY),
    ("2.11", "3.12", NEWEST_RAY),
    ("3.0", "3.11", "2.30"),
    ("3.1", "3.12", "2.40"),
    ("3.2", "3.12", "2.50"),
    ("3.3", "3.11", OLDEST_RAY),
    ("3.3", "3.13", NEWEST_RAY),
)

#: What other targets of the Makefile run: what is slow, wants several environments, or a browser.
OTHERS = "not faults and not parity and not ui and not upgrade"
#: What does not differ between versions of Airflow: Ray alone, and the harness of the tests.
OF_AIRFLOW = "(airflow or not integration)"


@nox.session
@nox.parametrize("airflow", ["3.3", "2.11"], ids=["airflow-3.3", "airflow-2.11"])
def test(session: nox.Session, airflow: str) -> None:
    """Test the wheel on the newest and on the oldest Airflow, with the Python that runs nox."""
    if sys.version_info >= (3, 13):
        session.error("Airflow 2.11 needs Python 3.11 or 3.12; name one: make PYTHON=python3.12 test")
    marks = OTHERS if airflow == "3.3" else f"{OF_AIRFLOW} and {OTHERS}"
    run(session, airflow, NEWEST_RAY, marks)


@nox.session(tags=["matrix"])
@nox.parametrize(
    "airflow,python,ray",
    CELLS,
    ids=[f"airflow-{airflow}, python-{python}, ray-{ray}" for airflow, python, ray in CELLS],
)
def matrix(session: nox.Session, airflow: str, ray: str) -> None:
    """Test the wheel in one cell of the matrix."""
    run(session, airflow, ray, OTHERS)


@nox.session(tags=["matrix"], venv_backend="none")
def report(session: nox.Session) -> None:
    """Print the table of all cells that were run."""
    session.run(sys.executable, "tools/matrix_report.py", *map(str, sorted(RESULTS.glob("matrix*.xml"))))


def run(session: nox.Session, airflow: str, ray: str, marks: str) -> None:
    """Build the project, install the wheel among pinned packages, and test it with what the sdist holds."""
    session.install("--no-deps", "--requirement", f"requirements/airflow-{airflow}.txt")
    ray_bin = ray_environment(session, ray) / "bin" / "ray"
    built = Path(session.create_tmp()) / "dist"
    shutil.rmtree(built, ignore_errors=True)
    session.run_install("uv", "build", "--quiet", "--out-dir", str(built), external=True)
    session.install("--no-deps", "--reinstall-package", "airflow-provider-rayjobs", *map(str, built.glob("*.whl")))

    stage = unpacked(built)
    session.chdir(stage)
    session.run("pytest", "--quiet", "--confcutdir=tests/artefact", "tests/artefact/test_installed.py")
    name = "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in session.name)
    session.run(
        *("pytest", "-m", marks, f"--junit-xml={RESULTS / name}.xml"),
        *session.posargs,
        env={"PYTHONPATH": str(stage), "RAYJOBS_RAY_BIN": str(ray_bin)},
    )


def unpacked(built: Path) -> Path:
    """Unpack the sdist, and take the package out of it: what is tested is the installed one."""
    stage = built / "unpacked"
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(stage, filter="data")
    (folder,) = stage.iterdir()
    shutil.rmtree(folder / "airflow_provider_rayjobs")
    return folder


def ray_environment(session: nox.Session, ray: str) -> Path:
    """Make an environment for Ray alone, with the Python of the session; functions that are pickled want the same."""
    requirements = ROOT / "requirements" / f"ray-{ray}.txt"
    python = str(
        session.run_install("python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])", silent=True)
    ).strip()
    place = ROOT / ".nox" / f"ray-{ray}-python-{python}"
    made_from = place / "made-from.txt"
    if not made_from.exists() or made_from.read_text() != requirements.read_text():
        session.run_install("uv", "venv", "--quiet", "--clear", "--python", python, str(place), external=True)
        session.run_install(
            *("uv", "pip", "install", "--quiet", "--python", str(place), "--no-deps", "--compile-bytecode"),
            *("--requirement", str(requirements)),
            external=True,
        )
        made_from.write_text(requirements.read_text())
    return place

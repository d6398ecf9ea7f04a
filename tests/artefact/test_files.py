"""The sdist and the wheel in `dist/` as files: their contents and metadata, and that the sdist builds the same wheel.

`make artefact` builds them and runs these tests, in an environment without Airflow and without the project.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).parents[2]
DIST = Path(os.environ.get("RAYJOBS_DIST", ROOT / "dist"))
PACKAGE = "airflow_provider_rayjobs"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION: str = PROJECT["version"]
INFO = f"{PACKAGE}-{VERSION}.dist-info"

#: The most bytes of the wheel.
MOST = 500_000

#: Leftovers of tools, which a release must not contain.
JUNK = re.compile(r"(^|/)(__pycache__|\.\w+_cache|\.hypothesis|\.envs|build|dist|logs)/|\.py[cod]$|airflow\.(cfg|db)$")

#: Folders of the sdist: everything for building, testing and reading.
FOLDERS = (PACKAGE, "benchmarks", "docs", "example_dags", "requirements", "tests", "tools")
FILES = {
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md", "pyproject.toml"),
    *("PKG-INFO", ".gitignore"),  # added by hatchling: the metadata, and the files that a build ignores
}


def only(pattern: str) -> Path:
    found = list(DIST.glob(pattern))
    assert len(found) == 1, f"{DIST} has {len(found)} files {pattern}; `make artefact` builds them"
    return found[0]


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel() -> Path:
    return only("*.whl")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(only("*.tar.gz")) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    return message_from_bytes(contents(wheel)[f"{INFO}/METADATA"])


def sources(*folders: str) -> set[str]:
    """Return the files of the source tree in some folders, without leftovers of tools."""
    files = [path for name in folders for path in (ROOT / name).rglob("*") if path.is_file()]
    names = {path.relative_to(ROOT).as_posix() for path in files}
    return {name for name in names if not JUNK.search(name) and not name.startswith("benchmarks/results/")}


def run(*arguments: str, cwd: Path) -> str:
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, check=False, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_twine_finds_no_errors() -> None:
    output = run("twine", "check", "--strict", str(only("*.whl")), str(only("*.tar.gz")), cwd=DIST)
    assert output.count("PASSED") == 2


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < MOST


def test_the_wheel_contains_only_the_package(wheel: Path) -> None:
    info = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    names = set(contents(wheel))
    assert names == sources(PACKAGE) | {f"{INFO}/{name}" for name in info}
    assert {f"{PACKAGE}/{name}" for name in ("py.typed", "page/page.html", "page/page.js", "page/page.css")} <= names


def test_the_wheel_is_for_every_platform(wheel: Path) -> None:
    assert wheel.name == f"{PACKAGE}-{VERSION}-py3-none-any.whl"
    assert "Root-Is-Purelib: true" in contents(wheel)[f"{INFO}/WHEEL"].decode()


def test_the_metadata_is_that_of_the_project(metadata: Message) -> None:
    assert metadata["Name"] == "airflow-provider-rayjobs"
    assert metadata["Version"] == VERSION
    assert metadata["Summary"] == PROJECT["description"]
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata.get_all("Classifier") == PROJECT["classifiers"]
    assert "Framework :: Apache Airflow :: Provider" in PROJECT["classifiers"]  # registries search for it
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload(decode=True).decode().strip() == (ROOT / "README.md").read_text().strip()


def test_the_dependencies_are_those_of_the_project(metadata: Message) -> None:
    def parts(requirement: str) -> tuple[str, frozenset[str]]:
        name, bounds = re.fullmatch(r"([\w.-]+)(.*)", requirement).groups()  # type: ignore[union-attr]  # None also fails the test
        return name.lower(), frozenset(bounds.split(","))

    required = [one for one in metadata.get_all("Requires-Dist") if "extra ==" not in one]
    assert sorted(map(parts, required)) == sorted(map(parts, PROJECT["dependencies"]))
    assert not any(parts(name)[0] == "ray" for name in PROJECT["dependencies"])


def test_each_extra_brings_a_provider_of_airflow(metadata: Message) -> None:
    extras = PROJECT["optional-dependencies"]
    assert metadata.get_all("Provides-Extra") == list(extras)
    required = [one for one in metadata.get_all("Requires-Dist") if "extra ==" in one]
    expected = [f"{name};extra=={extra}" for extra, names in extras.items() for name in names]
    assert [re.sub(r"\s|['\"]", "", one) for one in required] == expected


def test_the_version_is_the_same_everywhere(wheel: Path) -> None:
    (found,) = re.findall(r'^__version__ = "(.+)"$', contents(wheel)[f"{PACKAGE}/__init__.py"].decode(), re.MULTILINE)
    assert found == VERSION


def test_airflow_and_its_plugin_manager_find_their_entry_points(wheel: Path) -> None:
    lines = contents(wheel)[f"{INFO}/entry_points.txt"].decode().split()
    assert "".join(lines) == (
        f"[airflow.plugins]ray_jobs={PACKAGE}.plugin:RayJobsPlugin"
        f"[apache_airflow_provider]provider_info={PACKAGE}.get_provider_info:get_provider_info"
    )


def test_the_licence_is_named_and_complete(wheel: Path, metadata: Message) -> None:
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    text = contents(wheel)[f"{INFO}/licenses/LICENSE"].decode()
    assert text == (ROOT / "LICENSE").read_text()
    assert re.findall(r"^ *(\d)\. [A-Z]", text, re.MULTILINE) == list("123456789")
    assert "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_sdist_contains_everything_for_building_testing_and_reading(sdist: Path) -> None:
    names = {path.relative_to(sdist).as_posix() for path in sdist.rglob("*") if path.is_file()}
    assert names >= sources(*FOLDERS) | FILES
    assert not [name for name in names if JUNK.search(name)]
    # Other files at the root of the source tree, such as the configuration of a service, must not be included.
    assert {name.split("/")[0] for name in names} <= {*FOLDERS, *FILES, "noxfile.py"}


def test_the_sdist_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    run("hatchling", "build", "--target", "wheel", "--directory", str(tmp_path), cwd=sdist)
    (made,) = tmp_path.glob("*.whl")
    assert made.name == wheel.name
    assert contents(made) == contents(wheel)

"""Builds the sdist and the wheel into `dist/`, and tests these files: `make artefact`.

    python tools/artefact.py                       installs the wheel beside the newest Airflow
    python tools/artefact.py airflow-2.11          beside other environments
    python tools/artefact.py --release v1.2.3      first checks that the source has this version; without a tag, the
                                                   one in the environment variable GITHUB_REF_NAME

The tests never see the source tree: the wheel is installed into its own environment.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from typing import TYPE_CHECKING

import environment
import envs
from console import ToolError, run_main, step

if TYPE_CHECKING:
    from pathlib import Path

#: A tag of a release. Anyone who may push a tag chooses its name, so the name is checked.
TAG = re.compile(r"v[0-9]+\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?")
TAG_VARIABLE = "GITHUB_REF_NAME"

DIST = envs.ROOT / "dist"
TESTS = envs.ROOT / "tests" / "artefact"
#: The marks of tests that other targets of the Makefile run: slow ones, and those that need more environments.
ELSEWHERE = ("faults", "field", "parity", "ui", "upgrade", "kube", "storage", "lineage", "observability", "serve")
NOT_ELSEWHERE = " and ".join(f"not {mark}" for mark in ELSEWHERE)

#: The tests that run in the environment where the wheel is installed.
INSTALLED = "test_installed.py"


def build() -> Path:
    """Build the files of a release, and return the wheel."""
    shutil.rmtree(DIST, ignore_errors=True)
    with step("Building dist/"):
        command = [envs.program("dist", "python"), "-m", "hatchling", "build", "--directory", str(DIST)]
        envs.run(command, envs.ENVS_DIR / "artefact.log")
    (wheel,) = DIST.glob("*.whl")
    return wheel


def check_release(tag: str) -> None:
    """Check that the source has the version of a tag.

    :param tag: such as v1.2.3.
    :raises ToolError: if it does not; the message says what to fix.
    """
    if not TAG.fullmatch(tag):
        raise ToolError(f"The tag {tag!r} is not a version such as v1.2.3.")
    version = tomllib.loads((envs.ROOT / "pyproject.toml").read_text())["project"]["version"]
    if tag != f"v{version}":
        raise ToolError(f"The tag is {tag}, but pyproject.toml says {version}. Tag the commit that has the version.")
    changelog = (envs.ROOT / "CHANGELOG.md").read_text()
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE):
        raise ToolError(f"CHANGELOG.md has no section '## [{version}] - YYYY-MM-DD' for this release.")


def install(name: str, wheel: Path) -> str:
    """Create an environment with the pins of another one and the wheel; return its name."""
    uv = envs.needed_uv()
    made = f"wheel-{name}"
    target = str(envs.ENVS_DIR / made)
    log = envs.ENVS_DIR / "artefact.log"
    with step(f"Installing {wheel.name} beside {name} into .envs/{made}"):
        envs.run([uv, "venv", "--clear", "--no-project", "--python", sys.executable, target], log)
        pins = ["--requirement", str(envs.requirements(name))]
        envs.run([uv, "pip", "install", "--python", target, "--no-deps", *pins, str(wheel)], log)
    return made


def unpacked(dist: Path, stage: Path) -> Path:
    """
    Unpack the sdist, and remove the package from it, so that the tests use the installed one.

    :param dist: the folder of the sdist.
    :param stage: a folder that does not exist yet.
    :return: the folder of the tests.
    """
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        archive.extractall(stage, filter="data")
    (folder,) = stage.iterdir()
    shutil.rmtree(folder / "airflow_provider_rayjobs")
    return folder


def test_command(env: str, file: str) -> list[str]:
    """Return the command that runs tests in an environment, from the root of the repository."""
    return [envs.program(env, "pytest"), f"--confcutdir={TESTS}", str(TESTS / file)]


def test(env: str, file: str) -> None:
    """Run tests in an environment.

    :raises ToolError: if a test fails.
    """
    command = test_command(env, file)
    print(f"{file} in .envs/{env}:", flush=True)
    if subprocess.run(command, check=False, cwd=envs.ROOT, env=environment.for_installers()).returncode:
        raise ToolError(f"{file} failed in .envs/{env}.")


def build_and_install(names: list[str]) -> dict[str, str]:
    """
    Build the files, test them as files, and install the wheel.

    :param names: keys of `envs.ALL_ENVS`: the environments beside whose packages the wheel is installed.
    :return: the name of the created environment, by these keys.
    :raises ToolError: if a test fails.
    """
    envs.ensure("dist")
    wheel = build()
    test("dist", "test_files.py")
    return {name: install(name, wheel) for name in names}


def main(arguments: list[str]) -> int:
    """Build and test the files."""
    parser = argparse.ArgumentParser(description="Build the sdist and the wheel into dist/, and test these files.")
    parser.add_argument("environments", nargs="*", default=["airflow-3.3"], help="default: airflow-3.3")
    parser.add_argument(
        "--release",
        metavar="TAG",
        nargs="?",
        const=os.environ.get(TAG_VARIABLE, ""),
        help=f"fail if the source has another version; default: the tag in {TAG_VARIABLE}",
    )
    options = parser.parse_args(arguments)
    if options.release is not None:
        check_release(options.release)
    for name in options.environments:
        envs.check_name(name)
    for env in build_and_install(options.environments).values():
        test(env, INSTALLED)
    return 0


if __name__ == "__main__":
    run_main(main)

"""Build the sdist and the wheel into `dist/`, and test these files: `make artefact`.

    python tools/artefact.py                       the wheel beside the newest Airflow
    python tools/artefact.py airflow-2.11          beside others
    python tools/artefact.py --release v1.2.3      and only if this is what is to be released; without a tag, the one in
                                                   the environment variable GITHUB_REF_NAME

The tests never see the source tree: the wheel is installed into an environment made for it.
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

#: A tag of a release. Whoever may push a tag chooses its name, so it is not believed to be one.
TAG = re.compile(r"v[0-9]+\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?")
TAG_VARIABLE = "GITHUB_REF_NAME"

DIST = envs.ROOT / "dist"
TESTS = envs.ROOT / "tests" / "artefact"
#: What other targets of the Makefile run: what is slow, wants several environments, or a browser.
NOT_ELSEWHERE = "not faults and not field and not parity and not ui and not upgrade"
#: The tests that run where the wheel is installed.
INSTALLED = "test_installed.py"


def build() -> Path:
    """Build the files as a release has them, and return the wheel."""
    shutil.rmtree(DIST, ignore_errors=True)
    with step("Building dist/"):
        command = [envs.program("dist", "python"), "-m", "hatchling", "build", "--directory", str(DIST)]
        envs.run(command, envs.ENVS_DIR / "artefact.log")
    (wheel,) = DIST.glob("*.whl")
    return wheel


def check_release(tag: str) -> None:
    """Stop unless the source says that it is the version of a tag.

    :param tag: such as v1.2.3.
    :raises ToolError: with what is to be mended.
    """
    if not TAG.fullmatch(tag):
        raise ToolError(f"The tag {tag!r} is not a version, such as v1.2.3.")
    version = tomllib.loads((envs.ROOT / "pyproject.toml").read_text())["project"]["version"]
    if tag != f"v{version}":
        raise ToolError(f"The tag is {tag}, and pyproject.toml says {version}: tag the commit that has the version.")
    changelog = (envs.ROOT / "CHANGELOG.md").read_text()
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE):
        raise ToolError(f"CHANGELOG.md has no section '## [{version}] - YYYY-MM-DD' for this release.")


def install(name: str, wheel: Path) -> str:
    """Make an environment with the pins of another one, and the wheel; return its name."""
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
    Unpack the sdist, and take the package out of it: what is tested is the installed one.

    :param dist: where the sdist is.
    :param stage: an absent folder.
    :return: the folder of the tests.
    """
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        archive.extractall(stage, filter="data")
    (folder,) = stage.iterdir()
    shutil.rmtree(folder / "airflow_provider_rayjobs")
    return folder


def test_command(env: str, file: str) -> list[str]:
    """Return the command that runs tests in an environment, below the root."""
    return [envs.program(env, "pytest"), f"--confcutdir={TESTS}", str(TESTS / file)]


def test(env: str, file: str) -> None:
    """Run tests in an environment.

    :raises ToolError: one has failed.
    """
    command = test_command(env, file)
    print(f"{file} in .envs/{env}:", flush=True)
    if subprocess.run(command, check=False, cwd=envs.ROOT, env=environment.for_installers()).returncode:
        raise ToolError(f"{file} failed in .envs/{env}.")


def build_and_install(names: list[str]) -> dict[str, str]:
    """
    Build the files, test them as files, and install the wheel.

    :param names: keys of `envs.ALL_ENVS`, beside whose packages it is installed.
    :return: for each the name of the environment that was made.
    :raises ToolError: a test has failed.
    """
    envs.ensure("dist")
    wheel = build()
    test("dist", "test_files.py")
    return {name: install(name, wheel) for name in names}


def main(arguments: list[str]) -> int:
    """Do what the module's docstring says."""
    parser = argparse.ArgumentParser(description="Build the sdist and the wheel into dist/, and test these files.")
    parser.add_argument("environments", nargs="*", default=["airflow-3.3"], help="default: airflow-3.3")
    parser.add_argument(
        "--release",
        metavar="TAG",
        nargs="?",
        const=os.environ.get(TAG_VARIABLE, ""),
        help=f"stop unless this is the version that the source has; default: what {TAG_VARIABLE} says",
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

"""Finds a Chromium for the browser tests, or installs Debian's if possible."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from console import ToolError, run_main, step, tail

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = ("chromium", "fonts-dejavu-core")
APT_TIMEOUT = 600  # seconds, for one command


def find() -> str | None:
    """Return the program named in $RAYJOBS_CHROMIUM, or else an installed one; None if there is none."""
    return os.environ.get("RAYJOBS_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def install() -> None:
    """
    Install Debian's packages.

    :raises ToolError: if there is no apt-get, the user is not root, or the installation fails.
    """
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise ToolError(
            "The browser tests need Chromium or Chrome. Install it (on Debian: sudo apt-get install "
            f"{' '.join(PACKAGES)}), or name the program in RAYJOBS_CHROMIUM."
        )
    commands = [
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-q", "--yes", "--no-install-recommends", *PACKAGES],
    ]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    handle, name = tempfile.mkstemp(prefix="rayjobs-apt-", suffix=".log")
    with os.fdopen(handle, "w") as log, step("Installing Chromium with apt-get"):
        for command in commands:
            done = subprocess.run(
                command, env=env, stdout=log, stderr=subprocess.STDOUT, check=False, timeout=APT_TIMEOUT
            )
            if done.returncode:
                raise ToolError(f"`{' '.join(command)}` failed; from {name}:\n{tail(Path(name))}")
    Path(name).unlink()


def main(_arguments: list[str]) -> int:
    """Install Chromium unless it is found."""
    if not find():
        install()
    return 0


if __name__ == "__main__":
    run_main(main)

"""Downloads Debian packages once, and unpacks them into a folder of this repository, which needs no root."""

from __future__ import annotations

import fcntl
import subprocess
import tempfile
from pathlib import Path

_CACHE = Path(__file__).resolve().parents[2] / ".envs" / "debian"
_TIMEOUT = 300  # seconds, for one command


def folder(packages: tuple[str, ...]) -> Path:
    """Return the folder for the files of some packages, which may not exist yet.

    :param packages: their names, dependencies included; the first names the folder.
    """
    return _CACHE / packages[0]


def unpacked(packages: tuple[str, ...]) -> Path:
    """Return the folder with the files of some packages; download and unpack them if needed.

    :param packages: their names, dependencies included.
    :raises OSError: for example, if there is no apt.
    :raises subprocess.SubprocessError: if apt can't download them.
    """
    root = folder(packages)
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if root.exists():
            return root
        with tempfile.TemporaryDirectory(prefix="new", dir=_CACHE) as name:
            work = Path(name)
            for part in ("lists/partial", "archives/partial", "root"):
                (work / part).mkdir(parents=True)
            # Separate lists and archives: those of the system belong to root, and may be old or missing.
            own = ["-o", f"Dir::State::Lists={work / 'lists'}", "-o", f"Dir::Cache={work}", "-o", "APT::Sandbox::User="]
            for command in (["update", "-q"], ["download", "-q", *packages]):
                _run(["apt-get", *own, *command], work)
            for package in work.glob("*.deb"):
                _run(["dpkg", "-x", str(package), "root"], work)
            (work / "root").rename(root)
    return root


def _run(command: list[str], cwd: Path) -> None:
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise subprocess.SubprocessError(f"`{' '.join(command)}`: {done.stdout[-1000:]}")

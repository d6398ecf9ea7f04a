"""Creates the project's virtual environments below `.envs/`, from the pins in `requirements/`.

    python tools/envs.py airflow-3.3 ray-2.60    creates these, unless they are up to date
    python tools/envs.py --tools                 creates the one with uv and nox
    python tools/envs.py --lock [ray-2.60 ...]   updates the pins in requirements/*.txt to the newest releases

Only the standard library is used.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import check_python
import environment
from console import ToolError, run_main, step, tail

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
ENVS_DIR = ROOT / ".envs"
INSTALL_TIMEOUT = 900  # seconds, for one command


class Env(NamedTuple):
    """
    One environment.

    :param with_project: whether the project is installed, too.
    :param python_below: the first Python version that it does not support.
    :param compiled: whether modules are compiled at the installation.
    """

    with_project: bool = True
    python_below: tuple[int, int] | None = None
    compiled: bool = False


ENVS = {
    "airflow-3.3": Env(),
    # A Ray head starts a dozen processes that import the same modules, and gives up if one of them takes 15 s to
    # start. Compiled modules make the first start fast enough.
    "ray-2.60": Env(with_project=False, compiled=True),
    "docs": Env(with_project=False),
    "pyright": Env(with_project=False),
}

#: Builds a release, and tests its files.
DIST_ENVS = {"dist": Env(with_project=False)}

#: The installations that `benchmarks/` compares; compiled, as in production.
BENCH_ENVS = {
    "bench-airflow": Env(with_project=False, compiled=True),
    "bench-ours": Env(with_project=False, compiled=True),
    "bench-astro": Env(with_project=False, compiled=True),
    "bench-google": Env(with_project=False, compiled=True),
    "bench-sdk": Env(with_project=False, compiled=True),
}

#: The newest Airflow, and playwright, which controls a browser.
UI_ENVS = {"ui": Env()}

#: Airflows with a Kubernetes provider and etcd, for `make kube`: the newest of both, and the oldest.
KUBE_ENVS = {
    "kube-3.3": Env(),
    "kube-2.11": Env(python_below=(3, 13)),
}

#: An Airflow and a Ray that reach S3 and Google Cloud Storage, and servers with their APIs, for `make storage`.
STORAGE_ENVS = {
    "storage-3.3": Env(),
    "storage-ray": Env(with_project=False, compiled=True),
}

#: Airflows with the OpenLineage provider, for `make lineage`.
LINEAGE_ENVS = {
    "lineage-3.3": Env(),
    "lineage-2.11": Env(python_below=(3, 13)),
}

#: Airflows with a StatsD client, for `make observability`.
OBSERVABILITY_ENVS = {
    "observability-3.3": Env(),
    "observability-2.11": Env(python_below=(3, 13)),
}

#: A Ray with Serve, for `make serve`.
SERVE_ENVS = {"serve-ray": Env(with_project=False, compiled=True)}

#: Distributed Airflows, for `make field`.
FIELD_ENVS = {
    "field-3.3": Env(),
    "field-2.11": Env(python_below=(3, 13)),
}

#: Other supported versions, for `make matrix`, `make samples` and `make upgrade`.
MATRIX_ENVS = {
    "airflow-2.11": Env(python_below=(3, 13)),
    "airflow-3.0": Env(python_below=(3, 13)),
    "airflow-3.1": Env(),
    "airflow-3.2": Env(),
    "ray-2.8": Env(with_project=False, python_below=(3, 12), compiled=True),
    "ray-2.30": Env(with_project=False, python_below=(3, 13), compiled=True),
    "ray-2.40": Env(with_project=False, python_below=(3, 13), compiled=True),
    "ray-2.50": Env(with_project=False, python_below=(3, 14), compiled=True),
}

ALL_ENVS = ENVS | DIST_ENVS | BENCH_ENVS | UI_ENVS | KUBE_ENVS | STORAGE_ENVS | LINEAGE_ENVS | OBSERVABILITY_ENVS
ALL_ENVS |= SERVE_ENVS | FIELD_ENVS | MATRIX_ENVS


def ensure(*names: str) -> None:
    """Create the named environments, unless they are up to date.

    :param names: keys of `ALL_ENVS`.
    :raises ToolError: if this Python does not support one of them, or an installation fails.
    """
    check_this_python()
    for name in names:
        check_name(name)
    if all(is_fresh(name) for name in names):
        return
    ENVS_DIR.mkdir(exist_ok=True)
    with one_builder():
        for name in names:
            if not is_fresh(name):
                build(name)


def program(env: str, name: str) -> str:
    """Return the path of a program in an environment."""
    return str(ENVS_DIR / env / "bin" / name)


def check_this_python() -> None:
    """Raise a ToolError if this Python can't create the environments."""
    if problem := check_python.problem():
        raise ToolError(problem)


def check_name(name: str) -> None:
    """Raise a ToolError if an environment does not exist, or does not support this Python."""
    if name not in ALL_ENVS:
        raise ToolError(f"There is no environment {name!r}. The environments are {', '.join(ALL_ENVS)}.")
    below = ALL_ENVS[name].python_below
    if below and not can_be_made(name):
        newest = version((below[0], below[1] - 1))
        raise ToolError(
            f"The environment {name} needs Python {version(check_python.OLDEST)} to {newest}, "
            f"but this is {version(sys.version_info)} ({sys.executable}).\n"
            f"Choose another Python: make PYTHON=python{newest} <target>"
        )


def can_be_made(name: str) -> bool:
    """Tell whether an environment supports this Python."""
    below = ALL_ENVS[name].python_below
    return below is None or sys.version_info < below


def version(info: Sequence[object]) -> str:
    """Return the minor version, such as 3.11."""
    return f"{info[0]}.{info[1]}"


def requirements(name: str) -> Path:
    """Return the file that pins an environment."""
    return ROOT / "requirements" / f"{name}.txt"


def stamp(name: str) -> Path:
    """Return the file with the digest of the inputs of a finished environment."""
    return ENVS_DIR / f"{name}.stamp"


def digest(name: str) -> str:
    """Hash all inputs of an environment, including its path: its scripts contain absolute paths."""
    parts = [requirements(name).read_bytes(), sys.version.encode(), sys.base_prefix.encode(), bytes(ROOT)]
    if name in ALL_ENVS and ALL_ENVS[name].with_project:
        parts.append(installed_as())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def installed_as() -> bytes:
    """Return the parts of `pyproject.toml` that affect an installation; settings of tools don't."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    parts = [content["build-system"], content["project"], content["tool"]["hatch"]]
    return json.dumps(parts, sort_keys=True).encode()


def is_fresh(name: str) -> bool:
    """Tell whether an environment is complete and up to date."""
    path = stamp(name)
    return path.exists() and path.read_text() == digest(name) and Path(program(name, "python")).exists()


@contextmanager
def one_builder() -> Iterator[None]:
    """Let only one process build at a time. A second one waits, and then finds the environments up to date."""
    with (ENVS_DIR / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another process that is creating environments here.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(name: str) -> None:
    """Create an environment from scratch: leftovers of an older one could hide a missing pin."""
    uv = find_uv()
    stamp(name).unlink(missing_ok=True)
    log = ENVS_DIR / f"{name}.log"
    log.unlink(missing_ok=True)
    count = sum(line[:1].isalnum() for line in requirements(name).read_text().splitlines())
    with step(f"Installing {name} into .envs/{name} ({count} packages{'' if uv else ', with pip'})"):
        commands = uv_commands(uv, name) if uv else pip_commands(name)
        for command in commands:
            run(command, log)
    stamp(name).write_text(digest(name))


def uv_commands(uv: str, name: str) -> list[list[str]]:
    """Return the commands that create an environment with uv."""
    target = str(ENVS_DIR / name)
    install = [uv, "pip", "install", "--python", target, "--no-deps"]
    compiled = ["--compile-bytecode"] if ALL_ENVS[name].compiled else []
    commands = [
        [uv, "venv", "--clear", "--no-project", "--python", sys.executable, target],
        [*install, *compiled, "--requirement", str(requirements(name))],
    ]
    if ALL_ENVS[name].with_project:
        commands.append([*install, "--no-build-isolation", "--editable", str(ROOT)])
    return commands


def pip_commands(name: str) -> list[list[str]]:
    """Return the commands that create an environment without uv, which is much slower."""
    install = [program(name, "python"), "-m", "pip", "install", "--no-input", "--no-deps"]
    uncompiled = [] if ALL_ENVS[name].compiled else ["--no-compile"]
    commands = [
        [sys.executable, "-m", "venv", "--clear", str(ENVS_DIR / name)],
        [*install, *uncompiled, "--requirement", str(requirements(name))],
    ]
    if ALL_ENVS[name].with_project:
        commands.append([*install, "--no-build-isolation", "--editable", str(ROOT)])
    return commands


@cache  # so that a failure is not repeated for each environment
def find_uv() -> str | None:
    """Return uv, after installing it into its own environment if needed; None if it can't be installed."""
    uv = program("tools", "uv")
    if is_fresh("tools"):
        return uv if Path(uv).exists() else None
    log = ENVS_DIR / "tools.log"
    log.unlink(missing_ok=True)
    try:
        with step("Installing uv, which installs the rest, and nox into .envs/tools"):
            run([sys.executable, "-m", "venv", "--clear", str(ENVS_DIR / "tools")], log)
            pip = [program("tools", "python"), "-m", "pip", "install", "--no-input"]
            run([*pip, "--requirement", str(requirements("tools"))], log)
    except ToolError:
        print(f"uv can't be installed (see {log}). Using pip instead, which takes a few minutes.", flush=True)
        return None
    stamp("tools").write_text(digest("tools"))
    return uv


def run(command: list[str], log: Path) -> None:
    """Run one command of a build, and append its output to a log.

    :raises ToolError: if it fails; the message has the end of the log.
    """
    with log.open("a") as output:
        print("$", *command, file=output, flush=True)
        try:
            result = subprocess.run(
                command,
                check=False,
                env=environment.for_installers(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=INSTALL_TIMEOUT,
            )
        except subprocess.TimeoutExpired as error:
            raise ToolError(f"{command[0]} did not finish within {INSTALL_TIMEOUT} s; see {log}") from error
    if result.returncode:
        raise ToolError(f"{' '.join(command)}\nfailed with exit code {result.returncode}; from {log}:\n{tail(log)}")


def make_tools() -> None:
    """Create the environment with uv and nox.

    :raises ToolError: if it can't be installed.
    """
    check_this_python()
    ENVS_DIR.mkdir(exist_ok=True)
    with one_builder():
        needed_uv()


def needed_uv() -> str:
    """Return uv; raise a ToolError if it can't be installed."""
    uv = find_uv()
    if not uv:
        raise ToolError(f"This needs uv and nox, which can't be installed here; see {ENVS_DIR / 'tools.log'}.")
    return uv


def lock(*names: str) -> None:
    """
    Pin the newest allowed releases, for every supported Python and platform at once.

    :param names: keys of `ALL_ENVS`; by default all, and the tools.
    """
    check_this_python()
    ENVS_DIR.mkdir(exist_ok=True)
    with one_builder():
        uv = needed_uv()
        for name in names or ("tools", *ALL_ENVS):
            lock_one(uv, name)


def lock_one(uv: str, name: str) -> None:
    """Pin one environment. The paths are relative because uv writes them into the file."""
    source = f"requirements/{name}.in"
    inputs = ["pyproject.toml", source] if name in ALL_ENVS and ALL_ENVS[name].with_project else [source]
    log = ENVS_DIR / "lock.log"
    log.unlink(missing_ok=True)
    # The file names no registry, so that each user can have their own.
    options = ["--universal", "--python-version", version(check_python.OLDEST), "--upgrade", "--no-header"]
    options += ["--no-emit-index-url", "--no-emit-find-links", "--output-file", f"requirements/{name}.txt"]
    with step(f"Pinning requirements/{name}.txt"):
        run([uv, "pip", "compile", *options, *inputs], log)


def main(arguments: list[str]) -> int:
    """Run the command that the arguments ask for."""
    if arguments[:1] == ["--lock"]:
        lock(*arguments[1:])
    elif arguments == ["--tools"]:
        make_tools()
    else:
        ensure(*arguments or ENVS)
    return 0


if __name__ == "__main__":
    run_main(main)

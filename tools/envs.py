"""Make the project's virtual environments below `.envs/`, from the pins in `requirements/`.

    python tools/envs.py airflow-3.3 ray-2.60    make these (or see at once that they are up to date)
    python tools/envs.py --tools                 make the one that holds uv and nox
    python tools/envs.py --lock [ray-2.60 ...]   pin the newest releases anew in requirements/*.txt

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
    """One environment: what is special about it."""

    with_project: bool = True
    python_below: tuple[int, int] | None = None
    compiled: bool = False


ENVS = {
    "airflow-3.3": Env(),
    # A Ray head is a dozen processes that import the same modules at once, and it gives up when one of them takes
    # 15 s to start: with compiled modules they are quick the first time, too.
    "ray-2.60": Env(with_project=False, compiled=True),
    "docs": Env(with_project=False),
}

#: What builds a release, and tests its files.
DIST_ENVS = {"dist": Env(with_project=False)}

#: What `benchmarks/` compares; compiled, as installations in production are.
BENCH_ENVS = {
    "bench-airflow": Env(with_project=False, compiled=True),
    "bench-ours": Env(with_project=False, compiled=True),
    "bench-astro": Env(with_project=False, compiled=True),
    "bench-google": Env(with_project=False, compiled=True),
    "bench-sdk": Env(with_project=False, compiled=True),
}

#: The newest Airflow, and what drives a browser.
UI_ENVS = {"ui": Env()}

#: Distributed Airflows, for `make field`.
FIELD_ENVS = {
    "field-3.3": Env(),
    "field-2.11": Env(python_below=(3, 13)),
}

#: Other versions that are supported: what `make matrix`, `make samples` and `make upgrade` use besides.
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

ALL_ENVS = ENVS | DIST_ENVS | BENCH_ENVS | UI_ENVS | FIELD_ENVS | MATRIX_ENVS


def ensure(*names: str) -> None:
    """Make the named environments, unless they are up to date.

    :param names: keys of `ALL_ENVS`.
    :raises ToolError: where Python or the network does not allow it.
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
    """Stop with a remedy where this Python cannot make the environments."""
    if problem := check_python.problem():
        raise ToolError(problem)


def check_name(name: str) -> None:
    """Stop where an environment does not exist, or not for this Python."""
    if name not in ALL_ENVS:
        raise ToolError(f"There is no environment {name!r}; there are {', '.join(ALL_ENVS)}.")
    below = ALL_ENVS[name].python_below
    if below and not can_be_made(name):
        newest = version((below[0], below[1] - 1))
        raise ToolError(
            f"The environment {name} needs Python {version(check_python.OLDEST)} to {newest}, "
            f"and this is {version(sys.version_info)} ({sys.executable}).\n"
            f"Name another: make PYTHON=python{newest} <target>"
        )


def can_be_made(name: str) -> bool:
    """Tell whether an environment exists for this Python."""
    below = ALL_ENVS[name].python_below
    return below is None or sys.version_info < below


def version(info: Sequence[object]) -> str:
    """Return the version as people write it, such as 3.11."""
    return f"{info[0]}.{info[1]}"


def requirements(name: str) -> Path:
    """Return the file that pins an environment."""
    return ROOT / "requirements" / f"{name}.txt"


def stamp(name: str) -> Path:
    """Return the file that holds the digest of what a finished environment was made from."""
    return ENVS_DIR / f"{name}.stamp"


def digest(name: str) -> str:
    """Hash all that an environment is made from; its scripts hold absolute paths, so the place counts too."""
    parts = [requirements(name).read_bytes(), sys.version.encode(), sys.base_prefix.encode(), bytes(ROOT)]
    if name in ALL_ENVS and ALL_ENVS[name].with_project:
        parts.append(installed_as())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def installed_as() -> bytes:
    """Return what of `pyproject.toml` shows in an installation; settings of tools, for one, do not."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    parts = [content["build-system"], content["project"], content["tool"]["hatch"]]
    return json.dumps(parts, sort_keys=True).encode()


def is_fresh(name: str) -> bool:
    """Tell whether an environment was finished, from the files as they are now."""
    path = stamp(name)
    return path.exists() and path.read_text() == digest(name) and Path(program(name, "python")).exists()


@contextmanager
def one_builder() -> Iterator[None]:
    """Let one process at a time build; a second one waits, and then finds the work done."""
    with (ENVS_DIR / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another process makes environments here; waiting for it.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(name: str) -> None:
    """Make an environment from nothing: leftovers of an older one could hide a missing pin."""
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
    """Return the commands that make an environment with uv."""
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
    """Return the commands that make an environment without uv; slower by far."""
    install = [program(name, "python"), "-m", "pip", "install", "--no-input", "--no-deps"]
    uncompiled = [] if ALL_ENVS[name].compiled else ["--no-compile"]
    commands = [
        [sys.executable, "-m", "venv", "--clear", str(ENVS_DIR / name)],
        [*install, *uncompiled, "--requirement", str(requirements(name))],
    ]
    if ALL_ENVS[name].with_project:
        commands.append([*install, "--no-build-isolation", "--editable", str(ROOT)])
    return commands


@cache  # a failure is not tried again for each environment
def find_uv() -> str | None:
    """Return uv from a small environment of its own, made at need; None where it cannot be had."""
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
        print(f"uv cannot be had here (see {log}); going on with pip, which takes some minutes.", flush=True)
        return None
    stamp("tools").write_text(digest("tools"))
    return uv


def run(command: list[str], log: Path) -> None:
    """Run one command of a build, its output in a log.

    :raises ToolError: with the end of the log.
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
            raise ToolError(f"{command[0]} did not end within {INSTALL_TIMEOUT} s; see {log}") from error
    if result.returncode:
        raise ToolError(f"{' '.join(command)}\nended with exit code {result.returncode}; from {log}:\n{tail(log)}")


def make_tools() -> None:
    """Make the environment that holds uv and nox.

    :raises ToolError: where it can't be had.
    """
    check_this_python()
    ENVS_DIR.mkdir(exist_ok=True)
    with one_builder():
        needed_uv()


def needed_uv() -> str:
    """Return uv, for what can't do without."""
    uv = find_uv()
    if not uv:
        raise ToolError(f"This needs uv and nox, which can't be installed here; see {ENVS_DIR / 'tools.log'}.")
    return uv


def lock(*names: str) -> None:
    """
    Pin the newest allowed releases, for every supported Python and platform at once.

    :param names: keys of `ALL_ENVS`; default: all, and the tools.
    """
    check_this_python()
    ENVS_DIR.mkdir(exist_ok=True)
    with one_builder():
        uv = needed_uv()
        for name in names or ("tools", *ALL_ENVS):
            lock_one(uv, name)


def lock_one(uv: str, name: str) -> None:
    """Pin one environment; the paths are relative, for they are written into the file."""
    source = f"requirements/{name}.in"
    inputs = ["pyproject.toml", source] if name in ALL_ENVS and ALL_ENVS[name].with_project else [source]
    log = ENVS_DIR / "lock.log"
    log.unlink(missing_ok=True)
    # Registries are everybody's own business: none is named in the file.
    options = ["--universal", "--python-version", version(check_python.OLDEST), "--upgrade", "--no-header"]
    options += ["--no-emit-index-url", "--no-emit-find-links", "--output-file", f"requirements/{name}.txt"]
    with step(f"Pinning requirements/{name}.txt"):
        run([uv, "pip", "compile", *options, *inputs], log)


def main(arguments: list[str]) -> int:
    """Do what the module's docstring says."""
    if arguments[:1] == ["--lock"]:
        lock(*arguments[1:])
    elif arguments == ["--tools"]:
        make_tools()
    else:
        ensure(*arguments or ENVS)
    return 0


if __name__ == "__main__":
    run_main(main)

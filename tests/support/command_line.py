"""Runs the commands of the provider as processes, like a user or a script."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support.forked_command import ForkedCommand

if TYPE_CHECKING:
    from typing import TypeAlias

    from tests.support.ray_head import RayHead

    Command: TypeAlias = subprocess.Popen[str] | ForkedCommand

MODULE = (sys.executable, "-m", "airflow_provider_rayjobs")
ROOT = Path(__file__).parent.parent.parent

#: Without a key, Airflow logs a warning for each password that it reads.
FERNET_KEY = base64.urlsafe_b64encode(b"k" * 32).decode()

_AIRFLOWS_OWN = ("[alembic.runtime.plugins]", "airflow/providers/common/compat/_compat_utils.py:")


class Done(NamedTuple):
    """The result of a command."""

    code: int
    out: str
    err: str


#: Runs a command with these arguments to its end.
Run = Callable[..., Done]


def environment(where: RayHead | str, **more: str) -> dict[str, str]:
    """Return the environment of a command, with the connection ``ray_x`` to a head or a URL."""
    connection = {"conn_type": "ray_jobs", "host": where} if isinstance(where, str) else where.connection()
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    own = {"AIRFLOW_CONN_RAY_X": json.dumps(connection), "AIRFLOW__CORE__FERNET_KEY": FERNET_KEY, "PYTHONPATH": path}
    return {**os.environ, **own, **more}


def arguments(verb: str, *args: str) -> list[str]:
    """Return the arguments of a command on the connection ``ray_x``."""
    return [verb, "--conn-id", "ray_x", *args]


def start(
    where: RayHead | str, verb: str, *args: str, program: tuple[str, ...] | None = None, **options: Any
) -> Command:
    """Start a command; its output is piped unless ``options`` say otherwise.

    :param program: the program, such as ``MODULE``; by default the command runs in a fork, which is much cheaper.
    """
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment(where), **options}
    if program is None:
        return ForkedCommand(arguments(verb, *args), **options)
    # If a shell runs pytest in the background, pytest ignores SIGINT, and children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen([*program, *arguments(verb, *args)], text=True, stdin=subprocess.DEVNULL, **options)


def finish(process: Command, timeout: float = 120.0) -> Done:
    """Wait for a command's end."""
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return Done(process.returncode, out or "", "".join(map(_without_airflows_own, (err or "").splitlines(True))))


def _without_airflows_own(line: str) -> str:
    """Drop lines on stderr that come from Airflow 3.1 and 3.2 themselves or from their providers."""
    return "" if any(text in line for text in _AIRFLOWS_OWN) else line


def call(where: RayHead | str, verb: str, *args: str, program: tuple[str, ...] | None = None) -> Done:
    """Run a command to its end."""
    return finish(start(where, verb, *args, program=program))

"""Runs tries of tasks, each in a separate process that can be killed: ``python -m tests.faults.server``.

Importing Airflow takes seconds, so this process does it once, and forks for each request. It has only one thread,
because a fork does not copy other threads.

It reads one JSON object per line from stdin, ``{"id", "op", "log", "env", ...}``, and answers on stdout with
``{"id", "pid"}`` when the process runs, and with ``{"id", "pid", "status"}`` (of ``waitpid``) when it has ended. The
process writes its output to the file ``log``.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any

from tests.support.airflow_processes import airflow_version

if TYPE_CHECKING:
    from collections.abc import Callable

TICK = 0.02


def _child(request: dict[str, Any], run: Callable[[dict[str, Any]], None]) -> None:
    """Run a request in this forked process; never returns."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        # Line buffered, so that the output of a killed process is complete, and signal handlers can log.
        sys.stdout = sys.stderr = open(log, "w", buffering=1, closefd=False)  # noqa: SIM115
        os.environ.update(request["env"])
        run(request)
        code = 0
    except BaseException:  # noqa: BLE001 - the parent's code must not run in this process
        traceback.print_exc()
    finally:
        os._exit(code)


def _say(answers: int, **message: Any) -> None:
    os.write(answers, json.dumps(message).encode() + b"\n")


def main() -> None:
    """Serve until stdin is closed."""
    # Airflow's output must not be mixed with the answers.
    answers = os.dup(1)
    os.dup2(2, 1)
    tries = importlib.import_module("tests.faults.tries_3" if airflow_version() >= (3, 0) else "tests.faults.tries_2")
    tries.prepare()
    gc.collect()
    gc.freeze()  # or the first collection in each child would copy all of the parent's memory
    _say(answers, ready=True)
    running: dict[int, int] = {}
    pending = b""
    while True:
        for pid, number in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del running[pid]
                _say(answers, id=number, pid=pid, status=status)
        if not select.select([0], [], [], TICK)[0]:
            continue
        piece = os.read(0, 65536)
        if not piece:
            break
        *lines, pending = (pending + piece).split(b"\n")
        for line in lines:
            request = json.loads(line)
            pid = os.fork()
            if pid == 0:
                os.close(answers)
                _child(request, tries.run)
            running[pid] = request["id"]
            _say(answers, id=request["id"], pid=pid)
    for pid in running:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()

"""Runs commands of the provider in forks of this process, because an import of Airflow takes over a second of CPU.

Stdin is a socket. Each message has the arguments, the environment and the working directory of a command. It also
passes the command's stdin, stdout and stderr, and a socket that receives two answers: the pid, and the exit code after
the end. When the other end of stdin is closed, the commands that still run are killed.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys

# Imported by the commands, directly or indirectly.
import airflow.models
import requests  # noqa: F401

from airflow_provider_rayjobs import __main__


def serve() -> list[str]:
    """Fork for each message. Returns only in the forks, with the arguments of the command."""
    control = socket.socket(fileno=0)
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for ready in select.select([control, *running], [], [])[0]:
            if ready is not control:
                pid, answers = running.pop(ready)
                os.close(ready)
                _answer(answers, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                answers.close()
                continue
            message, fds, _, _ = socket.recv_fds(control, 1 << 20, 4)
            if not message:
                for pid, _ in running.values():
                    os.kill(pid, signal.SIGKILL)
                os._exit(0)
            pid = os.fork()
            answers = socket.socket(fileno=fds.pop())
            if pid:
                _answer(answers, pid)
                running[os.pidfd_open(pid)] = pid, answers
                for fd in fds:
                    os.close(fd)
                continue
            for _, others in running.values():
                others.close()
            answers.close()
            control.detach()
            return _become(*json.loads(message), fds)


def _answer(answers: socket.socket, number: int) -> None:
    with contextlib.suppress(ConnectionError):  # the test no longer waits for it
        answers.send(str(number).encode())


def _become(arguments: list[str], environ: dict[str, str], folder: str, fds: list[int]) -> list[str]:
    """Make this process equal to a new one of ``python -m``."""
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.path[0] = folder
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return arguments


if __name__ == "__main__":
    # Ctrl-C is for pytest; this process ends when pytest does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    airflow.models.import_all_models()
    gc.freeze()  # a collection in a fork would copy all memory
    sys.argv = [__main__.__file__, *serve()]
    __main__.main()

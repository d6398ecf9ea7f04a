"""Runs a function as Airflow 3.3 runs a task: it logs to its supervisor, which writes the task log's file."""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def run_logged(work: Callable[[Any], None], path: Path) -> dict[str, float]:
    """
    Run a function in a child process, and write what it logs into a file, until it has ended.

    :param work: called with the logger of a task.
    :param path: the task log's file.
    :return: time at which the file was complete (``complete``, Unix seconds), CPU seconds of both processes
        (``reader_cpu_s``, ``supervisor_cpu_s``), and how much the child's memory grew (``memory_mb``).
    """
    import structlog
    from airflow.sdk.execution_time import supervisor
    from airflow.sdk.log import logging_processors

    ours, of_task = socket.socketpair()
    sizes, of_size = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ours.close()
            supervisor._configure_logs_over_json_channel(of_task.detach())
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            work(structlog.get_logger("task"))
            os.write(of_size, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before).encode())
            code = 0
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
        finally:
            os._exit(code)
    of_task.close()
    os.close(of_size)
    began = time.process_time()
    with path.open("ab") as file:
        logger = structlog.wrap_logger(
            structlog.BytesLogger(file), processors=logging_processors(json_output=True), logger_name="task"
        ).bind()
        read, _ = supervisor.make_buffered_socket_reader(
            supervisor.process_log_messages_from_subprocess((logger,)), on_close=lambda _: None
        )
        while read(ours):
            pass
    complete, cpu = time.time(), time.process_time() - began
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit("the reader of the log failed")
    return {
        "complete": complete,
        "reader_cpu_s": usage.ru_utime + usage.ru_stime,
        "supervisor_cpu_s": cpu,
        "memory_mb": int(os.read(sizes, 100)) / 1024,
    }


def content(path: Path) -> tuple[int, int]:
    """Return the number of characters of the lines in a task log's file, line ends included, and of its records."""
    import json

    characters = records = 0
    with path.open() as file:
        for line in file:
            characters += len(json.loads(line)["event"]) + 1
            records += 1
    return characters, records

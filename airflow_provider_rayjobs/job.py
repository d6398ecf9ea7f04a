"""
What the code of a Ray job can tell its task: a value, and its progress.

This module travels with the job: with a function of ``@task.ray_job``, and with a command if its operator has
``read_result=True``. Nothing needs to be installed on the cluster. Where the code runs without a task, such as on your
own machine with this provider installed, both functions only check what they are given.

This module is shipped to the cluster: it needs the standard library only, of Python 3.9 or newer.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.functions.shipped import values
from airflow_provider_rayjobs.functions.shipped.result_file import (
    CONFIG_VARIABLE,
    TASK_FILE,
    job_log,
    result_beside,
    store_for,
    write_record,
)
from airflow_provider_rayjobs.progress import progress, reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["progress", "report_result"]

_LOCK = threading.Lock()

#: Deletes the large result that this process has reported last.
_remove_last: Callable[[], None] | None = None


def report_result(value: Any) -> None:
    """
    Report the value that the job's task returns. The last report counts, also if the job fails after it, and whichever
    process of the job makes it.

    Call it in the process of the job's entrypoint, or in one that this has started. In a shell, write
    ``python -m airflow_provider_rayjobs.job report_result '{"rows": 3}'``. Example::

        from airflow_provider_rayjobs.job import report_result

        report_result({"accuracy": 0.93, "model": "s3://models/7"})

    :param value: a value that has a JSON form, see :mod:`~airflow_provider_rayjobs.functions.shipped.values`.
    :raises TypeError: a part of the value has no JSON form; the message names that part.
    :raises ValueError: the value is too large.
    :raises RuntimeError: it was called in a Ray task or actor, or in a function of ``@task.ray_job``; or a large value
        can't be stored in ``result_path``.
    """
    text = values.dumps(value, "the result")
    task = _task()
    if task is None:
        return
    if _is_function(task):
        raise RuntimeError("report_result: the result of a @task.ray_job function is the value that it returns")
    if CONFIG_VARIABLE not in os.environ:
        raise RuntimeError(
            "report_result: call it in the process of the job's entrypoint, not in a Ray task or actor; return the "
            "value to that process"
        )
    with _LOCK:
        _write(text, task)


def _write(text: str, task: dict[str, Any]) -> None:
    global _remove_last  # noqa: PLW0603 - one job, one result
    output = result_beside(job_log())
    remove = None
    if len(text) <= task["limit"]:
        write_record(output, "value", text)
    else:
        store = store_for(task["result_path"], output, "report_result: the value")
        if store is None:
            raise ValueError(
                f"report_result: the value has {len(text):,} bytes as JSON, and Ray returns at most {task['limit']:,}; "
                "give the operator a result_path, a URL that the cluster and the Airflow workers can reach, or report "
                "less"
            )
        key, remove = store(text)
        write_record(output, "stored", "", of=text, key=key)
    if _remove_last is not None:  # not before: until now the task would have returned that one
        with contextlib.suppress(Exception):  # the storage may not allow it
            _remove_last()
    _remove_last = remove


def _task() -> dict[str, Any] | None:
    """Return what the task has sent with this module; None if it was not sent by a task."""
    file = Path(__file__).resolve().parents[1] / TASK_FILE
    if not file.is_file():
        return None
    task: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return task


def _is_function(task: dict[str, Any]) -> bool:
    return "source" in task


def _start_progress() -> None:
    """Have progress written to the job's log; for a function, its driver does that."""
    task = _task()
    if task is None or _is_function(task) or CONFIG_VARIABLE not in os.environ:
        return
    try:
        log = job_log()
    except RuntimeError:  # not in a job, so there is no log to write to
        return

    def write(text: str) -> None:
        sys.stdout.flush()
        with log.open("a", encoding="utf-8") as file:
            file.write(text)

    reporter().start(write)
    atexit.register(reporter().flush)


def main(arguments: Sequence[str] | None = None) -> None:
    """Report a result from a shell."""
    parser = argparse.ArgumentParser(prog="python -m airflow_provider_rayjobs.job", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser("report_result", help="report the value that the job's task returns")
    report.add_argument("value", nargs="?", help="the value as JSON; by default, the standard input has it")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if len(words) == 2 and words[0] == "report_result" and words[1][1:2].isdigit():
        words.insert(1, "--")  # a negative number is no option
    given = parser.parse_args(words).value
    try:
        value = json.loads(sys.stdin.buffer.read() if given is None else given)
    except (RecursionError, ValueError) as e:
        report.error(f"the value is not valid JSON: {e}")
    try:
        report_result(value)
    except (RuntimeError, TypeError, ValueError) as e:
        report.error(str(e))


_start_progress()

if __name__ == "__main__":
    main()

"""Output of the commands of ``cli``: results on stdout, messages on stderr, each error as one line and an exit code."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_rayjobs.compat.connections import stored_connection
from airflow_provider_rayjobs.exceptions import (
    RayClusterUnreachableError,
    RayConnectionConfigError,
    RayJobLostError,
    RayJobNotFoundError,
    RayJobsError,
    RayPackageError,
)
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.packaging.spool import upload_progress

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable, Iterator
    from typing import TextIO

#: Exit codes; the help of each command explains them.
ERROR = 1
USAGE = 2
UNREACHABLE = 3
NOT_FOUND = 4
INTERRUPTED = 130
BROKEN_PIPE = 141

#: The exit code of each class of errors; the first class that an error belongs to counts.
_EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (RayClusterUnreachableError, UNREACHABLE),
    (RayJobNotFoundError, NOT_FOUND),
    (RayJobLostError, NOT_FOUND),
    (RayConnectionConfigError, USAGE),
    (RayPackageError, USAGE),
    (RayJobsError, ERROR),
    (OSError, ERROR),  # from writing to stdout, for instance to a full disk
    (AirflowNotFoundException, USAGE),
    (ValueError, USAGE),
    (TypeError, USAGE),
)

#: The package's logger, which writes to stderr while a command runs.
log = logging.getLogger(__name__.partition(".")[0])


class CommandLineHook(RayJobHook):
    """
    A hook for use outside of tasks, which reads connections as Airflow's own commands do.

    :param create: whether a cluster may be created, if the connection asks for it.
    """

    def __init__(self, ray_conn_id: str, *, create: bool) -> None:
        super().__init__(ray_conn_id)
        self._create_cluster = create

    @classmethod
    def get_connection(cls, conn_id: str) -> Any:
        """Return the connection."""
        return stored_connection(conn_id)


def command(function: Callable[[RayJobHook, Namespace, TextIO], int | None]) -> Callable[[Namespace], None]:
    """
    Turn a function into a command that Airflow's parser can call.

    :param function: takes a hook, the arguments and stdout, and returns the exit code; None means 0.
    """

    @functools.wraps(function)
    def run(args: Namespace) -> None:
        create = "command" in args  # only `submit` has it: no other command may create a cluster
        with contextlib.closing(CommandLineHook(args.conn_id, create=create)) as hook:
            _run(lambda out: function(hook, args, out))

    return run


def offline_command(function: Callable[[Namespace, TextIO], int | None]) -> Callable[[Namespace], None]:
    """
    Turn a function that needs no cluster into a command that Airflow's parser can call.

    :param function: takes the arguments and stdout, and returns the exit code; None means 0.
    """

    @functools.wraps(function)
    def run(args: Namespace) -> None:
        _run(lambda out: function(args, out))

    return run


def _run(function: Callable[[TextIO], int | None]) -> None:
    """Run a command, and exit with its exit code if that is not 0."""
    with _logging_to_stderr(), _reserved_stdout() as out:
        try:
            code = function(out)
            out.flush()
        except KeyboardInterrupt:
            log.error("Interrupted")
            code = INTERRUPTED
        except BrokenPipeError:
            code = BROKEN_PIPE
        except tuple(kind for kind, _ in _EXIT_CODES) as e:
            log.error("%s", " ".join(str(e).split()))
            code = next(code for kind, code in _EXIT_CODES if isinstance(e, kind))
    if code:
        sys.exit(code)


def command_line(verb: str, args: Namespace, submission_id: str) -> str:
    """Return the command line that runs another command for the same job."""
    own = Path(sys.argv[0]).parent.name == log.name
    program = f"python -m {log.name}" if own else "airflow ray-jobs"
    conn_id = "" if args.conn_id == RayJobHook.default_conn_name else f" --conn-id {args.conn_id}"
    return f"{program} {verb} {submission_id}{conn_id}"


@contextlib.contextmanager
def _reserved_stdout() -> Iterator[TextIO]:
    """
    Reserve stdout for the command's results. All other output to stdout goes to stderr.

    This works on file descriptors, because Airflow's log handlers differ between versions and mostly write to stdout.
    """
    sys.stdout.flush()
    results_fd = os.dup(1)
    os.dup2(2, 1)
    # A job may print characters that the terminal's encoding does not have.
    out = os.fdopen(results_fd, "w", encoding=sys.stdout.encoding, errors="backslashreplace")
    try:
        yield out
    finally:
        sys.stdout.flush()
        os.dup2(results_fd, 1)
        with contextlib.suppress(OSError):
            out.close()


@contextlib.contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Write the package's log messages to stderr, as plain lines."""
    handler = logging.StreamHandler()
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before


@contextlib.contextmanager
def upload_bar() -> Iterator[None]:
    """Show a progress bar for uploads if stderr is a terminal; otherwise the progress is logged."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = TextColumn("Uploading {task.description}", markup=False), BarColumn(), DownloadColumn()
    bar = Progress(*columns, TransferSpeedColumn(), console=Console(stderr=True), redirect_stdout=False, transient=True)
    tasks: dict[str, Any] = {}

    def show(source: str, sent: int, size: int) -> None:
        if source not in tasks:
            bar.start()
            tasks[source] = bar.add_task(source, total=size)
        bar.update(tasks[source], completed=sent)

    token = upload_progress.set(show)
    try:
        yield
    finally:
        upload_progress.reset(token)
        bar.stop()


def print_lines(lines: Iterable[str], out: TextIO) -> None:
    """Print lines of text."""
    out.writelines(f"{line}\n" for line in lines)


def width_of(out: TextIO) -> int | None:
    """Return the width of the terminal to which the results go, in characters; None if they go elsewhere."""
    return (os.get_terminal_size(out.fileno()).columns or None) if out.isatty() else None

# mypy: disable-error-code="no-untyped-call"
"""
Definitions of the commands of ``airflow ray-jobs`` and their arguments, for Airflow's own parser.

Airflow 3.2 and later load this module at each start of ``airflow``, for any command. So the code of a command is
imported only when it runs. ``python -m airflow_provider_rayjobs`` has the same commands on every Airflow version.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.cli.cli_config import ActionCommand, Arg, DefaultHelpParser, GroupCommand, lazy_load_command

if TYPE_CHECKING:
    from collections.abc import Callable

#: The values of ``jobs.JobStatus``, repeated here so that a start of ``airflow`` need not import it.
STATUSES = ("PENDING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED")

EXIT_CODES = """\
Exit codes:
    0  success; a job that was followed has SUCCEEDED
    1  the job ended FAILED or STOPPED, or the request failed
    2  an argument or the connection is invalid; nothing was sent
    3  the cluster can't be reached
    4  job not found
  130  interrupted by Ctrl-C; a submitted job keeps running
  141  the output was closed, as by `head`; a followed job keeps running
"""


MIGRATE_EXIT_CODES = """\
Exit codes:
    0  nothing is left to do by hand, except to check what is listed
    1  something is left to do by hand, or a file can't be read or written
    2  an argument is invalid
"""


class CommandParser(DefaultHelpParser):
    """Answers wrong usage with the help of the command that was called, on stderr."""

    def error(self, message: str) -> NoReturn:
        """Show the help and the error, and exit."""
        with contextlib.redirect_stdout(sys.stderr):  # rich looks at stdout to decide about colours
            self.print_help()
        self.exit(2, f"\n{self.prog}: error: {message}\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments; unknown ones are an error here, because the parser above would show its own help."""
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return namespace, unknown


class _Arg(Arg):
    """An argument that makes its command's parser a :class:`CommandParser`: ``airflow`` creates it as its own."""

    def add_to_parser(self, parser: argparse.ArgumentParser) -> None:
        """Add this argument to a parser."""
        parser.__class__ = CommandParser
        parser.allow_abbrev = False  # in `stop --no X`, X would be stopped with --no-wait
        super().add_to_parser(parser)


def _json_object(text: str) -> dict[str, Any]:
    """Parse the value of an option that must be a JSON object."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        # The text itself is not shown: it may hold a secret.
        raise argparse.ArgumentTypeError('must be a JSON object, such as {"name": "value"}')
    return value


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer of at least 0, not {text!r}")
    return int(text)


def _span(text: str) -> float:
    """Parse a duration such as ``90m``, ``12h`` or ``7d``; return seconds."""
    if not (match := re.fullmatch(r"([0-9]{1,6})([mhd])", text)):
        raise argparse.ArgumentTypeError(
            f"must be a number of minutes, hours or days, such as 90m, 12h or 7d, not {text!r}"
        )
    return float(match[1]) * {"m": 60, "h": 3600, "d": 86400}[match[2]]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text!r}")
    return int(text)


ARG_CONN_ID = _Arg(
    ("--conn-id",),
    help="Airflow connection of type ray_jobs\n(default: ray_default)",
    default="ray_default",
)
ARG_JOB = Arg(("submission_id",), help="The job's submission id", metavar="SUBMISSION_ID")
ARG_FOLLOW = Arg(
    ("-f", "--follow"),
    help="Print the job's log until the job ends; the exit code\ntells its outcome. Ctrl-C leaves the job running",
    action="store_true",
)


def _output(help: str) -> Arg:  # noqa: A002 - as argparse calls it
    choices = ("table", "plain", "json", "yaml")
    return Arg(("-o", "--output"), help=help, choices=choices, default="table", metavar="FORMAT")


def _json_option(name: str, help: str) -> Arg:  # noqa: A002 - as argparse calls it
    return Arg((name,), help=f"JSON object: {help}", type=_json_object, metavar="JSON")


_SUBMIT = (
    Arg(
        ("command",),
        help="The command to run on the cluster, after --. Several\n"
        "words are a program and its arguments. One quoted word\n"
        "is a command line for the cluster's shell",
        nargs="+",
        metavar="COMMAND",
    ),
    ARG_CONN_ID,
    ARG_FOLLOW,
    Arg(("--submission-id",), help="Id of the job (default: random)", metavar="ID"),
    Arg(
        ("--working-dir",),
        help="Local folder or archive, or URI of an archive, in which\n"
        "the command runs; takes precedence over the working_dir\n"
        "of the runtime_env",
        metavar="PATH",
    ),
    Arg(("--runtime-env",), help="YAML or JSON file with Ray's runtime_env", metavar="FILE"),
    _json_option("--runtime-env-json", "Ray's runtime_env; put no secrets\nhere, because ps shows them"),
    _json_option("--metadata-json", "strings that Ray stores with the job"),
    Arg(("--entrypoint-num-cpus",), help="CPU cores to reserve for the command", type=float, metavar="N"),
    Arg(("--entrypoint-num-gpus",), help="GPUs to reserve for the command", type=float, metavar="N"),
    Arg(("--entrypoint-memory",), help="Memory to reserve for the command, in bytes", type=int, metavar="BYTES"),
    _json_option("--entrypoint-resources", "custom resources to reserve for the\ncommand, with their amounts"),
    _json_option("--entrypoint-label-selector", "labels that the command's node must\nhave"),
)

_LIST = (
    ARG_CONN_ID,
    _output(
        "table (default): two lines per job, for people;\n"
        "plain: one line per job, for grep and awk;\n"
        "json or yaml: for programs"
    ),
    Arg(
        ("--status",),
        help=f"Only jobs with this status; may be repeated\n({', '.join(STATUSES)})",
        type=str.upper,
        choices=STATUSES,
        action="append",
        metavar="STATUS",
    ),
    Arg(("--dag-id",), help="Only jobs of this DAG"),
    Arg(("--run-id",), help="Only jobs of this DAG run"),
    Arg(("--task-id",), help="Only jobs of this task"),
    Arg(("--limit",), help="At most N jobs, the newest", type=_positive, metavar="N"),
)

_STATUS = (
    ARG_JOB,
    ARG_CONN_ID,
    _output("table (default) or plain: for people;\njson or yaml: for programs"),
    Arg(
        ("-w", "--watch"),
        help="Print a line at each change of the status until the job\n"
        "ends; the exit code tells its outcome. Ctrl-C leaves the\n"
        "job running",
        action="store_true",
    ),
)

_MIGRATE = (
    _Arg(("files",), help="Python files with DAGs", nargs="+", metavar="FILE"),
    Arg(("--write",), help="Write the changed files", action="store_true"),
)

_PRUNE = (
    ARG_CONN_ID,
    Arg(
        ("--older-than",),
        help="Only jobs that ended at least this long ago: 90m, 12h, 7d\n(default: 7d; at least 1h)",
        type=_span,
        default=7 * 86400.0,
        metavar="TIME",
    ),
    Arg(("--keep",), help="Keep the newest N records, whatever their age", type=_natural, default=0, metavar="N"),
    Arg(
        ("--status",),
        help=f"Only jobs with this status; may be repeated\n({', '.join(STATUSES[2:])})",
        type=str.upper,
        choices=STATUSES[2:],
        action="append",
        metavar="STATUS",
    ),
    Arg(("--all",), help="Also jobs that this Airflow did not submit", action="store_true"),
    Arg(("--dry-run",), help="Delete nothing; print the jobs that would go", action="store_true"),
)

_STOP = (
    ARG_JOB,
    ARG_CONN_ID,
    Arg(("--no-wait",), help="Ask Ray to stop the job, and return at once", action="store_true"),
)


def _command(
    name: str, function: str, description: str, *args: Arg, exit_codes: str = EXIT_CODES, module: str = "commands"
) -> ActionCommand:
    func: Callable[..., Any] = lazy_load_command(f"airflow_provider_rayjobs.cli.{module}.{function}")
    help, _, _ = description.partition(".")  # noqa: A001 - as argparse calls it
    return ActionCommand(name=name, help=help, description=description, func=func, args=args, epilog=exit_codes)


def get_ray_jobs_cli_commands() -> list[GroupCommand]:
    """Return the commands. The provider's info names this function, so Airflow calls it."""
    commands = (
        _command(
            "submit",
            "submit_job",
            "Submit a job. Prints its submission id, or with --follow its log until it ends.\n"
            "Example: submit --working-dir . --follow -- python train.py --epochs 3",
            *_SUBMIT,
        ),
        _command("list", "list_jobs", "List the submitted jobs of a cluster. The newest are first.", *_LIST),
        _command(
            "status",
            "show_job",
            "Show the details of a job. The values of its environment variables are not\nshown.",
            *_STATUS,
        ),
        _command("logs", "show_log", "Print the log of a job.", ARG_JOB, ARG_CONN_ID, ARG_FOLLOW),
        _command(
            "stop",
            "stop_job",
            "Stop a job. Waits until it has ended, and prints its last status. A job that\n"
            "has already ended is not changed.",
            *_STOP,
        ),
        _command(
            "delete",
            "delete_job",
            "Delete the record of a job that has ended. Ray deletes its log, too.",
            *(ARG_JOB, ARG_CONN_ID),
        ),
        _command(
            "prune",
            "prune_jobs",
            "Delete the records of jobs that ended long ago. Only jobs that tasks of this\n"
            "Airflow submitted, and at a slow pace, so that the head has time for others.",
            *_PRUNE,
            module="prune",
        ),
        _command(
            "migrate",
            "migrate_files",
            "Rewrite DAG files of astro-provider-ray. Prints what would change, and writes\n"
            "only with --write. What needs a person is listed with its line. No file is\n"
            "executed.",
            *_MIGRATE,
            exit_codes=MIGRATE_EXIT_CODES,
            module="migrate",
        ),
    )
    return [GroupCommand(name="ray-jobs", help="Submit and manage jobs on Ray clusters", subcommands=commands)]

# mypy: disable-error-code="no-untyped-call"
"""
What ``airflow ray-jobs`` is made of: its commands and their arguments, as Airflow's own parser takes them.

Airflow 3.2 and later ask for them at each start of ``airflow``, whatever the command; so what a command does is
imported when it is called. ``python -m airflow_provider_rayjobs`` has the same commands on every Airflow version.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from airflow.cli.cli_config import ARG_OUTPUT, ActionCommand, Arg, GroupCommand, lazy_load_command

if TYPE_CHECKING:
    from collections.abc import Callable

#: Those of ``protocol.JobStatus``, which every start of ``airflow`` would else import.
STATUSES = ("PENDING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED")

EXIT_CODES = """\
Exit codes:
    0  done; of a job that was followed: it SUCCEEDED
    1  the job ended FAILED or STOPPED, or the cluster did not do what was asked
    2  an argument or the connection is wrong; nothing was sent
    3  the cluster can't be reached
    4  the cluster knows no such job
  130  interrupted by Ctrl-C; a job that was submitted runs on
  141  what read the output has gone, as `head` does; a job that was followed runs on
"""


def _json_object(text: str) -> dict[str, Any]:
    """Read the value of an option that is a JSON object."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        # The text itself is not shown: it may hold a secret.
        raise argparse.ArgumentTypeError('it is no JSON object, such as {"name": "value"}')
    return value


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive whole number")
    return int(text)


ARG_CONN_ID = Arg(
    ("--conn-id",),
    help="Airflow connection of type ray_jobs that names the cluster (default: ray_default)",
    default="ray_default",
)
ARG_JOB = Arg(("submission_id",), help="The job's submission id")
ARG_FOLLOW = Arg(
    ("-f", "--follow"),
    help="Write the job's log until the job ends, and exit as the job ends;\nCtrl-C leaves the job running",
    action="store_true",
)


def _json_option(name: str, help: str) -> Arg:  # noqa: A002 - as argparse calls it
    return Arg((name,), help=f"JSON object: {help}", type=_json_object, metavar="JSON")


_SUBMIT = (
    Arg(
        ("command",),
        help="What the cluster runs; put -- before it. Several words: a program and its\n"
        "arguments. One word, quoted: a command line for the cluster's shell",
        nargs="+",
        metavar="COMMAND",
    ),
    ARG_CONN_ID,
    ARG_FOLLOW,
    Arg(("--submission-id",), help="Id of the job; by default a random one"),
    Arg(
        ("--working-dir",),
        help="Folder or archive on this machine, or URI of an archive, in which the\n"
        "command runs; it replaces that of the runtime_env",
    ),
    Arg(("--runtime-env",), help="YAML or JSON file with Ray's runtime_env", metavar="FILE"),
    _json_option("--runtime-env-json", "Ray's runtime_env; what ps shows is no place for secrets"),
    _json_option("--metadata-json", "texts that are stored with the job"),
    Arg(("--entrypoint-num-cpus",), help="CPU cores to reserve for the command", type=float),
    Arg(("--entrypoint-num-gpus",), help="GPUs to reserve for the command", type=float),
    Arg(("--entrypoint-memory",), help="Memory to reserve for the command, in bytes", type=int),
    _json_option("--entrypoint-resources", "custom resources to reserve for the command, with their amounts"),
    _json_option("--entrypoint-label-selector", "labels that the command's node must have"),
)

_LIST = (
    ARG_CONN_ID,
    ARG_OUTPUT,
    Arg(
        ("--status",),
        help=f"Only jobs of this status ({', '.join(STATUSES)}); may be given several times",
        type=str.upper,
        choices=STATUSES,
        action="append",
        metavar="STATUS",
    ),
    Arg(("--dag-id",), help="Only jobs of this DAG"),
    Arg(("--run-id",), help="Only jobs of this DAG run"),
    Arg(("--task-id",), help="Only jobs of this task"),
    Arg(("--limit",), help="Only the newest N of them", type=_positive, metavar="N"),
)


def _command(name: str, function: str, description: str, *args: Arg) -> ActionCommand:
    func: Callable[..., Any] = lazy_load_command(f"airflow_provider_rayjobs.cli.commands.{function}")
    help, _, _ = description.partition(".")  # noqa: A001 - as argparse calls it
    return ActionCommand(name=name, help=help, description=description, func=func, args=args, epilog=EXIT_CODES)


def get_ray_jobs_cli_commands() -> list[GroupCommand]:
    """Return the commands; Airflow knows this function from the provider's info."""
    commands = (
        _command(
            "submit",
            "submit_job",
            "Submit a job. Writes its submission id; with --follow its log instead, until it ends.\n"
            "Example: submit --working-dir . --follow -- python train.py --epochs 3",
            *_SUBMIT,
        ),
        _command(
            "list",
            "list_jobs",
            "List the jobs that were submitted to a cluster. The newest comes first; durations are in seconds.",
            *_LIST,
        ),
        _command(
            "status",
            "show_job",
            "Show the details of a job. The values of its environment variables are not shown.",
            *(ARG_JOB, ARG_CONN_ID, ARG_OUTPUT),
        ),
        _command("logs", "show_log", "Write the log of a job.", ARG_JOB, ARG_CONN_ID, ARG_FOLLOW),
        _command(
            "stop",
            "stop_job",
            "Stop a job. Waits until it has ended, and writes its last status; a job that had ended before is left as "
            "it is.",
            *(ARG_JOB, ARG_CONN_ID),
        ),
        _command(
            "delete",
            "delete_job",
            "Delete the record of a job that has ended. Its log goes with it.",
            *(ARG_JOB, ARG_CONN_ID),
        ),
    )
    return [GroupCommand(name="ray-jobs", help="Submit and manage jobs on Ray clusters", subcommands=commands)]

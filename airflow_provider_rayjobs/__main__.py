"""``python -m airflow_provider_rayjobs``: runs the commands of ``airflow ray-jobs`` on every Airflow version."""

from __future__ import annotations

import warnings
from typing import Any

import airflow  # noqa: F401 - installs its own warning filters, which would override the one below if imported later

from airflow_provider_rayjobs import __name__ as package

# On Python 3.14, Airflow 3.2 and 3.3 print warnings about their own parser to stdout, among the results.
with warnings.catch_warnings(action="ignore", category=PendingDeprecationWarning):
    from rich_argparse import RawTextRichHelpFormatter

    from airflow_provider_rayjobs.cli import CommandParser, get_ray_jobs_cli_commands


def main() -> None:
    """Parse the arguments as Airflow's own parser does, and run the command."""
    (group,) = get_ray_jobs_cli_commands()
    style: dict[str, Any] = {"formatter_class": RawTextRichHelpFormatter}
    parser = CommandParser(prog=f"python -m {package}", description=group.help, **style)
    subparsers = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    for command in sorted(group.subcommands):
        sub = subparsers.add_parser(
            command.name, help=command.help, description=command.description, epilog=command.epilog, **style
        )
        for arg in sorted(command.args, key=lambda arg: arg.flags[-1]):  # as Airflow's own parser sorts them
            arg.add_to_parser(sub)
        sub.set_defaults(func=command.func)
    args = parser.parse_args()
    args.func(args)


if __name__ == "__main__":
    main()

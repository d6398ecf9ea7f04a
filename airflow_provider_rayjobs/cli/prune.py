"""The command ``prune``, which deletes the records of old jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_rayjobs.cli.output import command, log, print_lines
from airflow_provider_rayjobs.cli.records import moment
from airflow_provider_rayjobs.client.pruning import Choice, prune
from airflow_provider_rayjobs.compat.connections import derived_deployment
from airflow_provider_rayjobs.text.safe_text import for_terminal

if TYPE_CHECKING:
    from argparse import Namespace
    from typing import TextIO

    from airflow_provider_rayjobs.client.ended import EndedJob
    from airflow_provider_rayjobs.hooks import RayJobHook


@command
def prune_jobs(hook: RayJobHook, args: Namespace, out: TextIO) -> None:
    """Delete the records of jobs that ended long ago; with ``--dry-run``, only list them."""
    own = None if args.all else hook.cluster.deployment or derived_deployment()
    choice = Choice(args.older_than, args.keep, args.status or (), own)

    def show(jobs: list[EndedJob]) -> None:
        lines = (f"{moment(job.end_time)}  {job.status:9}  {for_terminal(job.submission_id)}" for job in jobs)
        print_lines(lines, out)

    prune(hook.get_conn().run, choice, log, show if args.dry_run else None, "; run the command again")

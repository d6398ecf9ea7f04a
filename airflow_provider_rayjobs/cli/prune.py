"""The command ``prune``, which deletes the records of old jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_rayjobs.cli.output import command, log, print_lines
from airflow_provider_rayjobs.cli.records import moment
from airflow_provider_rayjobs.client.pruning import Choice, by_status, choose, delete
from airflow_provider_rayjobs.compat.connections import derived_deployment
from airflow_provider_rayjobs.text.safe_text import for_terminal

if TYPE_CHECKING:
    from argparse import Namespace
    from typing import TextIO

    from airflow_provider_rayjobs.hooks import RayJobHook


@command
def prune_jobs(hook: RayJobHook, args: Namespace, out: TextIO) -> None:
    """Delete the records of jobs that ended long ago; with ``--dry-run``, only list them."""
    own = None if args.all else hook.cluster.deployment or derived_deployment()
    client = hook.get_conn()
    pruned = client.run(choose(Choice(args.older_than, args.keep, args.status or (), own)))
    total = len(pruned.jobs)
    log.info("%s of %s jobs on record to delete: %s", f"{total:,}", f"{pruned.listed:,}", by_status(pruned.chosen))
    if args.dry_run:
        lines = (f"{moment(end)}  {status:9}  {for_terminal(name)}" for end, name, status in pruned.jobs)
        print_lines(lines, out)
    else:
        try:
            client.run(delete(pruned, lambda done: log.info("%s of %s done", f"{done:,}", f"{total:,}")))
        finally:
            log.info("Deleted: %s", by_status(pruned.deleted))
    if pruned.left:
        log.warning("%s more records are left; run the command again", f"{pruned.left:,}")

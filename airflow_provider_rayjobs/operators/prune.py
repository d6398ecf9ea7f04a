"""
The operator that deletes the records of old Ray jobs.

DAG files import this module, so it loads only what the class body needs; methods import the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_rayjobs.cluster.fields import DEFAULT_CONN_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_rayjobs.client.ended import EndedJob

__all__ = ["RayPruneJobsOperator"]

#: Most jobs that a dry run names in the task log.
MOST_NAMED = 200


class RayPruneJobsOperator(BaseOperator):
    """
    Deletes the records of Ray jobs that ended long ago, the oldest first.

    Reads the list of all jobs once (``GET /api/jobs/``). Then it deletes one record after the other
    (``DELETE /api/jobs/{id}``), with pauses: the requests take a fifth of the time. A live job is never touched. If the
    task is interrupted, what it deleted so far stays deleted, and the next run does the rest.

    Example::

        RayPruneJobsOperator(task_id="prune", older_than=14 * 24 * 3600, keep=500)

    :param ray_conn_id: Airflow connection of type ``ray_jobs`` (templated).
    :param older_than: seconds since the job's end; at least 3600. A task that lost its worker may still need the record
        of its job, so choose more than its retries take.
    :param keep: how many of the newest records are kept, whatever their age, of those with the given owner and status.
    :param statuses: only jobs with these statuses, of ``SUCCEEDED``, ``FAILED`` and ``STOPPED``; by default all three.
    :param only_own: whether to delete only records of jobs that this Airflow deployment submitted (their metadata has
        its name). With False, also those of other deployments and of people.
    :param dry_run: whether to delete nothing, and only log what would be deleted.
    :return: as XCom: ``listed`` (number of jobs on record), ``chosen`` and ``deleted`` (numbers by status), ``left``
        (number of jobs that were too many for one run), ``refused`` (number of old records that could not be deleted)
        and ``dry_run``.
    :raises TypeError: an argument has a wrong type.
    :raises ValueError: an argument is out of range.
    """

    template_fields: Sequence[str] = ("ray_conn_id",)
    ui_color = "#dcebff"

    def __init__(
        self,
        *,
        ray_conn_id: str = DEFAULT_CONN_ID,
        older_than: float = 7 * 24 * 3600.0,
        keep: int = 0,
        statuses: Sequence[str] | None = None,
        only_own: bool = True,
        dry_run: bool = False,
        **kwargs: Any,
    ) -> None:
        from airflow_provider_rayjobs.client.pruning import Choice

        super().__init__(**kwargs)
        Choice(older_than, keep, statuses or ())
        self.ray_conn_id = ray_conn_id
        self.older_than = older_than
        self.keep = keep
        self.statuses = statuses
        self.only_own = only_own
        self.only_lists = dry_run  # operators have a method `dry_run`

    def execute(self, context: Context) -> dict[str, Any]:
        """
        Delete the records.

        :raises AirflowFailException: the cluster refuses the requests, or the connection is wrong.
        :raises RayClusterUnreachableError: the cluster could not be reached for its ``unreachable_timeout``.
        """
        from airflow_provider_rayjobs.client.pruning import Choice, prune
        from airflow_provider_rayjobs.compat.connections import derived_deployment
        from airflow_provider_rayjobs.hooks import RayJobHook
        from airflow_provider_rayjobs.observability.report import telling_requests
        from airflow_provider_rayjobs.tasks.guard import refused_for_good

        with refused_for_good():
            hook = RayJobHook(self.ray_conn_id)
            own = (hook.cluster.deployment or derived_deployment()) if self.only_own else None
            client = hook.get_conn()
            with telling_requests(client), client.waiting_for_cluster(self.log):
                choice = Choice(self.older_than, self.keep, self.statuses or (), own)
                pruned = prune(
                    client.run, choice, self.log, self._name if self.only_lists else None, " for the next run"
                )
        return {
            "listed": pruned.listed,
            "chosen": dict(pruned.chosen),
            "deleted": dict(pruned.deleted),
            "left": pruned.left,
            "refused": pruned.refused + pruned.out_of_reach,
            "dry_run": self.only_lists,
        }

    def _name(self, jobs: Sequence[EndedJob]) -> None:
        """Log the jobs that a dry run would delete."""
        from airflow_provider_rayjobs.text.safe_text import for_terminal

        for job in jobs[:MOST_NAMED]:
            self.log.info("Would delete %s %s", job.status, for_terminal(job.submission_id))
        if len(jobs) > MOST_NAMED:
            self.log.info("and %s more", len(jobs) - MOST_NAMED)

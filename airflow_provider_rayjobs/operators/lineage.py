"""The part of the operator that OpenLineage's listener asks, and that tells a job of the run of its task."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, conf

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_provider_rayjobs.following.events import JobEvent
    from airflow_provider_rayjobs.hooks import RayJobHook
    from airflow_provider_rayjobs.jobs import VersionInfo
    from airflow_provider_rayjobs.observability.lineage import JobFacts

    Operator = BaseOperator
else:
    Operator = object

#: The arguments, and the options of Airflow's section ``[openlineage]`` that are their defaults.
OPTIONS = {
    "openlineage_inject_parent_job_info": "spark_inject_parent_job_info",
    "openlineage_inject_transport_info": "spark_inject_transport_info",
}


def is_listening() -> bool:
    """
    Whether OpenLineage's listener is active: Airflow has loaded its plugins before a task runs.

    A plugin that can't be loaded, because of a wrong option, leaves its module behind. Airflow goes on without it.
    """
    settings = sys.modules.get("airflow.providers.openlineage.conf")
    try:
        return settings is not None and not settings.is_disabled()
    except Exception as e:  # noqa: BLE001 - of any option of OpenLineage
        log.debug("OpenLineage's configuration is wrong: %r", e)
        return False


class TellsLineage(Operator):
    """Mixin: facts about the job for OpenLineage's events, and about the task's run for the job."""

    entrypoint: str | list[str]
    ray_conn_id: str
    cluster: Any
    deferrable: bool
    _job_facts: JobFacts | None = None

    if TYPE_CHECKING:

        @property
        def hook(self) -> RayJobHook: ...  # noqa: D102

    def get_openlineage_facets_on_start(self) -> Any:
        """Return what OpenLineage's START event tells of the job, before it exists."""
        return self._lineage(None)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return what OpenLineage's COMPLETE event tells of the job."""
        return self._lineage(task_instance)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> Any:
        """Return what OpenLineage's FAIL event tells of the job."""
        return self._lineage(task_instance)

    def _lineage(self, task_instance: Any) -> Any:
        from airflow_provider_rayjobs.observability import lineage

        facts = self._facts()
        if task_instance is not None:
            self._recall_facts(task_instance, facts)
        conn_id = "" if self.cluster is not None else self.ray_conn_id
        outcome = None if facts.event is None else lineage.outcome_fields(facts.event)
        return lineage.operator_lineage(lineage.submission_fields(self.entrypoint, conn_id, facts), outcome)

    def _facts(self) -> JobFacts:
        from airflow_provider_rayjobs.observability.lineage import JobFacts

        if self._job_facts is None:
            self._job_facts = JobFacts()
        return self._job_facts

    def _recall_facts(self, task_instance: Any, facts: JobFacts) -> None:
        """Read what an earlier process of this try has stored: attributes do not survive a deferral."""
        from airflow_provider_rayjobs.tasks import context as task_context

        context: Any = {"ti": task_instance}
        try:
            facts.submission_id = facts.submission_id or task_context.own_submission_id(context)
            if self.deferrable and not facts.ray_version:
                facts.ray_version = str(task_context.own_xcom(context, task_context.RAY_VERSION_XCOM) or "")
        except Exception as e:  # noqa: BLE001 - the event is worth more than these facts
            self.log.debug("The facts of the task's job could not be read: %r", e)

    def _note_head(self, context: Context, head: VersionInfo) -> None:
        """Note the cluster for OpenLineage's events, also for the process that resumes a deferred task."""
        from airflow_provider_rayjobs.tasks import context as task_context

        if not is_listening():
            return
        facts = self._facts()
        facts.address, facts.ray_version = self.hook.cluster.address, head.ray_version
        if self.deferrable:
            try:
                task_context.push_xcom(context, task_context.RAY_VERSION_XCOM, head.ray_version)
            except Exception as e:  # noqa: BLE001 - an event without the version is better than no job
                self.log.debug("The Ray version could not be stored: %r", e)

    def _note_job(self, submission_id: str, event: JobEvent | None = None) -> None:
        """Note the job that the task follows, and how it ended, for OpenLineage's events."""
        if not is_listening():
            return
        facts = self._facts()
        facts.submission_id, facts.event = submission_id, event
        if event is not None:
            facts.address = event.address

    def _check_lineage(self) -> None:
        """
        Check that OpenLineage is there if the author asks for it.

        :raises AirflowFailException: it is not installed.
        """
        wanted = [name for name in OPTIONS if getattr(self, name)]
        if not wanted:
            return
        from airflow_provider_rayjobs.observability.lineage import INSTALL, is_installed

        if not is_installed():
            raise AirflowFailException(
                f"Nothing was submitted: {wanted[0]}=True needs Airflow's OpenLineage provider, which is not "
                f"installed; {INSTALL}, or remove the argument"
            )

    def _with_run_of_task(self, context: Context, job: dict[str, Any]) -> dict[str, Any]:
        """Return the job with what its environment tells of the task's run; as it is, unless this is wanted."""
        from airflow_provider_rayjobs.compat.masking import public

        try:
            parent, transport = (self._is_wanted(name) for name in OPTIONS)
            if not parent and not transport:
                return job
            from airflow_provider_rayjobs.observability import lineage

            if not lineage.is_installed():  # an argument that asks for it was refused before
                self.log.warning(
                    "The job is not told of OpenLineage's parent run or transport, as the section [openlineage] of "
                    "Airflow's configuration asks: Airflow's OpenLineage provider is not installed; %s",
                    lineage.INSTALL,
                )
                return job
            return lineage.with_run_of_task(job, context["ti"], parent=parent, transport=transport)
        except Exception as e:  # noqa: BLE001 - lineage must not keep a job from running
            self.log.warning("The job is not told of OpenLineage's parent run or transport: %s", public(repr(e)))
            return job

    def _is_wanted(self, name: str) -> bool:
        given: bool | None = getattr(self, name)
        return conf.getboolean("openlineage", OPTIONS[name], fallback=False) if given is None else given

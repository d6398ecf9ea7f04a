"""The way from a task to its job's page in the Ray dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airflow_provider_rayjobs.tasks.context import push_xcom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context, TaskInstanceKey

    from airflow_provider_rayjobs.cluster.connection import ClusterConnection

#: XCom key of the page's URL; Airflow 3's web page reads it by the name that a link of this class has.
JOB_PAGE_XCOM = "_link_RayJobLink"


class RayJobLink(BaseOperatorLink):
    """
    The job's page in the Ray dashboard, from the submission on.

    The operator stores the URL as an XCom before it submits the job. So the link shows while the job runs, also for
    deferred and mapped tasks, and the web page needs no connection.
    """

    name = "Ray job"

    @property
    def xcom_key(self) -> str:
        """XCom key under which Airflow 3 looks for the URL, and where it stores it anew when the task has ended."""
        return JOB_PAGE_XCOM

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """
        Return the URL, or an empty text when no job was submitted.

        :param operator: the task.
        :param ti_key: names the task instance.
        """
        return XCom.get_value(key=JOB_PAGE_XCOM, ti_key=ti_key) or ""


def store_job_page(context: Context, cluster: ClusterConnection, submission_id: str) -> None:
    """Store the URL of a job's page where the link looks for it."""
    push_xcom(context, JOB_PAGE_XCOM, cluster.job_page(submission_id))

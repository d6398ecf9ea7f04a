"""The extra link from a task to its job's page in the Ray dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context, TaskInstanceKey

    from airflow_provider_rayjobs.cluster.connection import ClusterConnection

__all__ = ["RayJobLink"]

#: XCom key of the page's URL. Airflow 3 derives the same key from the name of the link's class.
JOB_PAGE_XCOM = "_link_RayJobLink"


class RayJobLink(BaseOperatorLink):
    """
    Link to the job's page in the Ray dashboard, available from the submission on.

    The operator stores the URL as an XCom before it submits the job. So Airflow shows the link while the job runs, also
    for deferred and mapped tasks, and without reading the connection.

    Example::

        class TrainOperator(BaseOperator):
            operator_extra_links = (RayJobLink(),)

            def execute(self, context):
                hook = RayJobHook()
                submission_id = hook.submit_job(entrypoint="python train.py")
                context["ti"].xcom_push(key=RayJobLink().xcom_key, value=hook.cluster.job_page(submission_id))
    """

    name = "Ray job"

    @property
    def xcom_key(self) -> str:
        """XCom key from which Airflow 3 reads the URL, and to which it writes the URL again when the task has ended."""
        return JOB_PAGE_XCOM

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """
        Return the URL, or an empty string if no job was submitted.

        :param operator: the task.
        :param ti_key: key of the task instance.
        """
        return XCom.get_value(key=JOB_PAGE_XCOM, ti_key=ti_key) or ""


def store_job_page(context: Context, cluster: ClusterConnection, submission_id: str) -> None:
    """Store the URL of a job's page in the XCom that the link reads."""
    from airflow_provider_rayjobs.tasks.context import push_xcom

    push_xcom(context, JOB_PAGE_XCOM, cluster.job_page(submission_id))

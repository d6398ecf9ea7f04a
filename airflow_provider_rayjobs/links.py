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

#: XCom key of the URL of the job's page in the history server; only if the cluster has one.
HISTORY_PAGE_XCOM = "ray_job_history"


class RayJobLink(BaseOperatorLink):
    """
    Link to the job's page in the Ray dashboard, available from the submission on.

    If KubeRay made the cluster, and it has a ``history_url``, the link leads there once the task has ended.

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

        Airflow 3 calls this in the process of the task, which may know the URL without asking Airflow.

        :param operator: the task.
        :param ti_key: key of the task instance.
        """
        if page := getattr(operator, "_job_page", ""):
            return str(page)
        return XCom.get_value(key=JOB_PAGE_XCOM, ti_key=ti_key) or ""


def store_job_page(context: Context, cluster: ClusterConnection, submission_id: str, session: str | None = None) -> str:
    """
    Store the URL of a job's page in the XCom that the link reads, and that of its page in the history server.

    :param session: name of the head's session, if it is known.
    :return: the URL of the job's page.
    """
    from airflow_provider_rayjobs.tasks.context import push_xcom

    page = cluster.job_page(submission_id)
    push_xcom(context, JOB_PAGE_XCOM, page)
    store_history_page(context, cluster.history_url, submission_id, session)
    return page


def store_history_page(context: Context, template: str, submission_id: str, session: str | None = None) -> None:
    """
    Store the URL of a job's page in the history server; nothing if it has none.

    :param template: the cluster's ``history_url``.
    :param session: name of the head's session, if it is known.
    """
    from airflow_provider_rayjobs.cluster.urls import history_page
    from airflow_provider_rayjobs.tasks.context import push_xcom

    if url := history_page(template, submission_id, session):
        push_xcom(context, HISTORY_PAGE_XCOM, url)


def link_to_history(context: Context) -> None:
    """Let the link lead to the job's page in the history server, if there is one: the cluster ends."""
    from airflow_provider_rayjobs.cluster.urls import is_web_address
    from airflow_provider_rayjobs.tasks.context import own_xcom, push_xcom

    history_page = own_xcom(context, HISTORY_PAGE_XCOM)
    if isinstance(history_page, str) and is_web_address(history_page):
        push_xcom(context, JOB_PAGE_XCOM, history_page)

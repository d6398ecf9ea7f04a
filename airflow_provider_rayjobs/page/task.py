"""Finds the Ray job of a task instance in Airflow's database."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session

from airflow_provider_rayjobs.links import JOB_PAGE_XCOM

#: The argument of operators that names their connection.
CONNECTION_FIELD = "ray_conn_id"

#: Stands before the id in the URL of a job's page.
_JOBS = "/#/jobs/"


@dataclass(frozen=True)
class TaskJob:
    """
    The job that the latest try of a task instance follows.

    :param submission_id: its id.
    :param job_page: URL of its page in Ray's dashboard, as the task stored it.
    :param conn_id: the task's connection; empty if Airflow no longer keeps the task's rendered arguments.
    """

    submission_id: str
    job_page: str
    conn_id: str


def job_of_task(dag_id: str, run_id: str, task_id: str, map_index: int) -> TaskJob | None:
    """
    Return the job of a task instance, as its operator stored it; None if it stored none.

    Airflow deletes the XComs of a task instance when its next try starts.

    :param map_index: -1 for a task that is not mapped.
    """
    key = TaskInstanceKey(dag_id, task_id, run_id, map_index=map_index)
    with create_session() as session:
        pages = XComModel.get_many(
            key=JOB_PAGE_XCOM, run_id=run_id, dag_ids=dag_id, task_ids=task_id, map_indexes=map_index
        )
        entry = session.scalars(pages).first()
        page = None if entry is None else XComModel.deserialize_value(entry)
        fields = RenderedTaskInstanceFields.get_templated_fields(key, session=session) or {}
    if not isinstance(page, str):
        return None
    before, _, submission_id = page.rpartition(_JOBS)
    if not before or not submission_id:
        return None
    conn_id = fields.get(CONNECTION_FIELD)
    return TaskJob(unquote(submission_id), page, conn_id if isinstance(conn_id, str) else "")

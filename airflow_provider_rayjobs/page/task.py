"""Finds the Ray job of a task instance in Airflow's database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session

from airflow_provider_rayjobs.kubernetes.cluster import ClusterRef
from airflow_provider_rayjobs.links import HISTORY_PAGE_XCOM, JOB_PAGE_XCOM
from airflow_provider_rayjobs.operators.own_cluster import CLUSTER_XCOM
from airflow_provider_rayjobs.tasks.context import SUBMISSION_ID_XCOM

#: The argument of operators that names their connection.
CONNECTION_FIELD = "ray_conn_id"

#: The argument that names a cluster made by KubeRay.
CLUSTER_FIELD = "cluster"

#: Stands before the id in the URL of a job's page.
_JOBS = "/#/jobs/"


@dataclass(frozen=True)
class TaskJob:
    """
    The job that the latest try of a task instance follows.

    :param submission_id: its id.
    :param job_page: URL of its page in Ray's dashboard or in the history server, as the task stored it. Empty while
        the cluster comes up.
    :param conn_id: the task's connection; empty if Airflow no longer keeps the task's rendered arguments.
    :param history_page: URL of its page in the history server; may be empty.
    :param cluster: its cluster, if KubeRay made it.
    """

    submission_id: str
    job_page: str
    conn_id: str
    history_page: str = ""
    cluster: ClusterRef | None = None


def job_of_task(dag_id: str, run_id: str, task_id: str, map_index: int) -> TaskJob | None:
    """
    Return the job of a task instance, as its operator stored it; None if it stored none.

    Airflow deletes the XComs of a task instance when its next try starts.

    :param map_index: -1 for a task that is not mapped.
    """
    key = TaskInstanceKey(dag_id, task_id, run_id, map_index=map_index)
    stored: dict[str, Any] = {}
    with create_session() as session:
        for name in (JOB_PAGE_XCOM, HISTORY_PAGE_XCOM, SUBMISSION_ID_XCOM, CLUSTER_XCOM):
            entries = XComModel.get_many(
                key=name, run_id=run_id, dag_ids=dag_id, task_ids=task_id, map_indexes=map_index
            )
            entry = session.scalars(entries).first()
            stored[name] = None if entry is None else XComModel.deserialize_value(entry)
        fields = RenderedTaskInstanceFields.get_templated_fields(key, session=session) or {}
    cluster = _cluster(stored[CLUSTER_XCOM]) or _cluster(fields.get(CLUSTER_FIELD))
    page, history_page = (_text(stored[name]) for name in (JOB_PAGE_XCOM, HISTORY_PAGE_XCOM))
    before, _, quoted_id = page.rpartition(_JOBS)
    has_moved = page != "" and page == history_page
    if has_moved or (cluster and not page):  # it has no job yet
        submission_id = _text(stored[SUBMISSION_ID_XCOM])
    else:
        submission_id = unquote(quoted_id) if before else ""
    if not submission_id:
        return None
    return TaskJob(submission_id, page, _text(fields.get(CONNECTION_FIELD)), history_page, cluster)


def _cluster(value: object) -> ClusterRef | None:
    try:
        return ClusterRef.from_json(value)
    except ValueError:
        return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""

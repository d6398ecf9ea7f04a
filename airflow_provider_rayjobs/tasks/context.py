"""Access to a task's context: its identity, and the XComs that it stores for itself."""

from __future__ import annotations

import weakref
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.compat.connections import derived_deployment
from airflow_provider_rayjobs.compat.versions import RESUMES_IN_RETRIES
from airflow_provider_rayjobs.tasks.identity import TaskIdentity
from airflow_provider_rayjobs.text.safe_text import safe_value

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


#: Seconds that Airflow's timeout of a deferral is longer than the trigger's own limits. So it only ends a trigger that
#: fails to keep its limits.
DEFERRAL_MARGIN = 60.0

#: XCom key of the number of the try that was deferred; written only if :data:`RESUMES_IN_RETRIES`.
DEFERRED_TRY_XCOM = "deferred_try"

#: XCom key of the submission id of the job that the task follows.
SUBMISSION_ID_XCOM = "submission_id"

#: The same in Airflow 3.3's ``task_state_store``.
SUBMISSION_ID_STATE = "submission_id"
#: XCom key of the cluster's Ray version; written only for a deferred task if OpenLineage's listener is active.
RAY_VERSION_XCOM = "ray_version"

#: XCom key of what a task returns.
RESULT_XCOM = "return_value"

#: XCom key of the last report of a job's progress.
PROGRESS_XCOM = "progress"

#: XCom key of why the job FAILED, as JSON of :class:`~airflow_provider_rayjobs.jobs.JobFailure`.
FAILURE_XCOM = "ray_job_failure"


def task_identity(context: Context, deployment: str, number: int = 1) -> TaskIdentity:
    """
    Return the identity of a task's submission.

    :param deployment: the connection's ``deployment``, or an empty string to derive one.
    :param number: number of the submission within its try, from 1.
    """
    ti: Any = context["ti"]
    started = getattr(context["dag_run"], "start_date", None)
    return TaskIdentity(
        deployment=deployment or derived_deployment(),
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        try_number=ti.try_number,
        max_tries=ti.max_tries,
        run_started=started.astimezone(UTC).isoformat() if started else "",
        number=number,
    )


def dag_folder(operator: Any) -> str | None:
    """
    Return the folder of a task's DAG file; None for an operator without a DAG.

    Airflow 3 sets ``fileloc`` to the file in the DAG bundle, at the version that the DAG run uses.
    """
    dag = operator.get_dag()
    return str(Path(dag.fileloc).absolute().parent) if dag is not None and dag.fileloc else None


#: Number of submissions by each try that runs in this process. The key is the ``id()`` of the task instance and the
#: try number.
_submissions: dict[tuple[int, int], int] = {}


def next_submission(context: Context) -> int:
    """
    Return the number of a try's next submission, from 1. A task may execute several operators.

    Each process that runs the try starts from 1, so a submission has the same number in each process.
    """
    ti: Any = context["ti"]
    key = (id(ti), ti.try_number)
    if key not in _submissions:
        _submissions[key] = 0
        weakref.finalize(ti, _submissions.pop, key)
    _submissions[key] += 1
    return _submissions[key]


def own_xcom(context: Context, key: str) -> Any:
    """Return an XCom of this task instance, or None if there is none."""
    ti: Any = context["ti"]
    return ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)


def own_submission_id(context: Context) -> str:
    """Return the submission id that the task has stored, or an empty string if there is none."""
    known = own_xcom(context, SUBMISSION_ID_XCOM)
    return known if isinstance(known, str) else ""


def show_submission_id(context: Context, submission_id: str) -> None:
    """
    Store the id of the job that the task follows in ``task_state_store``, where Airflow 3.3 shows it.

    That is for people only: each try computes the ids of its jobs, and reads none. So the id may be stored after the
    submission, and may be missing. Only a worker can store it, not a triggerer.
    """
    store: Any = context.get("task_state_store")
    if store is not None:
        store.set(SUBMISSION_ID_STATE, submission_id)


def note_deferral(context: Context) -> None:
    """Store the number of the try that is deferred, on Airflow versions that may resume it in a later try."""
    if RESUMES_IN_RETRIES:
        push_xcom(context, DEFERRED_TRY_XCOM, context["ti"].try_number)


def resumes_earlier_try(context: Context) -> bool:
    """Return whether Airflow resumes the deferral of an earlier try, so that this try must start from the beginning."""
    if not RESUMES_IN_RETRIES:
        return False
    deferred_try = own_xcom(context, DEFERRED_TRY_XCOM)
    return deferred_try is not None and deferred_try != context["ti"].try_number


def push_xcom(context: Context, key: str, value: Any) -> None:
    """Store an XCom of this task instance, without characters that a database can't store."""
    context["ti"].xcom_push(key=key, value=safe_value(value))

"""What a task reads from its context, and keeps in XComs."""

from __future__ import annotations

import weakref
from datetime import UTC
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.compat.connections import derived_deployment
from airflow_provider_rayjobs.compat.versions import RESUMES_IN_RETRIES
from airflow_provider_rayjobs.tasks.identity import TaskIdentity
from airflow_provider_rayjobs.text.safe_text import safe_value

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


#: Seconds by which Airflow's timeout of a deferral is longer than the trigger's own limits. It ends only a trigger that
#: does not keep its limits.
DEFERRAL_MARGIN = 60.0

#: XCom key under which a task keeps, on such an Airflow, the number of the try that was deferred.
DEFERRED_TRY_XCOM = "deferred_try"

#: XCom key under which a task keeps the submission id of the job that it follows.
SUBMISSION_ID_XCOM = "submission_id"


def is_mapped(operator: Any) -> bool:
    """Whether an operator is made when its mapped task runs, with arguments that other tasks may have given."""
    return bool(getattr(operator, "_BaseOperator__from_mapped", False))


def task_identity(context: Context, deployment: str, number: int = 1) -> TaskIdentity:
    """
    Read from a task's context who it is.

    :param deployment: the connection's ``deployment``, or an empty text to derive one.
    :param number: which of the submissions of this try it is, from 1.
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


#: How many submissions the tries that run in this process have made, by the ``id()`` of their task instance and number.
_submissions: dict[tuple[int, int], int] = {}


def next_submission(context: Context) -> int:
    """
    Count the submissions of a try, from 1: a task may execute several operators.

    Each process that runs the try counts anew, so the same submission has the same number in each.
    """
    ti: Any = context["ti"]
    key = (id(ti), ti.try_number)
    if key not in _submissions:
        _submissions[key] = 0
        weakref.finalize(ti, _submissions.pop, key)
    _submissions[key] += 1
    return _submissions[key]


def own_xcom(context: Context, key: str) -> Any:
    """Return what a task has kept under a key, None if it has nothing there."""
    ti: Any = context["ti"]
    return ti.xcom_pull(task_ids=ti.task_id, key=key, map_indexes=ti.map_index)


def own_submission_id(context: Context) -> str:
    """Return the submission id that a task has kept, an empty text if there is none."""
    known = own_xcom(context, SUBMISSION_ID_XCOM)
    return known if isinstance(known, str) else ""


def note_deferral(context: Context) -> None:
    """Keep which try it is that may be deferred, where Airflow mixes them up."""
    if RESUMES_IN_RETRIES:
        push_xcom(context, DEFERRED_TRY_XCOM, context["ti"].try_number)


def resumes_earlier_try(context: Context) -> bool:
    """Tell whether what is resumed is a deferral of an earlier try, so that this one is to begin."""
    if not RESUMES_IN_RETRIES:
        return False
    noted = own_xcom(context, DEFERRED_TRY_XCOM)
    return noted is not None and noted != context["ti"].try_number


def push_xcom(context: Context, key: str, value: Any) -> None:
    """Keep something of a task as XCom, in a form that every database takes."""
    context["ti"].xcom_push(key=key, value=safe_value(value))

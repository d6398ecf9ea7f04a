"""Features and faults of Airflow's versions."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.version_compat import (
    AIRFLOW_V_3_0_PLUS,
    AIRFLOW_V_3_1_PLUS,
    get_base_airflow_version_tuple,
)

#: Raised by the signal handler of Airflow 2 after ``on_kill``; an operator within another task gets only this.
TERMINATED: tuple[type[BaseException], ...] = ()
if not AIRFLOW_V_3_0_PLUS:
    from airflow.exceptions import AirflowTaskTerminated

    TERMINATED = (AirflowTaskTerminated,)

ONLY_3_0 = AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_1_PLUS

#: Airflow 3.0's decorated operators forward ``xcom_push``, which its operators do not have, and nothing calls it.
DECORATORS_MISS_XCOM_PUSH = ONLY_3_0

#: If a task fails after its deferral, Airflow 3 before 3.1.1 resumes its retry there, with the old event.
RESUMES_IN_RETRIES = (3, 0, 0) <= get_base_airflow_version_tuple() < (3, 1, 1)

#: Airflow 3 passes XComs on in msgspec messages, which hold no larger integers.
INTEGERS_HAVE_64_BITS = AIRFLOW_V_3_0_PLUS


def is_mapped(operator: Any) -> bool:
    """Whether an operator was created for a running mapped task, so that its arguments may come from other tasks."""
    return bool(getattr(operator, "_BaseOperator__from_mapped", False))


def triggerer_ends() -> bool:
    """
    Return whether this triggerer is shutting down and no longer reads answers.

    From Airflow 3.2 on it stops reading them before it cancels its triggers. A later request would wait until the
    triggerer is killed.
    """
    if not AIRFLOW_V_3_0_PLUS:
        return False
    from airflow.sdk.execution_time import task_runner

    reader = getattr(getattr(task_runner, "SUPERVISOR_COMMS", None), "_reader_task", None)
    return reader is not None and reader.done()

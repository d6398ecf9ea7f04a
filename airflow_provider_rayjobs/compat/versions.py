"""What an Airflow version can do and what it does wrong."""

from __future__ import annotations

from airflow.providers.common.compat.version_compat import (
    AIRFLOW_V_3_0_PLUS,
    AIRFLOW_V_3_1_PLUS,
    get_base_airflow_version_tuple,
)

#: What the signal handler of Airflow 2 raises after ``on_kill``; an operator within another task gets this only.
TERMINATED: tuple[type[BaseException], ...] = ()
if not AIRFLOW_V_3_0_PLUS:
    from airflow.exceptions import AirflowTaskTerminated

    TERMINATED = (AirflowTaskTerminated,)

ONLY_3_0 = AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_1_PLUS

#: Airflow 3.0's decorated operators hand on a method that its operators do not have, to nobody who calls it.
DECORATORS_MISS_XCOM_PUSH = ONLY_3_0

#: Airflow before 3.1.1 begins a retry of a task that failed after its deferral where that ended, with its old event.
RESUMES_IN_RETRIES = (3, 0, 0) <= get_base_airflow_version_tuple() < (3, 1, 1)

#: Airflow 3 hands XComs on in messages (msgspec's) that have no larger integers.
INTEGERS_HAVE_64_BITS = AIRFLOW_V_3_0_PLUS


def triggerer_ends() -> bool:
    """
    Tell whether this triggerer is shutting down and reads no answers any more.

    From Airflow 3.2 on it stops reading them before it cancels its triggers: who still asks waits until it is killed.
    """
    if not AIRFLOW_V_3_0_PLUS:
        return False
    from airflow.sdk.execution_time import task_runner

    reader = getattr(getattr(task_runner, "SUPERVISOR_COMMS", None), "_reader_task", None)
    return reader is not None and reader.done()

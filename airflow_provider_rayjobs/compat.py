"""All that differs between Airflow's versions and that ``common.compat`` does not cover."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowNotFoundException, XCom, conf, mask_secret
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_rayjobs.connection import ClusterConnection, read_connection
from airflow_provider_rayjobs.identity import TaskIdentity

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseHook, Context

#: Airflow 2 calls ``on_kill`` on a fresh instance when a deferred task's ``execution_timeout`` has passed. (Airflow 3
#: does not, and its signal handler could not ask for XComs.)
KILLS_UNSTARTED_TASKS = not AIRFLOW_V_3_0_PLUS

#: XCom key under which a task keeps the submission id of the job that it follows.
SUBMISSION_ID_XCOM = "submission_id"


def task_identity(context: Context, deployment: str) -> TaskIdentity:
    """
    Read from a task's context who it is.

    :param deployment: the connection's ``deployment``, or an empty text to derive one.
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
        retries=ti.task.retries or 0,
        run_started=started.astimezone(UTC).isoformat() if started else "",
    )


def derived_deployment() -> str:
    """
    Name this Airflow deployment by what all its workers share and no other deployment has.

    That is the public URL of its web server; else, on Airflow 3, the URL at which workers reach the API server; else
    both are on one machine, whose Fernet key, made at installation, tells it from others.
    """
    section = "api" if AIRFLOW_V_3_0_PLUS else "webserver"
    for option in ((section, "base_url"), ("core", "execution_api_server_url")):
        url = conf.get(*option, fallback="") or ""
        host = urlsplit(url).hostname
        if host and host not in ("localhost", "0.0.0.0", "::1") and not host.startswith("127."):  # noqa: S104
            return url.rstrip("/")
    key = conf.get("core", "fernet_key", fallback="") or ""
    return "local-" + hashlib.blake2b(key.encode(), digest_size=5).hexdigest()


def register_secrets(cluster: ClusterConnection, runtime_env: Mapping[str, Any] | None = None) -> None:
    """Have Airflow mask the connection's secrets and the sensitive ``env_vars`` wherever it shows text."""
    for secret in cluster.secrets:
        mask_secret(secret)
    env_vars = (runtime_env or {}).get("env_vars")
    if isinstance(env_vars, Mapping):
        mask_secret(dict(env_vars))  # Airflow's masker picks those whose names it deems sensitive


async def read_cluster(hook: BaseHook, conn_id: str) -> ClusterConnection:
    """
    Read a connection on an event loop, without blocking it.

    :raises RayConnectionConfigError: the connection holds a wrong value.
    """
    from airflow.providers.common.compat.connection import get_async_connection
    from asgiref.sync import sync_to_async

    try:
        connection = await get_async_connection(conn_id, hook=hook)
    except AirflowNotFoundException:
        # Under `airflow dags test` the asynchronous way does not look into the database.
        connection = await sync_to_async(hook.get_connection)(conn_id)

    def read() -> ClusterConnection:
        cluster = read_connection(conn_id, connection)
        register_secrets(cluster)
        return cluster

    # Masking secrets may talk to the supervisor, which must not happen on the loop.
    return await sync_to_async(read)()


async def was_killed(task_instance: Any, trigger_id: int | None, submission_id: str) -> bool:
    """
    Tell whether a deferred task is no longer deferred on its trigger by a user's act.

    A cancelled trigger knows nothing of the reason: a user marked or cleared the task, or the triggerer shuts down, or
    hands its triggers over. Only the first ends the job.

    :param task_instance: the trigger's task instance.
    :param trigger_id: the trigger's id.
    :param submission_id: the job that the trigger follows.
    """
    from asgiref.sync import sync_to_async

    check = _was_killed_3 if AIRFLOW_V_3_0_PLUS else _was_killed_2
    return bool(await sync_to_async(check)(task_instance, trigger_id, submission_id))


def _was_killed_3(ti: Any, _trigger_id: int | None, submission_id: str) -> bool:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    map_index = -1 if ti.map_index is None else ti.map_index
    states = RuntimeTaskInstance.get_task_states(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=map_index
    )
    # Mapped task instances are keyed with their index.
    name = ti.task_id if map_index < 0 else f"{ti.task_id}_{map_index}"
    state = states[ti.run_id][name] if states.get(ti.run_id) else None
    if str(getattr(state, "value", state)) != "deferred":
        return True
    # Deferred again: by a new try, after a clear, which follows another job?
    current = XCom.get_one(
        key=SUBMISSION_ID_XCOM, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=map_index
    )
    return current is not None and current != submission_id


def _was_killed_2(ti: Any, trigger_id: int | None, _submission_id: str) -> bool:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        now = (
            session.query(TaskInstance.state, TaskInstance.trigger_id, TaskInstance.try_number)
            .filter_by(dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index)
            .one_or_none()
        )
    if now is None or now.state != "deferred":
        return True
    return bool(now.trigger_id != trigger_id or now.try_number != ti.try_number)

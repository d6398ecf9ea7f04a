"""Reads a connection on every Airflow version: in a task, on an event loop, and outside of both."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import AirflowNotFoundException, conf
from airflow.providers.common.compat.version_compat import (
    AIRFLOW_V_3_0_PLUS,
)

from airflow_provider_rayjobs.client.threads import in_airflows_thread, in_own_thread
from airflow_provider_rayjobs.cluster.connection import ClusterConnection, read_connection
from airflow_provider_rayjobs.compat.masking import mask_extra, register_cluster
from airflow_provider_rayjobs.exceptions import RayJobsError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseHook

    from airflow_provider_rayjobs.cluster.extra import AirflowConnection


def derived_deployment() -> str:
    """
    Return a name for this Airflow deployment that all its workers share and no other deployment has.

    It is the public URL of the web server; else, on Airflow 3, the URL at which workers reach the API server. If both
    are local, all runs on one machine, and its Fernet key, made at installation, identifies it.
    """
    section = "api" if AIRFLOW_V_3_0_PLUS else "webserver"
    for option in ((section, "base_url"), ("core", "execution_api_server_url")):
        url = conf.get(*option, fallback="") or ""
        host = urlsplit(url).hostname
        if host and host not in ("localhost", "0.0.0.0", "::1") and not host.startswith("127."):  # noqa: S104
            return url.rstrip("/")
    key = conf.get("core", "fernet_key", fallback="") or ""
    return "local-" + hashlib.blake2b(key.encode(), digest_size=5).hexdigest()


def load_cluster(conn_id: str, connection: AirflowConnection, *, create: bool = True) -> ClusterConnection:
    """
    Read a connection, with the modules and folders that this deployment allows in connections.

    :param create: whether a cluster may be created, if the connection says so.
    :raises RayConnectionConfigError: if the connection has another type, or a wrong value.
    """
    mask_extra(connection)  # first: later steps may put parts of it into messages
    return read_connection(
        conn_id,
        connection,
        allowed_modules=_listed("allowed_modules"),
        credential_folders=_listed("credential_folders"),
        create=create,
    )


def _listed(option: str) -> list[str]:
    """Return the comma-separated items of an option of this provider."""
    names = conf.get("ray_jobs", option, fallback="") or ""
    return [name.strip() for name in names.split(",") if name.strip()]


def stored_connection(conn_id: str) -> Any:
    """
    Read a connection in a process that belongs to no task, from all places where this deployment keeps connections.

    In such a process, ``get_connection`` of Airflow 3's hooks does not search the database.

    :raises AirflowNotFoundException: if no place has this id.
    :raises RayJobsError: if it was not found, and one of the places could not be searched.
    """
    from airflow.configuration import ensure_secrets_loaded

    problem: Exception | None = None
    for backend in ensure_secrets_loaded():
        try:
            connection = backend.get_connection(conn_id)
        except Exception as e:  # noqa: BLE001 - of any database or service; as in a task, the next one may have it
            problem = problem or e
            continue
        if connection is not None:
            return connection
    if problem is not None:
        what = f"{type(problem).__name__}: {str(problem).partition(chr(10))[0]}"
        raise RayJobsError(f"The conn_id `{conn_id}` can't be looked up: {what}") from problem
    raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined")


async def read_cluster(hook: BaseHook, conn_id: str) -> ClusterConnection:
    """
    Read a connection on an event loop, without blocking it.

    :raises RayConnectionConfigError: if the connection has another type, or a wrong value.
    """
    # Not with `aget_connection`: it is new in 3.1, blocks on the supervisor before 3.3.2, and does not search the
    # database under `airflow dags test`.
    connection = await in_airflows_thread(hook.get_connection, conn_id)

    # Reading may request the address from others, so it must not block Airflow's one thread, which all triggers share.
    cluster = await in_own_thread(load_cluster, conn_id, connection)
    await in_airflows_thread(register_cluster, cluster)
    return cluster

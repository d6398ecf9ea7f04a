"""
The page "Ray jobs": a web application in Airflow's API server, with three static files and two API routes.

All routes need an Airflow login and are read-only. A user sees the connections that they may read in Airflow. Of the
jobs, a user sees those of the DAGs that they may read, and those that no DAG submitted.
"""

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails, DagAccessEntity
from airflow.api_fastapi.core_api.security import get_user, requires_access_connection, requires_access_dag
from airflow.models.connection import Connection
from airflow.models.dag import DagModel
from airflow.providers.common.compat.sdk import AirflowNotFoundException, conf
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_2_PLUS
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from sqlalchemy import select

from airflow_provider_rayjobs.cluster.connection import ClusterConnection
from airflow_provider_rayjobs.compat.connections import load_cluster
from airflow_provider_rayjobs.compat.masking import public, register_cluster
from airflow_provider_rayjobs.exceptions import RayJobsError
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.page import rows

FOLDER = Path(__file__).parent

#: Name of each static file by its path.
FILES = {"/": "page.html", "/page.js": "page.js", "/page.css": "page.css"}

#: Maximum number of concurrent requests per cluster. The limit is per cluster, so a slow cluster delays no other.
MAX_READERS = 2

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

User = Annotated[BaseUser, Depends(get_user)]


def create_app() -> FastAPI:
    """Return the application for Airflow's API server to mount."""
    app = FastAPI(title="Ray jobs", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(get_user)])
    readers: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(MAX_READERS))

    @app.middleware("http")
    async def _headers(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    for path, name in FILES.items():
        app.add_api_route(path, _file_route(name), methods=["GET"])

    @app.get("/api/connections")
    def _connections(user: User) -> list[str]:
        return [conn_id for conn_id in _known_connections() if _may_read_connection(conn_id, user)]

    @app.get(
        "/api/connections/{connection_id}/jobs",
        dependencies=[
            Depends(requires_access_connection("GET")),
            Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE)),
        ],
    )
    async def _jobs(connection_id: str, user: User) -> dict[str, Any]:
        cluster = await run_in_threadpool(_cluster, connection_id)
        async with readers[connection_id]:
            table = await _newest_jobs(cluster)
        return await run_in_threadpool(_shown, cluster, table, user)

    return app


def _file_route(name: str) -> Any:
    def send() -> FileResponse:
        return FileResponse(FOLDER / name)

    return send


# Connections


def _known_connections() -> list[str]:
    """Return the ids of the connections in the database, and the default one even if it is stored elsewhere."""
    with create_session() as session:
        ids = set(session.scalars(select(Connection.conn_id).where(Connection.conn_type == RayJobHook.conn_type)))
    default = RayJobHook.default_conn_name
    if default not in ids and (found := _find(default)) is not None and found.conn_type == RayJobHook.conn_type:
        ids.add(default)
    return sorted(ids)


def _find(conn_id: str) -> Connection | None:
    """Return a connection from a secrets backend, the environment or the database, or None if there is none."""
    team = _team(Connection, conn_id)
    try:
        return Connection.get_connection_from_secrets(conn_id, **({"team_name": team} if team else {}))
    except AirflowNotFoundException:
        return None


def _cluster(conn_id: str) -> ClusterConnection:
    """
    Read a connection of type ``ray_jobs``. The credentials of other types are not meant for a Ray cluster.

    :raises HTTPException: if there is no such connection, or it is invalid.
    """
    connection = _find(conn_id)
    if connection is None or connection.conn_type != RayJobHook.conn_type:
        raise HTTPException(404, f"Connection {conn_id!r} of type {RayJobHook.conn_type} not found.")
    try:
        cluster = load_cluster(conn_id, connection, create=False)
    except RayJobsError as e:
        raise HTTPException(502, public(str(e))) from e
    register_cluster(cluster)
    return cluster


# Permissions


def _team(model: Any, name: str) -> str | None:
    """Return the team of a DAG or a connection, if Airflow uses teams; Airflow 3.1 supports them only in part."""
    named = AIRFLOW_V_3_2_PLUS and conf.getboolean("core", "multi_team", fallback=False)
    team: str | None = model.get_team_name(name) if named else None
    return team


def _may_read_connection(conn_id: str, user: BaseUser) -> bool:
    details = ConnectionDetails(conn_id=conn_id, team_name=_team(Connection, conn_id))
    return get_auth_manager().is_authorized_connection(method="GET", details=details, user=user)


def _readable(dag_ids: set[str], user: BaseUser) -> set[str]:
    """Return the DAGs that the user may read. One request per team, because an auth manager may need the network."""
    by_team: defaultdict[str | None, set[str]] = defaultdict(set)
    for dag_id in dag_ids:
        by_team[_team(DagModel, dag_id)].add(dag_id)
    readable: set[str] = set()
    for team, ids in by_team.items():
        named: Any = {"team_name": team} if team else {}
        readable |= get_auth_manager().filter_authorized_dag_ids(dag_ids=ids, user=user, method="GET", **named)
    return readable


# Jobs


async def _newest_jobs(cluster: ClusterConnection) -> rows.JobTable:
    try:
        return await rows.newest_jobs(cluster)
    except RayJobsError as e:
        raise HTTPException(502, public(str(e))) from e
    except TimeoutError as e:
        raise HTTPException(504, f"{cluster.address}: no complete list of jobs within {rows.LIST_TIMEOUT:.0f} s") from e


def _shown(cluster: ClusterConnection, table: rows.JobTable, user: BaseUser) -> dict[str, Any]:
    readable = _readable(rows.dag_ids(table.jobs), user)
    return {
        "address": cluster.address,
        "on_record": table.number,
        "malformed": table.malformed,
        "limit": rows.MAX_JOBS,
        "jobs": rows.rows(table.jobs, cluster, readable),
    }

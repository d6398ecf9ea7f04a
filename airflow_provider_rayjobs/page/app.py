"""
The page "Ray jobs" and the view of one task's job: a web application in Airflow's API server, of static files and API
routes.

All routes need an Airflow login and are read-only. A user sees the connections that they may read in Airflow. Of the
jobs, a user sees those of the DAGs that they may read, and those that no DAG submitted. Of a job, a user sees the log
and Ray's message, which quotes the log, only if they may read the logs of its DAG.
"""

import asyncio
import contextlib
import hashlib
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar
from weakref import WeakValueDictionary

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import (
    ConnectionDetails,
    DagAccessEntity,
    DagDetails,
)
from airflow.api_fastapi.core_api.security import get_user, requires_access_connection, requires_access_dag
from airflow.models.connection import Connection
from airflow.models.dag import DagModel
from airflow.providers.common.compat.sdk import AirflowNotFoundException, conf
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_2_PLUS
from airflow.utils.session import create_session
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from sqlalchemy import select

from airflow_provider_rayjobs.cluster.connection import ClusterConnection
from airflow_provider_rayjobs.compat.connections import load_cluster
from airflow_provider_rayjobs.compat.masking import public, register_cluster
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError, RayJobsError
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.kubernetes.cluster import DEFAULT_KUBERNETES_CONN_ID, ClusterRef
from airflow_provider_rayjobs.page import made, rows, task, view
from airflow_provider_rayjobs.page.shared import Cost, SharedReads
from airflow_provider_rayjobs.text.safe_text import safe_value

T = TypeVar("T")

FOLDER = Path(__file__).parent

#: Name of each static file by its path.
FILES = {
    "/": "page.html",
    "/task": "task.html",
    **{f"/{name}": name for name in ("page.js", "task.js", "common.js", "page.css")},
}

#: Maximum number of jobs that are read in detail from one cluster at the same time. The limit is per cluster, so a slow
#: cluster delays no other.
MAX_READERS = 2

#: Maximum seconds to wait for a turn to read a job, and then to read it.
TURN_TIMEOUT = 25.0
VIEW_TIMEOUT = 25.0

#: Type of the connections to Kubernetes.
KUBERNETES_TYPE = "kubernetes"

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

#: Index of a task instance; Airflow's database takes no larger one.
MapIndex = Annotated[int, Query(ge=-1, le=2**31 - 1)]


@dataclass(frozen=True)
class _Cluster:
    """A cluster, and the key by which its answers are shared, which changes with the connection."""

    connection: ClusterConnection
    key: str


@dataclass(frozen=True)
class _Kubernetes:
    """A connection of type ``kubernetes``, and the key by which its answers are shared, which changes with it."""

    connection: Connection
    key: str


@dataclass(frozen=True)
class _Failure:
    """Why something could not be read, with an HTTP status; it is shared like an answer."""

    status: int
    reason: str


@dataclass(frozen=True)
class _Table:
    """A cluster's table, of which each user sees a part."""

    head: dict[str, Any]
    rows: list[rows.Row]
    dag_ids: set[str]


class _Answers:
    """What clusters have answered; shared by all users, so it is filtered before it is shown."""

    def __init__(self) -> None:
        self._tables: SharedReads[_Table | _Failure] = SharedReads()
        self._views: SharedReads[view.JobView | _Failure] = SharedReads()
        self._heads: SharedReads[_Cluster | _Failure] = SharedReads()
        self._made: SharedReads[made.Looked] = SharedReads()
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()  # by cluster, while it is read

    async def table(self, cluster: _Cluster) -> _Table:
        """
        Return the newest jobs of a cluster.

        :raises HTTPException: they can't be read.
        """
        return _unless_failed(await self._tables.get(cluster.key, partial(_newest_jobs, cluster.connection)))

    async def view(self, cluster: _Cluster, submission_id: str, *, whole: bool) -> view.JobView:
        """
        Return one job in detail.

        :raises HTTPException: it can't be read.
        """
        turn = self._turns.setdefault(cluster.key, asyncio.Semaphore(MAX_READERS))
        read = partial(_view, cluster.connection, turn, submission_id, whole=whole)
        return _unless_failed(await self._views.get((cluster.key, submission_id, whole), read, cluster.key))

    async def head(self, ref: ClusterRef, kubernetes: _Kubernetes) -> _Cluster:
        """
        Return a cluster that KubeRay made.

        :raises HTTPException: it is gone, or can't be found.
        """
        key = (kubernetes.key, ref)
        return _unless_failed(await self._heads.get(key, partial(_head, ref, kubernetes)))

    async def made(self, refs: tuple[ClusterRef, ...], kubernetes: _Kubernetes) -> made.Looked:
        """Return what Kubernetes says of clusters."""

        async def look(_: Cost) -> made.Looked:
            return await run_in_threadpool(made.look_at, refs, kubernetes.connection)

        return await self._made.get((kubernetes.key, refs), look)


def _unless_failed(answer: T | _Failure) -> T:
    if isinstance(answer, _Failure):
        raise HTTPException(answer.status, answer.reason)
    return answer


def create_app() -> FastAPI:
    """Return the application for Airflow's API server to mount."""
    app = FastAPI(title="Ray jobs", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(get_user)])
    answers = _Answers()
    may_read_tasks = Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))
    may_read_jobs = [Depends(requires_access_connection("GET")), may_read_tasks]

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

    @app.get("/api/connections/{connection_id}/jobs", dependencies=may_read_jobs)
    async def _jobs(connection_id: str, user: User) -> dict[str, Any]:
        cluster = await run_in_threadpool(_cluster, connection_id)
        table = await answers.table(cluster)
        return await run_in_threadpool(_shown, table, user)

    @app.get("/api/connections/{connection_id}/jobs/{submission_id}", dependencies=may_read_jobs)
    async def _job(connection_id: str, submission_id: str, user: User) -> dict[str, Any]:
        cluster = await run_in_threadpool(_cluster, connection_id)
        found = await answers.view(cluster, submission_id, whole=False)
        return await run_in_threadpool(_shown_job, cluster.connection, found, user, set())

    @app.get("/api/dags/{dag_id}/job", dependencies=[may_read_tasks])
    async def _job_of_task(
        dag_id: str, run_id: str, task_id: str, user: User, map_index: MapIndex = -1, settled: str = ""
    ) -> dict[str, Any]:
        named = await run_in_threadpool(task.job_of_task, dag_id, run_id, task_id, map_index)
        if named is None:
            return {"job": None}
        if named.submission_id == settled:  # the viewer has all of it
            return {"unchanged": True}
        job = _stored_job(named)
        try:
            await _view_task(answers, dag_id, named, user, job)
        except HTTPException as e:
            return {"job": safe_value(job), "problem": e.detail}
        return {"job": safe_value(job)}

    _add_made_clusters(app, answers, may_read_tasks, may_read_jobs)
    return app


def _add_made_clusters(app: FastAPI, answers: _Answers, may_read_tasks: Any, may_read_jobs: list[Any]) -> None:
    """Add the routes about clusters that KubeRay makes for tasks."""

    @app.get("/api/kubernetes", dependencies=[may_read_tasks])
    def _kubernetes_connections(user: User) -> list[str]:
        ids = {one.ref.kubernetes_conn_id for one in made.made_clusters()}
        return sorted(conn_id for conn_id in ids if _may_read_connection(conn_id, user))

    @app.get("/api/kubernetes/{connection_id}/clusters", dependencies=may_read_jobs)
    async def _made_clusters(connection_id: str, user: User) -> dict[str, Any]:
        kubernetes = await run_in_threadpool(_kubernetes, connection_id, user)
        clusters = await run_in_threadpool(made.made_clusters)
        clusters = [one for one in clusters if one.ref.kubernetes_conn_id == connection_id]
        refs = tuple(one.ref for one in clusters)
        looked = await answers.made(refs, kubernetes) if refs else made.Looked({})
        return await run_in_threadpool(_shown_clusters, clusters, looked, user)


def _stored_job(named: task.TaskJob) -> dict[str, Any]:
    """Return what the task itself stored of its job."""
    job = {"submission_id": named.submission_id, "job_url": named.job_page}
    if named.history_page:
        job["history_url"] = named.history_page
    if named.cluster is not None:
        job["cluster"] = str(named.cluster)
    return job


async def _view_task(answers: _Answers, dag_id: str, named: task.TaskJob, user: BaseUser, job: dict[str, Any]) -> None:
    """
    Add what can be read about a task's job.

    :raises HTTPException: its cluster is gone, or can't be read.
    """
    if named.cluster is None:
        cluster = await run_in_threadpool(_cluster_of, named, user)
    else:
        kubernetes = await run_in_threadpool(_kubernetes, named.cluster.kubernetes_conn_id, user)
        if not named.job_page:
            looked = await answers.made((named.cluster,), kubernetes)
            state = looked.states.get(named.cluster.uid, looked.problem) or "it is gone"
            job["waits"] = {"text": f"The cluster: {state}"}
            return
        cluster = await answers.head(named.cluster, kubernetes)
    job["connection"] = cluster.connection.conn_id
    found = await answers.view(cluster, named.submission_id, whole=True)
    job |= await run_in_threadpool(_shown_job, cluster.connection, found, user, {dag_id})


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


def _cluster(conn_id: str) -> _Cluster:
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
        raise HTTPException(502, view.problem(str(e))) from e
    register_cluster(cluster)
    return _Cluster(cluster, _key_of(conn_id, connection))


def _cluster_of(job: task.TaskJob, user: BaseUser) -> _Cluster:
    """
    Return the cluster of a task's job: by the task's connection, or else by the URL of the job's page.

    :raises HTTPException: if it can't be found, or the user may not read the connection.
    """
    if job.conn_id:
        if not _may_read_connection(job.conn_id, user):
            raise HTTPException(
                403, f"You don't have permission to read connection {job.conn_id!r}, which the task used."
            )
        return _cluster(job.conn_id)
    for conn_id in _known_connections():
        if _may_read_connection(conn_id, user):
            with contextlib.suppress(HTTPException):
                found = _cluster(conn_id)
                if found.connection.job_page(job.submission_id) == job.job_page:
                    return found
    raise HTTPException(404, "No connection that you may read leads to the cluster of this job.")


def _kubernetes(conn_id: str, user: BaseUser) -> _Kubernetes:
    """
    Read a connection of type ``kubernetes``; the default one may be missing, as Airflow's hook allows.

    :raises HTTPException: if there is no such connection, or the user may not read it.
    """
    if not _may_read_connection(conn_id, user):
        raise HTTPException(403, f"You don't have permission to read connection {conn_id!r}, which the task used.")
    connection = _find(conn_id)
    if connection is None and conn_id == DEFAULT_KUBERNETES_CONN_ID:
        connection = Connection(conn_id=conn_id, conn_type=KUBERNETES_TYPE)
    if connection is None or connection.conn_type != KUBERNETES_TYPE:
        raise HTTPException(404, f"Connection {conn_id!r} of type {KUBERNETES_TYPE} not found.")
    return _Kubernetes(connection, _key_of(conn_id, connection))


def _key_of(conn_id: str, connection: Connection) -> str:
    """Return the key by which answers are shared; it changes with the connection."""
    return f"{conn_id} {hashlib.sha256(connection.get_uri().encode()).hexdigest()}"


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


def _with_logs(dag_ids: set[str], user: BaseUser) -> set[str]:
    """Return the DAGs whose logs the user may read. One request if these are all, which is the usual case."""
    manager = get_auth_manager()

    def may_read(ids: set[str]) -> bool:
        requests: list[Any] = [
            {
                "method": "GET",
                "access_entity": DagAccessEntity.TASK_LOGS,
                "details": DagDetails(id=dag_id, team_name=_team(DagModel, dag_id)),
            }
            for dag_id in ids
        ]
        return manager.batch_is_authorized_dag(requests, user=user)

    return set(dag_ids) if may_read(dag_ids) else {dag_id for dag_id in dag_ids if may_read({dag_id})}


# Jobs


async def _newest_jobs(cluster: ClusterConnection, cost: Cost) -> _Table | _Failure:
    try:
        table = await rows.newest_jobs(cluster)
    except RayJobsError as e:
        return _failure(e, cost)
    except TimeoutError:
        return _Failure(504, f"{cluster.address}: no complete list of jobs within {rows.LIST_TIMEOUT:.0f} s")
    cost.end()
    return await run_in_threadpool(_table, cluster, table)


def _failure(e: RayJobsError | ValueError, cost: Cost) -> _Failure:
    if isinstance(e, RayClusterUnreachableError) and not e.maybe_sent:
        cost.drop()
    return _Failure(502, view.problem(str(e)))


async def _head(ref: ClusterRef, kubernetes: _Kubernetes, cost: Cost) -> _Cluster | _Failure:
    try:
        async with asyncio.timeout(VIEW_TIMEOUT):
            cluster = await run_in_threadpool(made.reach, ref, kubernetes.connection)
    except RayJobsError as e:
        return _failure(e, cost)
    except TimeoutError:
        return _Failure(504, f"{ref}: no answer within {VIEW_TIMEOUT:.0f} s")
    return _Cluster(cluster, f"{kubernetes.key} {ref.uid}")


async def _view(
    cluster: ClusterConnection, turn: asyncio.Semaphore, submission_id: str, cost: Cost, *, whole: bool
) -> view.JobView | _Failure:
    try:
        async with asyncio.timeout(TURN_TIMEOUT):
            await turn.acquire()
    except TimeoutError:
        cost.drop()
        return _Failure(503, f"{cluster.address}: too many jobs are being read; try again")
    cost.begin()
    try:
        async with asyncio.timeout(VIEW_TIMEOUT):
            return await view.read_view(cluster, submission_id, whole=whole)
    except (RayJobsError, ValueError) as e:  # no job can have this id
        return _failure(e, cost)
    except TimeoutError:
        return _Failure(504, f"{cluster.address}: no answer within {VIEW_TIMEOUT:.0f} s")
    finally:
        turn.release()


def _table(cluster: ClusterConnection, table: rows.JobTable) -> _Table:
    session = table.version.session_name if table.version else None
    head = {
        "address": cluster.address,
        "session": session,
        "resources": rows.amounts(table.resources),
        "read_at": table.read_at,
        "on_record": table.number,
        "malformed": table.malformed,
        "limit": rows.MAX_JOBS,
    }
    return _Table(head, rows.masked_rows(table.jobs, cluster, session), rows.dag_ids(table.jobs))


def _shown(table: _Table, user: BaseUser) -> dict[str, Any]:
    readable = _readable(table.dag_ids, user)
    return {**table.head, "jobs": rows.visible(table.rows, readable, _with_logs(readable, user))}


def _shown_clusters(clusters: list[made.MadeCluster], looked: made.Looked, user: BaseUser) -> dict[str, Any]:
    readable = _readable({one.dag_id for one in clusters}, user)
    return made.shown([one for one in clusters if one.dag_id in readable], looked, public)


def _shown_job(
    cluster: ClusterConnection, found: view.JobView, user: BaseUser, further_dags: set[str]
) -> dict[str, Any]:
    """
    Return a job as JSON.

    :param further_dags: DAGs whose logs the user must be allowed to read to see the job's, beside its own DAG.
    :raises HTTPException: the user may not read the job's DAG.
    """
    if found.job.submission_id is None:  # a driver, which Ray finds by its job id, but the table does not list
        raise HTTPException(404, "This job was not submitted to Ray.")
    dags = rows.dag_ids([found.job])
    if not dags <= _readable(dags, user):
        raise HTTPException(403, "You don't have permission to read the DAG of this job.")
    dags |= further_dags
    return view.shown(found, cluster, with_log=dags == _with_logs(dags, user))

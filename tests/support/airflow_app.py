"""Airflow's API server as an application in this process (3.1 and later), with real routes, plugins and logins."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI
    from fastapi.testclient import TestClient

#: Nora may not read task logs.
USERS = {"olga": "op", "paul": "op", "nora": "op", "vera": "viewer"}

#: Only olga may see this DAG.
PRIVATE_DAG = "private"

SETTINGS = {
    "AIRFLOW__CORE__AUTH_MANAGER": "tests.support.auth_manager.PrivateDagAuthManager",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in USERS.items()),
    "AIRFLOW__API_AUTH__JWT_SECRET": "a-secret-for-tests-only-" * 3,
    "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
    "AIRFLOW__API__BASE_URL": "http://testserver",
}


def database() -> None:
    """Create Airflow's database in ``AIRFLOW_HOME``, unless it is there."""
    from airflow.utils.db import initdb

    initdb()


@contextmanager
def running_app() -> Iterator[FastAPI]:
    """Create Airflow's application, with a database in ``AIRFLOW_HOME``; this takes about 10 s."""
    passwords = Path(os.environ["AIRFLOW_HOME"]) / "passwords.json"
    passwords.write_text(json.dumps({name: f"password-of-{name}" for name in USERS}))
    settings = {**SETTINGS, "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords)}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        from airflow.api_fastapi.app import create_app, purge_cached_app

        database()
        purge_cached_app()
        yield create_app(apps="core")
        purge_cached_app()
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def client_of(app: FastAPI, user: str | None) -> TestClient:
    """Return a client with the cookie of the user's login; without one for None."""
    from fastapi.testclient import TestClient

    client = TestClient(app, follow_redirects=False)
    if user is not None:
        login = {"username": user, "password": f"password-of-{user}"}
        token = client.post("/auth/token", json=login).json()["access_token"]
        client.cookies.set("_token", token)
    return client


def add_connection(conn_id: str, **fields: Any) -> None:
    """Add a connection to the database, or replace the one with this id."""
    from airflow.models import Connection
    from airflow.utils.session import create_session

    remove_connection(conn_id)
    with create_session() as session:
        session.add(Connection(conn_id=conn_id, **fields))


def remove_connection(conn_id: str) -> None:
    """Delete a connection from the database."""
    from airflow.models import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    with create_session() as session:
        session.execute(delete(Connection).where(Connection.conn_id == conn_id))


def add_task(
    dag_id: str,
    *,
    map_index: int = -1,
    page: Any = None,
    fields: dict[str, Any] | None = None,
    run_id: str = "manual__1",
    xcoms: dict[str, Any] | None = None,
    states: tuple[str | None, str] = (None, "queued"),
) -> None:
    """
    Add a run of a DAG with the task instance "fit", as they are after a Ray job was submitted.

    :param page: value of the XCom with the URL of the job's page; None for no XCom.
    :param xcoms: other XComs by their keys.
    :param states: of the task instance and of the run.
    :param fields: the rendered arguments; None if Airflow no longer keeps them.
    """
    from airflow.models.dagrun import DagRun
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import insert, select

    run = {"dag_id": dag_id, "run_id": run_id}
    task = {**run, "task_id": "fit", "map_index": map_index}
    with create_session() as session:
        session.execute(insert(DagRun).values(**run, run_type="manual", run_after=datetime.now(UTC), state=states[1]))
        run_key = session.scalar(select(DagRun.id).filter_by(**run))
        session.execute(insert(TaskInstance).values(**task, pool="default_pool", state=states[0]))
        stored = {**({} if page is None else {"_link_RayJobLink": page}), **(xcoms or {})}
        for key, value in stored.items():
            session.execute(insert(XComModel).values(**task, dag_run_id=run_key, key=key, value=value))
        if fields is not None:
            session.execute(insert(RenderedTaskInstanceFields).values(**task, rendered_fields=fields))

"""
The Airflow plugin that adds the page "Ray jobs" to the menu "Browse", and the view "Ray job" to each task instance if
``[ray_jobs] task_view`` is set, on Airflow 3.1 and newer. It also notes what assets were told of Ray jobs.

Every Airflow process loads plugins, so this module imports nothing heavy. The page's application is created at its
first request, which only the API server receives. Older versions can't show such pages; there the plugin is empty.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

if AIRFLOW_V_3_1_PLUS:
    from airflow.listeners import hookimpl

if TYPE_CHECKING:
    from fastapi import FastAPI

URL_PREFIX = "/ray-jobs"


async def jobs_page(scope: Any, receive: Any, send: Any) -> None:
    """Serve the page (ASGI)."""
    await _app()(scope, receive, send)


@cache
def _app() -> FastAPI:
    from airflow_provider_rayjobs.page.app import create_app

    return create_app()


def ui_path() -> str:
    """Return the path under which Airflow serves its UI, without a trailing slash."""
    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")


def views() -> list[dict[str, str]]:
    """Return the external views: the page, and the view of a task's job if this deployment wants it."""
    base = f"{ui_path()}{URL_PREFIX}"
    page = {
        "name": "Ray jobs",
        "href": f"{base}/",
        "destination": "nav",
        "category": "browse",
        "url_route": "ray-jobs",
    }
    # Up to 3.3, Airflow shows such a view on every task, whatever its operator is; so it is not shown unasked.
    if not conf.getboolean("ray_jobs", "task_view", fallback=False):
        return [page]
    # Airflow 3.1 does not quote the names that it puts in.
    task = "dag_id={DAG_ID}&run_id={RUN_ID}&task_id={TASK_ID}&map_index={MAP_INDEX}"
    return [
        page,
        {"name": "Ray job", "href": f"{base}/task?{task}", "destination": "task_instance", "url_route": "ray-job"},
    ]


APPS = [{"name": "Ray jobs", "app": jobs_page, "url_prefix": URL_PREFIX}]


class RecordedEvents:
    """Notes which ends of Ray jobs Airflow has recorded as events of assets; a listener."""

    if AIRFLOW_V_3_1_PLUS:

        @hookimpl
        def on_asset_changed(self, asset: Any) -> None:
            """Look for events of ``RayJobEventTrigger`` in the running transaction."""
            from airflow_provider_rayjobs.tasks.told_ends import note

            note()


LISTENERS: list[Any] = [RecordedEvents()]


class RayJobsPlugin(AirflowPlugin):
    """Adds the page and the view to Airflow's UI, and the listener."""

    name = "ray_jobs"

    if AIRFLOW_V_3_1_PLUS:
        fastapi_apps = APPS
        external_views = views()
        listeners = LISTENERS

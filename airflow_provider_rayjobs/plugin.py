"""
What Airflow's plugin manager finds: the page "Ray jobs" in the menu "Browse", on Airflow 3.1 and newer.

Every process of Airflow loads plugins, so this loads nothing; the page is made at its first request, which only the
API server gets. On older versions, whose UI takes no pages, the plugin is empty.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_1_PLUS

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


def path_of_the_ui() -> str:
    """Return the path below which Airflow's UI is, without a slash at the end."""
    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")


APPS = [{"name": "Ray jobs", "app": jobs_page, "url_prefix": URL_PREFIX}]
VIEWS = [
    {
        "name": "Ray jobs",
        "href": f"{path_of_the_ui()}{URL_PREFIX}/",
        "destination": "nav",
        "category": "browse",
        "url_route": "ray-jobs",
    }
]


class RayJobsPlugin(AirflowPlugin):
    """Puts the page into Airflow's UI."""

    name = "ray_jobs"

    if AIRFLOW_V_3_1_PLUS:
        fastapi_apps = APPS
        external_views = VIEWS

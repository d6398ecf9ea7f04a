"""What Airflow's plugin manager loads, in every process and on every version."""

from __future__ import annotations

import asyncio
import sys
from importlib.metadata import version
from typing import Any

import pytest

from airflow_provider_rayjobs.plugin import RayJobsPlugin, ui_path, views
from tests.unit.project.test_layout import PACKAGE, loaded_after_airflow

WITH_PAGES = tuple(map(int, version("apache-airflow").split(".")[:2])) >= (3, 1)


def test_loading_the_plugin_loads_nothing_else() -> None:
    more = loaded_after_airflow()["plugin"]
    assert f"{PACKAGE}.plugin" in more
    more = {
        name for name in more if "listeners" not in name.split(".")
    }  # which Airflow loads for any plugin's listener
    assert {name.split(".")[0] for name in more} <= {PACKAGE, *sys.stdlib_module_names}
    assert f"{PACKAGE}.page.app" not in more


@pytest.mark.parametrize(
    ("base_url", "path"),
    [("", ""), ("http://airflow:8080", ""), ("https://example.com/airflow/", "/airflow"), ("/airflow", "/airflow")],
)
def test_the_page_is_below_airflows_own_path(base_url: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    assert ui_path() == path


def test_the_view_of_a_task_s_job_is_shown_only_if_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [view["destination"] for view in views()] == ["nav"]
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.com/airflow/")
    monkeypatch.setenv("AIRFLOW__RAY_JOBS__TASK_VIEW", "True")
    page, task = views()
    assert (task["destination"], task["url_route"]) == ("task_instance", "ray-job")
    assert task["href"] == (
        "/airflow/ray-jobs/task?dag_id={DAG_ID}&run_id={RUN_ID}&task_id={TASK_ID}&map_index={MAP_INDEX}"
    )
    assert page["url_route"] != task["url_route"]


@pytest.mark.skipif(WITH_PAGES, reason="its UI takes pages")
def test_on_an_older_airflow_the_plugin_is_empty() -> None:
    assert not getattr(RayJobsPlugin, "external_views", [])
    assert not getattr(RayJobsPlugin, "fastapi_apps", [])
    assert not getattr(RayJobsPlugin, "listeners", [])


@pytest.mark.skipif(not WITH_PAGES, reason="it has no triggers of assets")
def test_airflow_calls_the_listener_for_each_event_of_an_asset(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.listeners.listener import get_listener_manager

    from airflow_provider_rayjobs.tasks import told_ends

    calls: list[int] = []
    monkeypatch.setattr(told_ends, "note", lambda: calls.append(1))
    get_listener_manager().hook.on_asset_changed(asset=None)
    assert calls == [1]


@pytest.mark.skipif(not WITH_PAGES, reason="its UI takes no pages")
def test_the_page_is_made_at_its_first_request() -> None:
    (app,) = RayJobsPlugin.fastapi_apps
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "state": {}}
    asyncio.run(app["app"](scope, receive, send))
    assert sent[0]["status"] == 401

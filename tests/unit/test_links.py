"""The link to a job's page: kept as an XCom, where both versions of Airflow look for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_rayjobs import links
from airflow_provider_rayjobs.links import (
    HISTORY_PAGE_XCOM,
    JOB_PAGE_XCOM,
    RayJobLink,
    link_to_history,
    store_job_page,
)
from tests.support.connections import read
from tests.support.tries import TaskInstance


def test_the_url_is_kept_under_the_name_that_airflow_3_looks_for() -> None:
    assert RayJobLink().xcom_key == JOB_PAGE_XCOM == f"_link_{RayJobLink.__name__}"


def test_the_page_of_a_job_is_stored_before_the_job_is_there() -> None:
    ti = TaskInstance("run", 1, 0)
    context: Any = {"ti": ti}
    store_job_page(context, read(host="head"), "a b")
    assert ti.xcoms == {JOB_PAGE_XCOM: "http://head:8265/#/jobs/a%20b"}


def test_the_link_leads_to_the_history_server_once_the_cluster_ends() -> None:
    ti = TaskInstance("run", 1, 0)
    context: Any = {"ti": ti}
    store_job_page(
        context, read({"history_url": "https://history/{session}/{submission_id}"}, host="head"), "a b", "s1"
    )
    assert ti.xcoms == {
        JOB_PAGE_XCOM: "http://head:8265/#/jobs/a%20b",
        HISTORY_PAGE_XCOM: "https://history/s1/a%20b",
    }
    link_to_history(context)
    assert ti.xcoms[JOB_PAGE_XCOM] == "https://history/s1/a%20b"


@pytest.mark.parametrize("stored", [None, 7, "javascript:alert(1)", "file:///etc/passwd"])
def test_no_other_link_is_taken_for_a_history_page(stored: Any) -> None:
    ti = TaskInstance("run", 1, 0)
    ti.xcoms = {JOB_PAGE_XCOM: "http://head", HISTORY_PAGE_XCOM: stored}
    context: Any = {"ti": ti}
    link_to_history(context)
    assert ti.xcoms[JOB_PAGE_XCOM] == "http://head"


@pytest.mark.parametrize(("kept", "url"), [("http://head:8265/#/jobs/a", "http://head:8265/#/jobs/a"), (None, "")])
def test_a_task_without_a_job_has_no_link(kept: str | None, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def get_value(**given: Any) -> str | None:
        asked.append(given)
        return kept

    monkeypatch.setattr(links, "XCom", SimpleNamespace(get_value=get_value))
    key: Any = object()
    operator: Any = None
    assert RayJobLink().get_link(operator, ti_key=key) == url
    assert asked == [{"key": JOB_PAGE_XCOM, "ti_key": key}]

"""The scripts of the page and of the tab, with answers that no real Airflow gives at the right moment."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import expect

import airflow_provider_rayjobs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page, Route

FILES = Path(airflow_provider_rayjobs.__file__).parent / "page"
TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
BASE = "http://airflow.test/ray-jobs"
NOON = 1_800_000_000_000
JOB = {"submission_id": "job-1", "status": "FAILED", "job_url": "http://ray/#/jobs/job-1", "submitted": NOON - 60_000}


class Api:
    """Answers the requests of the scripts, by the end of their paths: with JSON, or with an error status."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"/api/kubernetes": []}
        self.asked: list[str] = []

    def fulfill(self, route: Route) -> None:
        url = urlsplit(route.request.url)
        path = unquote(url.path)
        if "/api/" not in path:
            file = FILES / path.rpartition("/")[2]
            route.fulfill(body=file.read_text(), content_type=TYPES[file.suffix])
            return
        self.asked.append(f"{path}?{url.query}")
        answer = next(answer for end, answer in self.answers.items() if path.endswith(end))
        status = answer if isinstance(answer, int) else 200
        route.fulfill(status=status, body=json.dumps(answer), content_type="application/json")


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def page(chromium: Browser, api: Api) -> Iterator[Page]:
    context = chromium.new_context(timezone_id="UTC")
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.clock.install(time=NOON / 1000)
    page.route("**/*", api.fulfill)
    yield page
    context.close()


def open_tab(page: Page) -> None:
    page.goto(f"{BASE}/task.html?dag_id=d&run_id=r&task_id=t&map_index=-1")


def refreshed(page: Page, api: Api) -> None:
    """Let the next refresh come, and its answers be drawn."""
    before = len(api.asked)
    page.clock.run_for(16_000)
    for _ in range(100):
        if len(api.asked) > before:
            break
        page.wait_for_timeout(20)
    page.wait_for_load_state("networkidle")
    page.evaluate("() => Promise.resolve()")


# The tab


def test_an_ended_job_is_read_once_and_left_as_it_is(page: Page, api: Api) -> None:
    job = {**JOB, "ended": NOON - 40_000, "read_at": NOON, "message": "a long message"}
    api.answers["/job"] = {"job": job}
    open_tab(page)
    expect(page.locator("#summary")).to_have_text("FAILED")
    message = page.locator("section pre")
    message.evaluate("pre => { getSelection().selectAllChildren(pre); pre.mark = 1 }")
    api.answers["/job"] = {"unchanged": True}
    refreshed(page, api)
    assert api.asked[0].endswith("&settled=")
    assert api.asked[-1].endswith("&settled=job-1")
    api.answers["/job"] = {"job": {**job, "read_at": NOON + 60_000}}
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator("#as-of")).to_contain_text("as of 08:01:00")
    assert api.asked[-1].endswith("&settled="), "the button reads it again"
    assert message.evaluate("pre => pre.mark") == 1
    assert page.evaluate("() => getSelection().toString()") == "a long message"
    api.answers["/job"] = {"job": {**job, "submission_id": "job-2", "status": "RUNNING", "ended": None}}
    refreshed(page, api)
    expect(page.locator("#summary")).to_have_text("RUNNING")


def test_a_job_that_has_just_ended_is_read_again(page: Page, api: Api) -> None:
    api.answers["/job"] = {"job": {**JOB, "ended": NOON - 1000, "read_at": NOON}}
    open_tab(page)
    expect(page.locator("#summary")).to_have_text("FAILED")
    refreshed(page, api)
    assert api.asked[-1].endswith("&settled=")


def test_only_what_changes_of_a_running_job_is_drawn_anew(page: Page, api: Api) -> None:
    job = {**JOB, "status": "RUNNING", "read_at": NOON, "log": {"lines": ["one"]}, "tasks": {"text": "1 of 2 done"}}
    api.answers["/job"] = {"job": job}
    open_tab(page)
    page.locator("#log").evaluate("pre => { pre.mark = 1 }")
    api.answers["/job"] = {"job": {**job, "read_at": NOON + 15_000, "tasks": {"text": "2 of 2 done"}}}
    refreshed(page, api)
    expect(page.get_by_text("2 of 2 done")).to_be_visible()
    expect(page.get_by_text("1 min 15 s so far")).to_be_visible()
    assert page.locator("#log").evaluate("pre => pre.mark") == 1


def test_an_answer_that_is_older_than_the_shown_one_is_ignored(page: Page, api: Api) -> None:
    api.answers["/job"] = {"job": {**JOB, "status": "RUNNING", "read_at": NOON}}
    open_tab(page)
    expect(page.locator("#summary")).to_have_text("RUNNING")
    api.answers["/job"] = {"job": {**JOB, "status": "PENDING", "read_at": NOON - 1}}
    refreshed(page, api)
    expect(page.locator("#summary")).to_have_text("RUNNING")


def test_a_problem_that_stays_is_told_once(page: Page, api: Api) -> None:
    api.answers["/job"] = {"job": JOB | {"status": None}, "problem": "no permission"}
    open_tab(page)
    expect(page.locator("#trouble")).to_have_text("no permission")
    page.locator("#trouble").evaluate(
        "node => { window.changes = 0; new MutationObserver(() => changes++).observe(node, { childList: true }) }"
    )
    refreshed(page, api)
    assert page.evaluate("() => changes") == 0


# The page


def row(**fields: Any) -> dict[str, Any]:
    common = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": "1", "entrypoint": "x"}
    links = {"job_url": "http://ray/#/jobs/job-1", "history_url": "", "task_url": "../dags/d"}
    job = {"submission_id": "job-1", "status": "RUNNING", "started": NOON - 60_000, "ended": None, "message": "fine"}
    return {**common, **links, **job, **fields}


def answer(*jobs: dict[str, Any], read_at: int = NOON) -> dict[str, Any]:
    facts = {"address": "http://ray", "session": "s1", "resources": None, "on_record": len(jobs), "malformed": 0}
    return {**facts, "read_at": read_at, "limit": 2000, "jobs": jobs}


def open_page(page: Page, api: Api, **answers: Any) -> None:
    api.answers["/api/connections"] = list(answers)
    api.answers |= {f"/{conn_id}/jobs": found for conn_id, found in answers.items()}
    page.goto(f"{BASE}/page.html")


def test_a_cluster_that_claims_another_s_session_replaces_none_of_its_rows(page: Page, api: Api) -> None:
    lie = row(status="SUCCEEDED", message="all is well", ended=NOON, job_url="http://other/#/jobs/job-1")
    open_page(page, api, a=answer(lie, read_at=NOON + 5), b=answer(row(status="FAILED", message="boom", ended=NOON)))
    expect(page.locator("#jobs tr.job")).to_have_count(2)
    expect(page.locator("#jobs tr.job").filter(has_text="boom")).to_contain_text("FAILED")


def test_a_job_of_one_cluster_has_one_row(page: Page, api: Api) -> None:
    open_page(page, api, a=answer(row(task_url=None)), b=answer(row(), read_at=NOON + 5))
    expect(page.locator("#jobs tr.job")).to_have_count(1)
    expect(page.locator("#jobs tr.job")).to_contain_text("a, b")
    expect(page.locator("#jobs a[href$='/dags/d']")).to_be_visible()


def test_a_failed_request_leaves_the_rows_and_says_since_when(page: Page, api: Api) -> None:
    open_page(page, api, a=answer(row()))
    expect(page.locator("#jobs tr.job")).to_have_count(1)
    for _ in range(2):
        api.answers["/a/jobs"] = 502
        refreshed(page, api)
        expect(page.locator("#problems")).to_contain_text(
            re.compile(r"are as of 08:00:00, and can't be read since 08:00:1\d: Airflow responded with HTTP 502")
        )
        expect(page.locator("#jobs tr.job")).to_have_count(1)
    api.answers["/a/jobs"] = answer(row(), read_at=NOON + 1)
    refreshed(page, api)
    expect(page.locator("#problems tr")).to_have_count(0)


def test_rows_that_the_user_may_no_longer_read_are_removed(page: Page, api: Api) -> None:
    open_page(page, api, a=answer(row()))
    expect(page.locator("#jobs tr.job")).to_have_count(1)
    api.answers["/a/jobs"] = 403
    refreshed(page, api)
    expect(page.locator("#problems")).to_contain_text("You don't have permission")
    expect(page.locator("#jobs tr.job")).to_have_count(0)


def test_an_older_list_of_another_process_is_ignored(page: Page, api: Api) -> None:
    open_page(page, api, a=answer(row(status="SUCCEEDED", ended=NOON)))
    expect(page.locator("#jobs .status")).to_have_text("SUCCEEDED")
    api.answers["/a/jobs"] = answer(row(), read_at=NOON - 1000)
    refreshed(page, api)
    expect(page.locator("#jobs .status")).to_have_text("SUCCEEDED")

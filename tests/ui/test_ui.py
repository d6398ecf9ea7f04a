"""User actions in a browser, from the connection form to the job's page. Takes the screenshots of the docs."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from playwright.sync_api import expect

from tests.support import answers
from tests.support.scripted_server import ScriptedRay
from tests.ui.conftest import ROOT, WAIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import FrameLocator, Locator, Page

    from tests.support.airflow_env import AirflowEnv
    from tests.support.ray_head import RayHead

expect.set_options(timeout=WAIT)

IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 250_000
EVIL = """<img src=x onerror="document.title='evil'">"""
DAG_ID = "train_model"


def shoot(page: Page, name: str) -> None:
    """Take a screenshot for the docs, without a tooltip."""
    page.mouse.move(640, 790)
    expect(page.locator("[role=tooltip]:visible")).to_have_count(0)
    IMAGES.mkdir(parents=True, exist_ok=True)
    picture = page.screenshot(path=IMAGES / f"{name}.png", animations="disabled", caret="hide")
    assert len(picture) < MOST_BYTES


def open_jobs(page: Page) -> FrameLocator:
    """Open the Ray jobs page from Airflow's menu; return its frame."""
    page.goto("/")
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="Ray jobs").click()
    return jobs_frame(page)


def jobs_frame(page: Page) -> FrameLocator:
    frame = page.frame_locator("iframe[title='Ray jobs']")
    expect(frame.get_by_role("heading", name="Ray jobs")).to_be_visible()
    return frame


def rows(frame: FrameLocator) -> Locator:
    return frame.locator("#jobs tr.job")


def open_view(page: Page, path: str) -> FrameLocator:
    """Open the view of a task's job, from the task instance's page; return its frame."""
    page.goto(path)
    page.get_by_role("link", name="Ray job", exact=True).click()
    frame = page.frame_locator("iframe[title='Ray job']")
    expect(frame.get_by_role("heading", name="Ray job", exact=True)).to_be_visible()
    return frame


def task_path(airflow: AirflowEnv, dag_id: str, task_id: str) -> str:
    (run,) = airflow.query("SELECT run_id FROM dag_run WHERE dag_id = ?", dag_id)
    return f"/dags/{dag_id}/runs/{quote(run['run_id'], safe='')}/tasks/{task_id}"


def test_from_the_connection_form_to_the_jobs_page(page: Page, airflow: AirflowEnv, ray: RayHead) -> None:
    fill_in_the_form(page, ray)
    ask_the_cluster(page)
    run_the_dag(page)
    read_the_live_log(page)
    look_at_the_task_s_job(page, ray)
    follow_the_link(page, ray)
    (run,) = airflow.query("SELECT run_id FROM dag_run WHERE dag_id = ?", DAG_ID)
    assert airflow.wait_run(DAG_ID, run["run_id"], {"success"}, timeout=300) == "success"
    ray.submit("python -c \"raise ValueError('no data for 2026-01-31')\"", submission_id="nightly-report")
    ray.submit("sleep 60", submission_id="notebook-of-ada")
    ray.wait_job("nightly-report", until={"FAILED"})
    ray.wait_job("notebook-of-ada", until={"RUNNING"})
    for job in ray.jobs():  # the head's first job may still be listed
        if job["submission_id"].startswith("ready-"):
            ray.request("DELETE", f"/api/jobs/{job['submission_id']}")
    look_at_the_jobs(page, ray)
    ray.stop_job("notebook-of-ada")


def fill_in_the_form(page: Page, ray: RayHead) -> None:
    page.goto("/connections")
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.get_by_role("textbox", name="Connection ID").fill("ray_default")
    form.get_by_role("combobox", name="Connection Type").fill("Ray Jobs")
    page.keyboard.press("Enter")
    form.get_by_role("textbox", name="Host").fill(f"http://{ray.host}")
    form.get_by_role("spinbutton", name="Port").fill(str(ray.port))
    shoot(page, "connection_form")
    form.get_by_role("button", name="Extra Fields", exact=True).click()
    for label in ("Token", "Headers", "Verify TLS"):
        expect(form.get_by_text(label, exact=True)).to_be_visible()
    for name in ("token", "headers", "cookies"):
        expect(form.locator(f"input[name='element_{name}']")).to_have_attribute("type", "password")
    form.get_by_role("spinbutton", name="Read timeout").fill("30")
    form.get_by_role("button", name="Save").click()
    expect(page.get_by_role("cell", name="ray_default")).to_be_visible()


def ask_the_cluster(page: Page) -> None:
    row = page.get_by_role("row").filter(has_text="ray_default")
    row.get_by_role("button", name="Test Connection").click()
    message = page.get_by_role("status").filter(has_text="Test Connection Successful")
    expect(message).to_contain_text(re.compile(r"Ray 2\.\d+\.\d+ at http://127\.0\.0\.1:\d+, session session_"))
    shoot(page, "connection_test")


def run_the_dag(page: Page) -> None:
    page.goto(f"/dags/{DAG_ID}")
    page.get_by_role("button", name="Trigger Dag").click()
    form = page.get_by_role("dialog")
    form.get_by_role("button", name="Trigger", exact=True).click()
    expect(form).to_be_hidden()


def read_the_live_log(page: Page) -> None:
    task = page.locator(f"a[href*='/dags/{DAG_ID}/runs/'][href$='/tasks/train']")
    task.first.click()
    expect(page.get_by_text("epoch 1 of 8")).to_be_visible()
    expect(page.get_by_text("Running", exact=True).first).to_be_visible()
    expect(page.get_by_text("epoch 8 of 8")).to_have_count(0)
    expect(page.get_by_text("epoch 3 of 8")).to_be_visible()
    shoot(page, "task_log")


def look_at_the_task_s_job(page: Page, ray: RayHead) -> None:
    frame = open_view(page, page.url)
    expect(frame.locator(".headline .status")).to_have_text("RUNNING")
    expect(frame.get_by_text(re.compile(r"Ray tasks: \d+ of \d+ done, 2 running \(gradient"))).to_be_visible()
    expect(frame.locator("#log")).to_contain_text("epoch 3 of 8")
    expect(frame.locator(".timeline li")).to_have_text([re.compile("PENDING .* for"), re.compile("RUNNING .* so far")])
    shoot(page, "task_view")
    with page.expect_popup() as popup:
        frame.locator(".headline a").first.click()
    assert popup.value.url.startswith(f"{ray.url}/#/jobs/{DAG_ID}-train-")
    popup.value.close()


def follow_the_link(page: Page, ray: RayHead) -> None:
    page.get_by_role("link", name="Details").click()
    link = page.get_by_role("link", name="Ray job", exact=True).and_(page.locator(f"[href^='{ray.url}']"))
    with page.expect_popup() as popup:
        link.click()
    dashboard = popup.value
    assert dashboard.url.startswith(f"{ray.url}/#/jobs/{DAG_ID}-train-")
    dashboard.set_viewport_size({"width": 1280, "height": 800})
    expect(dashboard.get_by_text("Submission ID")).to_be_visible()
    expect(dashboard.locator("body")).to_contain_text("epoch 3 of 8")
    shoot(dashboard, "ray_dashboard")
    dashboard.close()


def look_at_the_jobs(page: Page, ray: RayHead) -> None:
    frame = open_jobs(page)
    expect(rows(frame)).to_have_count(6)
    expect(frame.locator("#clusters")).to_contain_text(re.compile(r"6 jobs · 1 node · \d of 4 CPUs free"))
    shoot(page, "jobs_page")
    frame.get_by_label("Status").select_option("FAILED")
    expect(rows(frame)).to_have_count(1)
    expect(rows(frame)).to_contain_text("ValueError: no data for 2026-01-31")
    frame.get_by_label("Status").select_option("")
    frame.get_by_label("Search").fill("evaluate")
    expect(rows(frame)).to_have_count(3)
    # Both links open outside the frame.
    mapped = rows(frame).filter(has_text=f"{DAG_ID} · evaluate [1]")
    with page.expect_popup() as popup:
        mapped.get_by_role("link").last.click()
    assert popup.value.url.startswith(f"{ray.url}/#/jobs/{DAG_ID}-evaluate-m1-")
    popup.value.close()
    mapped.get_by_role("link").first.click()
    page.wait_for_url(re.compile(rf"/dags/{DAG_ID}/runs/[^/]+/tasks/evaluate/mapped/1$"))
    expect(page.get_by_text("accuracy on b: 0.91").first).to_be_visible()


def test_markup_in_a_job_stays_text(page: Page, airflow: AirflowEnv, ray: RayHead) -> None:
    airflow.add_connection("ray_evil", "ray_jobs", host=ray.url)
    origin = {f"airflow_{name}": EVIL for name in ("dag_id", "run_id", "task_id")}
    for name, metadata in (("evil-dag", origin), ("evil-job", {})):
        ray.submit(f"echo '{EVIL}'; exit 1 # {EVIL}", submission_id=name, metadata=metadata)
        ray.wait_job(name, until={"FAILED"})
    frame = open_jobs(page)
    frame.get_by_label("Connection", exact=True).select_option("ray_evil")
    frame.get_by_label("Search").fill("<img src=x onerror")
    expect(rows(frame)).to_have_count(2)
    expect(rows(frame).filter(has_text="evil-dag")).to_contain_text(f"{EVIL} · {EVIL}")
    expect(rows(frame).filter(has_text="evil-job").locator("code")).to_contain_text(EVIL)
    for name in ("evil-dag", "evil-job"):
        frame.get_by_role("button", name=f"Details of {name}").click()
    expect(frame.locator("#jobs tr.details pre").filter(has_text=EVIL)).to_have_count(4)
    assert frame.locator("img").count() == 0
    assert frame.locator("html").evaluate("() => document.title") == "Ray jobs"
    airflow.api("DELETE", "connections/ray_evil")
    for name in ("evil-dag", "evil-job"):  # so that the next screenshot does not show them
        ray.request("DELETE", f"/api/jobs/{name}")


def test_a_thousand_jobs_and_a_cluster_that_is_gone(page: Page, airflow: AirflowEnv) -> None:
    with ScriptedRay() as many:
        for number in range(1000):
            many.add_job(f"job-{number:04}", "SUCCEEDED" if number % 10 else "FAILED", start_time=1_000_000 + number)
        airflow.add_connection("ray_many", "ray_jobs", host=many.url)
        airflow.add_connection("ray_gone", "ray_jobs", host="http://127.0.0.1:9")
        frame = open_jobs(page)
        frame.get_by_label("Connection", exact=True).select_option("ray_many")
        expect(frame.get_by_text("1 to 50 of 1000")).to_be_visible()
        expect(rows(frame)).to_have_count(50)
        expect(rows(frame).first).to_contain_text("job-0999")
        frame.get_by_role("button", name="Next").click()
        expect(rows(frame).first).to_contain_text("job-0949")
        frame.get_by_label("Status").select_option("FAILED")
        expect(frame.get_by_text("1 to 50 of 100", exact=True)).to_be_visible()
        frame.get_by_label("Search").fill("job-0420")
        expect(rows(frame)).to_have_count(1)
        frame.get_by_label("Connection", exact=True).select_option("")
        gone = frame.locator("#problems tr").filter(has_text="ray_gone")
        expect(gone).to_contain_text("http://127.0.0.1:9: connection refused")
        expect(rows(frame)).to_have_count(1)
    for conn_id in ("ray_many", "ray_gone"):
        airflow.api("DELETE", f"connections/{conn_id}")


@contextmanager
def scripted_cluster(airflow: AirflowEnv, *conn_ids: str) -> Iterator[ScriptedRay]:
    """Connections to one scripted cluster with 60 jobs, of which the newest is job-59."""
    with ScriptedRay() as cluster:
        for number in range(60):
            status = "FAILED" if number % 10 == 0 else "SUCCEEDED"
            cluster.add_job(f"job-{number}", status, start_time=1_769_900_000_000 + number * 60_000)
        for conn_id in conn_ids:
            airflow.add_connection(conn_id, "ray_jobs", host=cluster.url)
        yield cluster
        for conn_id in conn_ids:
            airflow.api("DELETE", f"connections/{conn_id}")


def lists(cluster: ScriptedRay) -> int:
    """Return how often a cluster was asked for its jobs."""
    return sum(request.path == "/api/jobs/" for request in cluster.received)


def test_a_job_seen_through_two_connections_has_one_row(page: Page, airflow: AirflowEnv) -> None:
    with scripted_cluster(airflow, "ray_one", "ray_two"):
        frame = open_jobs(page)
        frame.get_by_label("Search").fill("job-42")
        expect(rows(frame)).to_have_count(1)
        expect(rows(frame)).to_contain_text("ray_one, ray_two")
        expect(frame.get_by_role("listitem").filter(has_text="ray_one")).to_contain_text("ray_one, ray_two")
        for conn_id in ("ray_one", "ray_two"):
            frame.get_by_label("Connection", exact=True).select_option(conn_id)
            expect(rows(frame)).to_have_count(1)


def test_the_page_refreshes_itself_and_leaves_everything_in_its_place(page: Page, airflow: AirflowEnv) -> None:
    with scripted_cluster(airflow, "ray_one") as cluster:
        frame = open_jobs(page)
        frame.get_by_label("Connection", exact=True).select_option("ray_one")
        toggle = frame.get_by_role("button", name="Details of job-43")
        toggle.focus()
        page.keyboard.press("Enter")
        expect(toggle).to_have_attribute("aria-expanded", "true")
        expect(frame.locator("tr.details pre").first).to_have_text("Job finished successfully.")
        # What a user would lose if the rows were made anew: the focus, selected text, and the place of the scroll bar.
        select = "row => getSelection().selectAllChildren(row)"
        rows(frame).filter(has_text="job-44").locator("td.col-submitted").evaluate(select)
        scroll = frame.locator(".scroll")
        scroll.evaluate("box => { box.scrollTop = 400 }")
        place = "row => row.getBoundingClientRect().top"
        before = rows(frame).filter(has_text="job-43").evaluate(place)
        cluster.add_job("job-new", "RUNNING")
        expect(frame.locator("#summary")).to_have_text(re.compile(r"^61 of "))
        expect(rows(frame).first).to_contain_text("job-new")
        expect(toggle).to_be_focused()
        expect(toggle).to_have_attribute("aria-expanded", "true")
        expect(frame.locator("tr.details pre").first).to_have_text("Job finished successfully.")
        assert abs(rows(frame).filter(has_text="job-43").evaluate(place) - before) < 2
        assert frame.locator("html").evaluate("() => getSelection().toString()").startswith("2026-0")


def test_a_page_that_nobody_sees_or_that_is_paused_asks_nothing(page: Page, airflow: AirflowEnv) -> None:
    with scripted_cluster(airflow, "ray_one") as cluster:
        frame = open_jobs(page)
        expect(frame.locator("#clusters")).to_contain_text("60 jobs")
        frame.get_by_label("Refresh every 15 s").uncheck()
        seen = lists(cluster)
        time.sleep(20)
        assert lists(cluster) == seen
        hide = "hidden => Object.defineProperty(document, 'hidden', { value: hidden, configurable: true })"
        frame.locator("html").evaluate(f"() => ({hide})(true)")
        frame.get_by_label("Refresh every 15 s").check()
        time.sleep(5)
        assert lists(cluster) == seen
        frame.locator("html").evaluate(
            f"() => {{ ({hide})(false); document.dispatchEvent(new Event('visibilitychange')) }}"
        )
        cluster.wait_for(lambda: lists(cluster) == seen + 1)


def test_no_request_piles_up_behind_one_without_an_answer(page: Page, airflow: AirflowEnv) -> None:
    with scripted_cluster(airflow, "ray_one") as cluster:
        cluster.script("GET", "/api/jobs/", answers.default(delay=60), forever=True)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        frame = open_jobs(page)
        cluster.wait_for(lambda: lists(cluster) == 1)
        for _ in range(3):
            frame.get_by_role("button", name="Refresh", exact=True).click()
        time.sleep(16)
        assert sum(url.endswith("/api/connections/ray_one/jobs") for url in asked) == 1
        assert sum(url.endswith("/api/connections/ray_default/jobs") for url in asked) > 1
        expect(frame.locator("#problems")).to_contain_text("no complete list of jobs within 20 s")


def test_what_is_shown_is_in_the_address(page: Page, airflow: AirflowEnv) -> None:
    with scripted_cluster(airflow, "ray_one"):
        frame = open_jobs(page)
        expect(frame.locator("#clusters")).to_contain_text("60 jobs")
        frame.get_by_label("Connection", exact=True).select_option("ray_one")
        frame.get_by_label("Status").select_option("FAILED")
        frame.get_by_role("button", name="Submitted").click()
        expect(rows(frame).first).to_contain_text("job-0")
        heading = frame.get_by_role("columnheader", name="Submitted")
        expect(heading).to_have_attribute("aria-sort", "ascending")
        page.wait_for_url(re.compile(r"/plugin/ray-jobs.*#sort=submitted&status=FAILED&connection=ray_one$"))
        shared = page.url
        frame.get_by_role("button", name="Job on Ray").click()
        expect(heading).not_to_have_attribute("aria-sort", re.compile("."))
        page.go_back()
        expect(heading).to_have_attribute("aria-sort", "ascending")
        page.go_back()
        expect(rows(frame).first).to_contain_text("job-50")
        page.go_back()
        expect(frame.get_by_label("Status")).to_have_value("")
        expect(rows(frame).first).to_contain_text("job-59")
        page.go_forward()
        expect(frame.get_by_label("Status")).to_have_value("FAILED")
        page.goto("/")
        page.goto(shared)
        expect(rows(frame)).to_have_count(6)
        expect(rows(frame).first).to_contain_text("job-0")
        expect(frame.get_by_label("Connection", exact=True)).to_have_value("ray_one")


def test_times_are_in_the_zone_of_airflows_ui_and_limit_what_is_shown(page: Page, airflow: AirflowEnv) -> None:
    with scripted_cluster(airflow, "ray_one"):
        frame = open_jobs(page)
        frame.get_by_label("Connection", exact=True).select_option("ray_one")
        heading = frame.get_by_role("columnheader", name="Submitted")
        expect(heading).to_contain_text("UTC")
        expect(rows(frame).first).to_contain_text("2026-01-31 23:52:20")
        page.evaluate("() => localStorage.setItem('timezone', JSON.stringify('America/New_York'))")
        expect(heading).to_contain_text("America/New_York")
        expect(rows(frame).first).to_contain_text("2026-01-31 18:52:20")
        frame.get_by_label("Submitted", exact=True).select_option("custom")
        frame.get_by_label("From").fill("2026-01-31T18:00")
        frame.get_by_label("To", exact=True).fill("2026-01-31T18:10")
        expect(rows(frame)).to_have_count(10)
        expect(rows(frame).first).to_contain_text("2026-01-31 18:09:20")
        page.wait_for_url(re.compile(r"since=2026-01-31T23%3A00%3A00.000Z&until=2026-01-31T23%3A10%3A00.000Z"))
        frame.get_by_label("Submitted", exact=True).select_option("24h")
        expect(frame.get_by_text("No jobs match the filters.")).to_be_visible()
        page.evaluate("() => localStorage.removeItem('timezone')")


def test_on_a_narrow_screen_nothing_is_cut_off(page: Page, airflow: AirflowEnv) -> None:
    with scripted_cluster(airflow, "ray_one"):
        page.set_viewport_size({"width": 664, "height": 900})  # of which Airflow's menu takes 64
        frame = open_jobs(page)
        expect(rows(frame).first).to_be_visible()
        size = "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        needed, width = frame.locator("html").evaluate(size)
        assert needed <= width <= 600
        frame.get_by_role("button", name="Status").click()
        expect(frame.get_by_role("columnheader", name="Status")).to_have_attribute("aria-sort", "ascending")


def test_the_view_of_a_task_tells_why_its_job_failed_or_waits(page: Page, airflow: AirflowEnv, ray: RayHead) -> None:
    airflow.wait_dag("nightly_report")
    airflow.trigger("nightly_report", "night")
    frame = open_view(page, "/dags/nightly_report/runs/night/tasks/embed")
    expect(frame.locator(".headline .status")).to_have_text("PENDING")
    waits = frame.locator("section").filter(has_text="Why it waits")
    expect(waits).to_contain_text("needs 8 GPU on one node, but no node has 8 GPU (at most 0 GPU)")
    frame = open_view(page, "/dags/nightly_report/runs/night/tasks/report")
    expect(frame.locator(".headline .status")).to_have_text("FAILED")
    failed = frame.locator("section").filter(has_text="Why it failed")
    expect(failed).to_contain_text("2 of 10 Ray tasks failed")
    expect(failed).to_contain_text("ValueError: no data for 2026-01-3")
    expect(frame.locator("#log")).to_contain_text("read the last ten days of January")
    frame = open_view(page, "/dags/nightly_report/runs/night/tasks/plain")
    expect(frame.get_by_text("This task has no Ray job: its latest try has submitted none.")).to_be_visible()
    frame = open_view(page, f"{task_path(airflow, DAG_ID, 'evaluate')}/mapped/1")
    expect(frame.locator("#log")).to_contain_text("accuracy on b: 0.91")
    frame.get_by_role("link", name="All jobs of this run").click()
    expect(rows(jobs_frame(page))).to_have_count(4)
    airflow.set_run_state("nightly_report", "night", "failed")  # which stops the job that waits


#: What the log of a task says, by the task.
SAID = {
    "nightly_report/runs/logs/tasks/embed": re.compile(
        r"PENDING for 1\d s: needs 8 GPU on one node, but no node has 8 GPU"
    ),
    "nightly_report/runs/logs/tasks/report": re.compile(r"Ray job FAILED: exception in a Ray task; exit code 1"),
    "sweep/runs/logs/tasks/sweep": re.compile(r"Ray tasks: [\d,]+ of 1,400 done, \d+ running \(evaluate "),
}


def test_the_log_tells_why_a_job_waits_how_far_it_is_and_why_it_failed(page: Page, airflow: AirflowEnv) -> None:
    for dag_id in ("nightly_report", "sweep"):
        airflow.wait_dag(dag_id)
        airflow.trigger(dag_id, "logs")
    for dark in ("", "_dark"):
        if dark:
            choose_dark_mode(page)
        for path, said in SAID.items():
            page.goto(f"/dags/{path}")
            expect(page.get_by_text(said).first).to_be_visible(timeout=150_000)
            shoot(page, f"log_of_{path.rpartition('/')[2]}{dark}")
    airflow.set_run_state("nightly_report", "logs", "failed")
    assert airflow.wait_run("sweep", "logs", {"success"}, timeout=300) == "success"


def choose_dark_mode(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="User").click()
    page.get_by_role("menuitem", name="Appearance").click()
    page.get_by_role("menuitemradio", name="Dark Mode").click()


def test_the_page_follows_the_dark_mode_of_airflow(page: Page) -> None:
    choose_dark_mode(page)
    frame = open_jobs(page)
    background = "() => getComputedStyle(document.body).backgroundColor"
    around = "() => getComputedStyle(document.documentElement).backgroundColor"
    expect(frame.locator("html")).to_have_attribute("data-theme", "dark")
    assert frame.locator("body").evaluate(background) == page.evaluate(around)
    assert frame.locator("body").evaluate(background) != "rgb(255, 255, 255)"
    shoot(page, "jobs_page_dark")
    view = open_view(page, "/dags/nightly_report/runs/night/tasks/report")
    expect(view.locator("html")).to_have_attribute("data-theme", "dark")
    expect(view.locator("#log")).to_be_visible()
    shoot(page, "task_view_dark")


def test_without_a_login_there_is_no_page(stranger: Page) -> None:
    stranger.goto("/plugin/ray-jobs")
    expect(stranger.get_by_role("button", name="Sign in")).to_be_visible()
    answer = stranger.goto("/ray-jobs/")
    assert answer is not None
    assert answer.status == 401


def test_the_screenshots_of_the_readme_exist() -> None:
    shown = re.findall(r"\((docs/images/[\w.]+)\)", (ROOT / "README.md").read_text())
    assert shown
    assert all(Path(ROOT / name).exists() for name in shown)

"""User actions in a browser, from the connection form to the job's page. Takes the screenshots of the docs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.support.scripted_server import ScriptedRay
from tests.ui.conftest import ROOT, WAIT

if TYPE_CHECKING:
    from playwright.sync_api import FrameLocator, Locator, Page

    from tests.support.airflow_env import AirflowEnv
    from tests.support.ray_head import RayHead

expect.set_options(timeout=WAIT)

IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 200_000
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
    return frame.locator("#jobs tr")


def test_from_the_connection_form_to_the_jobs_page(page: Page, airflow: AirflowEnv, ray: RayHead) -> None:
    fill_in_the_form(page, ray)
    ask_the_cluster(page)
    run_the_dag(page)
    read_the_live_log(page)
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


def follow_the_link(page: Page, ray: RayHead) -> None:
    page.get_by_role("link", name="Details").click()
    link = page.get_by_role("link", name="Ray job", exact=True)
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
        gone = frame.get_by_role("listitem").filter(has_text="ray_gone")
        expect(gone).to_contain_text("connection refused")
    for conn_id in ("ray_many", "ray_gone"):
        airflow.api("DELETE", f"connections/{conn_id}")


def test_the_page_follows_the_dark_mode_of_airflow(page: Page) -> None:
    frame = open_jobs(page)
    background = "() => getComputedStyle(document.body).backgroundColor"
    page.get_by_role("button", name="User").click()
    page.get_by_role("menuitem", name="Appearance").click()
    page.get_by_role("menuitemradio", name="Dark Mode").click()
    expect(frame.locator("html")).to_have_attribute("data-theme", "dark")
    assert frame.locator("body").evaluate(background) == "rgb(17, 17, 17)"
    shoot(page, "jobs_page_dark")


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

"""A browser, an Airflow and a Ray head, which are started once."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ray_head import RayHead, require_ray
from tests.ui.stage import LOGIN, make_airflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Page

    from tests.support.airflow_env import AirflowEnv

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

#: The folder for screenshots of failed tests.
FAILURES = ROOT / "build" / "ui"

#: Only the environment "ui" has playwright.
collect_ignore_glob = [] if importlib.util.find_spec("playwright") else ["test_*.py"]

SIZE = {"width": 1280, "height": 800}
WAIT = 60_000  # milliseconds to wait for an element, because the machine may be busy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.ui)
            item.add_marker(pytest.mark.timeout(900))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    page: Page | None = getattr(item, "funcargs", {}).get("page")
    if page is not None and report.when == "call" and report.failed:
        FAILURES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=FAILURES / f"{item.name}.png")
        (FAILURES / f"{item.name}.txt").write_text(page.locator("body").aria_snapshot())
    return report


@pytest.fixture(scope="session")
def ray() -> Iterator[RayHead]:
    # Without a token, so that the screenshots show the dashboard, not its login. The monitor reports the resources.
    with RayHead(num_cpus=4, ray_bin=require_ray(), token="", monitor=True) as head:
        yield head


@pytest.fixture(scope="session")
def airflow(ray: RayHead) -> Iterator[AirflowEnv]:
    """Starts after the head, which needs all of a small machine. The screenshots show paths of this Airflow."""
    with tempfile.TemporaryDirectory(prefix="airflow-") as home:
        env = make_airflow(Path(home))
        env.start()
        yield env
        env.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    sys.path.insert(0, str(ROOT / "tools"))
    from chromium import find

    program = find()
    assert program, "no Chromium: run `python tools/chromium.py`, which installs it or says what to do"
    # Chromium's sandbox does not work for root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=program, args=arguments)


@pytest.fixture
def context(chromium: Browser, airflow: AirflowEnv) -> Iterator[BrowserContext]:
    context = chromium.new_context(base_url=airflow.base_url, viewport=SIZE, timezone_id="UTC", color_scheme="light")
    context.set_default_timeout(WAIT)
    yield context
    context.close()


@pytest.fixture
def stranger(context: BrowserContext) -> Page:
    """A page before the login."""
    return context.new_page()


@pytest.fixture
def page(stranger: Page) -> Page:
    """A page after the login."""
    stranger.goto("/")
    stranger.get_by_label("Username").fill(LOGIN["username"])
    stranger.get_by_label("Password").fill(LOGIN["password"])
    stranger.get_by_role("button", name="Sign in").click()
    stranger.get_by_role("button", name="Browse").wait_for()
    return stranger

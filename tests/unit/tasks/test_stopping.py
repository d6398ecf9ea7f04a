"""Jobs are stopped, and waited for until they have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.exceptions import RayJobNotFoundError
from airflow_provider_rayjobs.tasks import stopping
from airflow_provider_rayjobs.tasks.stopping import find_job, stop_job_and_wait
from tests.support import answers

if TYPE_CHECKING:
    from airflow_provider_rayjobs.hooks import RayJobHook
    from tests.support.scripted_server import ScriptedRay


def test_finding_a_job(scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    scripted_ray.add_job("a")
    found = find_job(hook, "a")
    assert found is not None
    assert found.submission_id == "a"
    assert find_job(hook, "b") is None


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "STOPPED"])
def test_stopping_an_ended_job_tells_how_it_ended(status: str, scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    scripted_ray.add_job("a", status)
    assert stop_job_and_wait(hook, "a", patience=5) == status


def test_stopping_waits_for_the_end(scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    scripted_ray.add_job("a")
    scripted_ray.stop_takes = 0.2
    assert stop_job_and_wait(hook, "a", patience=5) == "STOPPED"


def test_stopping_an_unknown_job_is_no_error_even_when_it_vanishes(scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    assert stop_job_and_wait(hook, "a", patience=5) is None
    scripted_ray.add_job("a")
    scripted_ray.script("GET", "/api/jobs/a", answers.not_found("a"))
    assert stop_job_and_wait(hook, "a", patience=5) is None


def test_a_job_that_appears_late_is_stopped_within_the_time_for_that(
    scripted_ray: ScriptedRay, hook: RayJobHook
) -> None:
    scripted_ray.add_job("a")
    scripted_ray.script("POST", ".*/stop", answers.not_found("a"))
    assert stop_job_and_wait(hook, "a", patience=5, appear=5) == "STOPPED"


def test_waiting_for_an_unknown_job_raises(hook: RayJobHook) -> None:
    with pytest.raises(RayJobNotFoundError):
        stopping.wait_until_ended(hook, "a", patience=5)

"""What a try does about the jobs of earlier tries: goes on with one, stops one, or starts its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs import metadata as keys
from airflow_provider_rayjobs.exceptions import (
    RayJobExistsError,
    RayJobInterruptedError,
    RayJobTimeoutError,
    RayProtocolError,
)
from airflow_provider_rayjobs.tasks import earlier_tries
from airflow_provider_rayjobs.tasks.earlier_tries import MOST_LOOKUPS, settle_earlier_jobs, submit_once
from airflow_provider_rayjobs.tasks.identity import TaskIdentity
from airflow_provider_rayjobs.tasks.stopping import find_job
from tests.support import answers

if TYPE_CHECKING:
    from airflow_provider_rayjobs.hooks import RayJobHook
    from airflow_provider_rayjobs.jobs import JobDetails
    from tests.support.scripted_server import ScriptedRay
    from tests.support.stats import KeptStats

FIRST = TaskIdentity("prod", "dag", "run", "task", -1, try_number=1, max_tries=2, run_started="2026-01-01")
SECOND = replace(FIRST, try_number=2)
THIRD = replace(FIRST, try_number=3)
CLEARED = replace(FIRST, try_number=2, max_tries=3)
LIVE = ("PENDING", "RUNNING")


def left_by(
    server: ScriptedRay,
    identity: TaskIdentity,
    status: str,
    submission_id: str | None = None,
    entrypoint: str = "true",
    **metadata: str,
) -> str:
    """Put the job of an earlier try on record."""
    made = submission_id or identity.submission_id()
    own = {**identity.metadata(), keys.SUBMISSION: identity.attempt_key, **metadata}
    server.add_job(made, status, metadata=own, entrypoint=entrypoint)
    return made


def settle(
    hook: RayJobHook,
    identity: TaskIdentity,
    explicit_id: str | None = None,
    reattach: bool = True,
    entrypoint: str = "true",
) -> JobDetails | None:
    return settle_earlier_jobs(hook, identity, explicit_id=explicit_id, entrypoint=entrypoint, reattach=reattach)


def submit(hook: RayJobHook, identity: TaskIdentity, submission_id: str | None = None, **job: Any) -> str:
    announced: list[str] = []
    made = submit_once(
        hook,
        identity,
        submission_id=submission_id,
        metadata={"owner": "me"},
        announce=announced.append,
        **{"entrypoint": "true", **job},
    )
    assert announced[-1] == made  # a kill knows the id before the cluster does
    return made


# What earlier tries left


def test_a_first_try_asks_nothing(scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    assert settle(hook, FIRST) is None
    assert scripted_ray.received == []


@pytest.mark.parametrize("status", [*LIVE, "SUCCEEDED"])
@pytest.mark.parametrize("explicit", [None, "mine"])
def test_a_live_or_succeeded_job_of_the_same_generation_is_gone_on_with(
    status: str, explicit: str | None, scripted_ray: ScriptedRay, hook: RayJobHook
) -> None:
    made = left_by(scripted_ray, FIRST, status, explicit)
    found = settle(hook, SECOND, explicit)
    assert found is not None
    assert (found.submission_id, found.status) == (made, status)
    assert scripted_ray.received_on("POST|DELETE") == []


@pytest.mark.parametrize("status", ["FAILED", "STOPPED"])
@pytest.mark.parametrize("explicit", [None, "mine"])
def test_an_ended_job_is_left_alone_and_a_new_one_is_to_be_made(
    status: str, explicit: str | None, scripted_ray: ScriptedRay, hook: RayJobHook
) -> None:
    left_by(scripted_ray, FIRST, status, explicit)
    assert settle(hook, SECOND, explicit) is None
    assert scripted_ray.received_on("POST|DELETE") == []


@pytest.mark.parametrize("status", LIVE)
@pytest.mark.parametrize("explicit", [None, "mine"])
def test_what_an_earlier_generation_left_running_is_stopped(
    status: str, explicit: str | None, scripted_ray: ScriptedRay, hook: RayJobHook, stats: KeptStats
) -> None:
    made = left_by(scripted_ray, FIRST, status, explicit)
    assert settle(hook, CLEARED, explicit) is None
    assert scripted_ray.jobs[made].status == "STOPPED"
    tags = {"conn_id": "ray_x", "dag_id": FIRST.dag_id, "task_id": FIRST.task_id}
    assert stats.sent == [("counter", "ray_jobs.orphans_stopped", 1, tags)]


def test_a_success_of_an_earlier_generation_does_not_count(scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    left_by(scripted_ray, FIRST, "SUCCEEDED")
    assert settle(hook, CLEARED) is None


@pytest.mark.parametrize("explicit", [None, "mine"])
def test_without_reattach_a_live_job_is_stopped(
    explicit: str | None, scripted_ray: ScriptedRay, hook: RayJobHook
) -> None:
    made = left_by(scripted_ray, FIRST, "RUNNING", explicit)
    assert settle(hook, SECOND, explicit, reattach=False) is None
    assert scripted_ray.jobs[made].status == "STOPPED"


def test_of_several_live_jobs_the_latest_goes_on_and_the_others_are_stopped(
    scripted_ray: ScriptedRay, hook: RayJobHook
) -> None:
    old, new = left_by(scripted_ray, FIRST, "RUNNING"), left_by(scripted_ray, SECOND, "RUNNING")
    found = settle(hook, THIRD)
    assert found is not None
    assert found.submission_id == new
    assert (scripted_ray.jobs[old].status, scripted_ray.jobs[new].status) == ("STOPPED", "RUNNING")


def test_many_tries_are_looked_up_in_one_list(scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    late = replace(FIRST, try_number=MOST_LOOKUPS + 5)
    scripted_ray.other_jobs = [{"type": "DRIVER", "status": "RUNNING", "job_id": "01000000", "submission_id": None}]
    left_by(scripted_ray, replace(FIRST, try_number=2), "RUNNING")
    found = settle(hook, late)
    assert found is not None
    assert found.submission_id == replace(FIRST, try_number=2).submission_id()
    assert len(scripted_ray.received) == 1


def test_jobs_of_other_tasks_are_never_touched(scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    others = [
        left_by(scripted_ray, replace(FIRST, **change), "RUNNING")
        for change in ({"map_index": 0}, {"dag_id": "x"}, {"run_id": "x"}, {"task_id": "x"}, {"deployment": "x"})
    ]
    scripted_ray.add_job(FIRST.submission_id(), "RUNNING", metadata={"of": "a stranger"})
    assert settle(hook, SECOND) is None
    assert settle(hook, SECOND, "mine") is None
    assert {scripted_ray.jobs[other].status for other in [*others, FIRST.submission_id()]} == {"RUNNING"}


@pytest.mark.parametrize("status", [*LIVE, "SUCCEEDED"])
@pytest.mark.parametrize("odd", [None, "", ".", "..", "a/b", "a b", "$(touch x)", "a\n", "ä", "x" * 2000])
@pytest.mark.parametrize("identity", [SECOND, CLEARED], ids=["same generation", "cleared"])
def test_what_is_listed_under_an_id_that_ray_would_not_give_is_neither_gone_on_with_nor_stopped(
    identity: TaskIdentity, odd: str | None, status: str, scripted_ray: ScriptedRay, hook: RayJobHook
) -> None:
    metadata = {**FIRST.metadata(), keys.SUBMISSION: FIRST.attempt_key}
    entry = {"type": "SUBMISSION", "status": status, "submission_id": odd, "job_id": "01000000", "metadata": metadata}
    scripted_ray.other_jobs = [entry]
    assert settle(hook, identity, "mine") is None
    assert [one.path for one in scripted_ray.received] == ["/api/jobs/"]
    left_by(scripted_ray, FIRST, "SUCCEEDED", "good")  # is found beside it
    found = settle(hook, SECOND, "mine")
    assert found is not None
    assert found.submission_id == "good"


@pytest.mark.parametrize("odd", [None, "$(touch x)", "of-somebody-else"])
def test_details_under_another_id_are_never_taken_for_the_tasks_own_job(
    odd: str | None, scripted_ray: ScriptedRay, hook: RayJobHook
) -> None:
    made = left_by(scripted_ray, FIRST, "RUNNING")
    scripted_ray.jobs[made].fields.update(submission_id=odd, job_id=made)
    for ask in (lambda: find_job(hook, made), lambda: settle(hook, SECOND), lambda: settle(hook, CLEARED)):
        with pytest.raises(RayProtocolError, match="the details of another job"):
            ask()
    assert scripted_ray.received_on("POST|DELETE") == []


def test_an_explicit_id_of_a_later_try_is_not_taken_for_an_earlier_one(
    scripted_ray: ScriptedRay, hook: RayJobHook
) -> None:
    left_by(scripted_ray, THIRD, "RUNNING", "later")
    left_by(scripted_ray, FIRST, "RUNNING", "odd", airflow_try_number="2", airflow_max_tries="x")
    assert settle(hook, SECOND, "mine") is None
    assert scripted_ray.jobs["later"].status == "RUNNING"


def test_a_job_under_the_second_id_is_found_again(scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    before = replace(FIRST, run_started="2025-12-31")  # the same run, deleted and made anew since
    first = left_by(scripted_ray, before, "FAILED")
    second = left_by(scripted_ray, FIRST, "RUNNING", FIRST.second_submission_id(first))
    found = settle(hook, SECOND)
    assert found is not None
    assert found.submission_id == second


def test_an_earlier_job_that_does_not_stop_holds_the_new_one_back(
    scripted_ray: ScriptedRay, hook: RayJobHook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earlier_tries, "STOP_TIMEOUT", 0.1)
    scripted_ray.stop_takes = None
    made = left_by(scripted_ray, FIRST, "RUNNING")
    with pytest.raises(RayJobTimeoutError, match=f"{made} at .* is still RUNNING after 0 s; stop it"):
        settle(hook, CLEARED)


# Submitting


def test_a_try_submits_under_its_own_id_and_says_who_it_is(scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    assert submit(hook, FIRST) == FIRST.submission_id()
    metadata = scripted_ray.jobs[FIRST.submission_id()].fields["metadata"]
    assert metadata == {"owner": "me", "team": "t", **FIRST.metadata(), keys.SUBMISSION: FIRST.attempt_key}


def test_an_explicit_id_is_used(scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    assert submit(hook, FIRST, "mine") == "mine"
    assert list(scripted_ray.jobs) == ["mine"]


@pytest.mark.parametrize("explicit", [None, "mine"])
def test_the_same_try_adopts_its_own_job(explicit: str | None, scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    made = submit(hook, FIRST, explicit)
    scripted_ray.set_status(made, "SUCCEEDED")
    assert hook.get_conn().counts.adopted == 0
    assert submit(hook, FIRST, explicit) == made
    assert len(scripted_ray.jobs) == 1
    assert hook.get_conn().counts.adopted == 1


def test_a_lost_answer_leaves_one_job(scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    scripted_ray.script("POST", "/api/jobs/", answers.lost())
    assert submit(hook, FIRST) == FIRST.submission_id()
    assert list(scripted_ray.jobs) == [FIRST.submission_id()]
    assert hook.get_conn().counts.adopted == 1


def test_before_each_attempt_it_is_seen_that_the_task_is_still_our_own(
    scripted_ray: ScriptedRay, hook: RayJobHook
) -> None:
    """A process that was paused, or waited long, must not submit after its successor."""
    asked: list[str] = []

    def before_submission() -> None:
        asked.append("")
        if len(asked) == 2:
            raise RayJobInterruptedError("another process runs it")

    scripted_ray.script("POST", "/api/jobs/", answers.bad_gateway())
    with (
        pytest.raises(RayJobInterruptedError),
        hook.get_conn().waiting_for_cluster(hook.log, before_submission=before_submission),
    ):
        submit(hook, FIRST)
    assert len(asked) == 2
    assert scripted_ray.jobs == {}


def test_a_later_try_with_the_same_explicit_id_uses_the_second_id(scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    submit(hook, FIRST, "mine")
    scripted_ray.set_status("mine", "FAILED")
    made = submit(hook, SECOND, "mine")
    assert made == SECOND.second_submission_id("mine")
    assert list(scripted_ray.jobs) == ["mine", made]
    assert submit(hook, SECOND, "mine") == made  # and adopts it from there on
    assert len(scripted_ray.jobs) == 2


def test_a_run_made_anew_uses_the_second_id_and_leaves_no_job_of_its_old_life_alive(
    scripted_ray: ScriptedRay, hook: RayJobHook
) -> None:
    old = left_by(scripted_ray, FIRST, "RUNNING")
    anew = replace(FIRST, run_started="2026-02-02")
    assert settle(hook, anew) is None
    assert submit(hook, anew) == anew.second_submission_id(old)
    assert scripted_ray.jobs[old].status == "STOPPED"


@pytest.mark.parametrize("explicit", [None, "mine"])
def test_a_strangers_job_under_the_id_is_an_error_and_left_alone(
    explicit: str | None, scripted_ray: ScriptedRay, hook: RayJobHook
) -> None:
    taken = explicit or FIRST.submission_id()
    scripted_ray.add_job(taken, "RUNNING", metadata={"of": "a stranger"})
    with pytest.raises(RayJobExistsError, match="already belongs to another job"):
        submit(hook, FIRST, explicit)
    assert list(scripted_ray.jobs) == [taken]
    assert scripted_ray.jobs[taken].status == "RUNNING"


def test_a_second_id_that_is_taken_too_is_an_error(scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    left_by(scripted_ray, FIRST, "FAILED", "mine")
    scripted_ray.add_job(SECOND.second_submission_id("mine"), "RUNNING", metadata={})
    with pytest.raises(RayJobExistsError):
        submit(hook, SECOND, "mine")


# Several submissions within one try

FIRST_2ND, SECOND_2ND = replace(FIRST, number=2), replace(SECOND, number=2)


@pytest.mark.parametrize("explicit", [None, "mine"])
def test_each_submission_of_a_try_has_a_job(explicit: str | None, scripted_ray: ScriptedRay, hook: RayJobHook) -> None:
    """The first may still run: a task need not wait for it."""
    first = submit(hook, FIRST, explicit)
    second = submit(hook, FIRST_2ND, explicit)
    assert list(scripted_ray.jobs) == [first, second]
    assert scripted_ray.jobs[first].status == "PENDING"
    assert submit(hook, FIRST_2ND, explicit) == second  # another process of this try
    assert len(scripted_ray.jobs) == 2


@pytest.mark.parametrize("explicit", [None, "mine"])
def test_each_submission_goes_on_with_its_own_job(
    explicit: str | None, scripted_ray: ScriptedRay, hook: RayJobHook
) -> None:
    first = left_by(scripted_ray, FIRST, "SUCCEEDED", explicit)
    second = left_by(scripted_ray, FIRST_2ND, "RUNNING", explicit and "mine-2", entrypoint="true")
    assert settled_id(hook, SECOND, explicit) == first
    assert settled_id(hook, SECOND_2ND, explicit) == second
    assert settle(hook, replace(SECOND, number=3), explicit, entrypoint="other") is None
    assert scripted_ray.jobs[second].status == "RUNNING"


@pytest.mark.parametrize("explicit", [None, "mine"])
def test_another_order_finds_each_submission_s_job(
    explicit: str | None, scripted_ray: ScriptedRay, hook: RayJobHook
) -> None:
    first = left_by(scripted_ray, FIRST, "SUCCEEDED", explicit, entrypoint="false")
    second = left_by(scripted_ray, FIRST_2ND, "RUNNING", explicit and "mine-2", entrypoint="true")
    assert settled_id(hook, SECOND, explicit) == second
    assert settle(hook, replace(SECOND, number=3), explicit, entrypoint="false").submission_id == first  # type: ignore[union-attr]
    assert scripted_ray.jobs[second].status == "RUNNING"


def test_the_words_of_an_entrypoint_are_compared_as_ray_reports_them(
    scripted_ray: ScriptedRay, hook: RayJobHook
) -> None:
    left_by(scripted_ray, FIRST, "SUCCEEDED", entrypoint="echo 1")
    second = left_by(scripted_ray, FIRST_2ND, "RUNNING", entrypoint="echo 'a b'")
    found = settle(hook, SECOND, entrypoint=["echo", "a b"])
    assert found is not None
    assert found.submission_id == second


@pytest.mark.parametrize("explicit", [None, "mine"])
def test_a_later_submission_does_not_go_on_with_other_work(
    explicit: str | None, scripted_ray: ScriptedRay, hook: RayJobHook
) -> None:
    """The loop around it may run in another order."""
    second = left_by(scripted_ray, FIRST_2ND, "RUNNING", explicit, entrypoint="false")
    assert settle(hook, SECOND_2ND, explicit) is None
    assert scripted_ray.jobs[second].status == "STOPPED"


@pytest.mark.parametrize("explicit", [None, "mine"])
def test_a_clear_stops_all_jobs_of_the_try_before(
    explicit: str | None, scripted_ray: ScriptedRay, hook: RayJobHook
) -> None:
    left_by(scripted_ray, FIRST, "SUCCEEDED", explicit)
    second = left_by(scripted_ray, FIRST_2ND, "RUNNING", explicit and "mine-2")
    assert settle(hook, CLEARED, explicit) is None
    assert scripted_ray.jobs[second].status == "STOPPED"


def settled_id(hook: RayJobHook, identity: TaskIdentity, explicit: str | None) -> str | None:
    found = settle(hook, identity, explicit)
    return None if found is None else found.submission_id

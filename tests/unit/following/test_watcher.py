"""Following a job to its end: what decides it, what does not, and for how long contact may be lost."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
from airflow_provider_rayjobs.diagnosis import pending as pending_module
from airflow_provider_rayjobs.following import log_stream, watcher
from airflow_provider_rayjobs.following import poller as poller_module
from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.following.poller import Poller
from airflow_provider_rayjobs.following.watcher import JobWatcher, Watch, poll_delay
from airflow_provider_rayjobs.jobs import JobDetails, JobFailure
from airflow_provider_rayjobs.progress import to_line
from tests.support import answers
from tests.support.clients import cluster_at, quick_sleep, until
from tests.support.scripted_server import ScriptedRay, Tail
from tests.support.state_answers import counted, failed_task, listed

if TYPE_CHECKING:
    from collections.abc import Callable


LOG = logging.getLogger("tests.follow")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOG.name)
    monkeypatch.setattr(watcher, "SHORTEST_INTERVAL", 0.03)
    for name, value in {
        "NATURAL_GAP": 0.0,
        "REOPEN_FIRST": 0.02,
        "REOPEN_LONGEST": 0.05,
        "OVER_PATIENCE": 0.1,
        "DRAIN_REOPEN": 0.3,
        "DRAIN_IDLE": 0.3,
    }.items():
        monkeypatch.setattr(log_stream, name, value)


def run(
    server: ScriptedRay,
    act: Callable[[], object] | None = None,
    when: Callable[[], object] = lambda: True,
    unreachable_timeout: float = 10.0,
    **watch: Any,
) -> JobEvent:
    """Follow job "a"; do something once a condition holds."""

    async def main() -> JobEvent:
        cluster = cluster_at(server, unreachable_timeout=unreachable_timeout)
        transport = AiohttpTransport(cluster, sleep=quick_sleep)
        given = {"submission_id": "a", "submitted_at": time.time(), **watch}
        poller = Poller(transport)
        running = asyncio.ensure_future(JobWatcher(poller, Watch(**given), LOG).run())
        try:
            async with asyncio.timeout(20):
                if act is not None:
                    await until(when)
                    act()
                return await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await poller.close()
            await asyncio.sleep(0.02)
            assert asyncio.all_tasks() == {asyncio.current_task()}

    return asyncio.run(main())


def looks(server: ScriptedRay) -> int:
    return len(server.received_on("GET", "/api/jobs/a"))


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOG.name]


# When it happened


def test_when_a_job_left_pending_and_ended_is_told(scripted_ray: ScriptedRay) -> None:
    job = scripted_ray.add_job("a", "PENDING")
    job.reads.extend(["PENDING", "PENDING", "RUNNING", "RUNNING", "SUCCEEDED"])
    began = time.time()
    event = run(scripted_ray, submitted_at=began)
    assert event.submitted_at == began
    assert event.left_pending_at is not None
    assert event.finished_at is not None
    assert began < event.left_pending_at < event.ended_at
    assert event.finished_at <= event.ended_at


@pytest.mark.parametrize(
    ("first", "watch", "known"),
    [
        ("RUNNING", {}, True),
        ("RUNNING", {"reattached_at": 1.0}, False),
        ("RUNNING", {"submitted_at": -60.0}, False),
        ("SUCCEEDED", {}, False),
    ],
    ids=["soon", "reattached", "late", "ended"],
)
def test_a_follower_that_comes_late_does_not_know_when_the_job_left_pending(
    first: str, watch: dict[str, Any], known: bool, scripted_ray: ScriptedRay
) -> None:
    scripted_ray.add_job("a", first).reads.extend([first, "SUCCEEDED"])
    now = time.time()
    submitted = now + watch.pop("submitted_at", 0.0)
    event = run(scripted_ray, submitted_at=submitted, **watch)
    assert (event.left_pending_at is not None) is known


@pytest.mark.parametrize(("end", "ran"), [("FAILED", True), ("STOPPED", False)])
def test_a_job_that_ran_between_two_looks_ran_no_longer_than_that(
    end: str, ran: bool, scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "SHORTEST_INTERVAL", 0.5)
    scripted_ray.add_job("a", "PENDING").reads.extend(["PENDING", end])
    event = run(scripted_ray, submitted_at=time.time() - 3.0, stream_logs=False)
    assert event.left_pending_at is not None
    noticed = event.ended_at - event.left_pending_at
    assert (0.5 <= noticed < 1.5) if ran else (noticed < 0.5)


def test_of_a_lost_job_no_end_is_told(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "RUNNING")

    def forget() -> None:
        del scripted_ray.jobs["a"]

    event = run(scripted_ray, forget, lambda: looks(scripted_ray))
    assert (event.outcome, event.finished_at) == (Outcome.LOST, None)
    assert event.left_pending_at is not None


# The outcome


@pytest.mark.parametrize("stream_logs", [True, False])
@pytest.mark.parametrize(
    ("status", "outcome"),
    [("SUCCEEDED", Outcome.SUCCEEDED), ("FAILED", Outcome.FAILED), ("STOPPED", Outcome.STOPPED)],
)
def test_the_outcome_is_the_jobs_status(
    status: str, outcome: Outcome, stream_logs: bool, scripted_ray: ScriptedRay
) -> None:
    job = scripted_ray.add_job("a", "PENDING")
    job.reads.extend(["PENDING", "RUNNING", "RUNNING", status])
    scripted_ray.append_log("a", ["one\ntwo\n"])
    before = time.time()
    event = run(scripted_ray, stream_logs=stream_logs, reattached_at=5.0)
    assert (event.submission_id, event.address, event.outcome) == ("a", scripted_ray.url, outcome)
    assert event.message == job.fields["message"]
    assert event.exit_code == job.fields["driver_exit_code"]
    assert event.reattached_at == 5.0
    assert before < event.ended_at < time.time()
    assert event.log_tail == (("one", "two") if outcome is Outcome.FAILED else ())


def test_each_status_is_logged_once_when_it_changes(
    scripted_ray: ScriptedRay, caplog: pytest.LogCaptureFixture
) -> None:
    job = scripted_ray.add_job("a", "PENDING")
    job.reads.extend(["PENDING", "PENDING", "RUNNING", "RUNNING", "ON_HOLD", "ON_HOLD", "SUCCEEDED"])
    run(scripted_ray, stream_logs=False)
    said = [line for line in messages(caplog) if line.partition(" ")[0].isupper()]
    assert [line.split()[0] for line in said] == ["PENDING", "RUNNING", "ON_HOLD", "SUCCEEDED"]
    assert re.fullmatch(r"RUNNING after \d\.\d s PENDING", said[1])
    spent = r"PENDING \d\.\d s, RUNNING \d\.\d s, ON_HOLD \d\.\d s"
    assert re.fullmatch(rf"SUCCEEDED after \d+\.\d s \({spent}\)", messages(caplog)[-1])


@given(
    st.lists(st.tuples(st.sampled_from(["PENDING", "RUNNING"]), st.floats(0, 1e6)), max_size=4),
    st.floats(-10, 1e6),
)
def test_the_durations_of_the_last_line_add_up(spent: list[tuple[str, float]], seconds: float) -> None:
    line = watcher._end_line("SUCCEEDED", seconds, spent)
    total, *parts = (Decimal(number) for number in re.findall(r"-?\d+\.\d", line))
    assert total >= 0
    assert sum(parts) == (total if spent else 0)
    assert all(part >= 0 for part in parts)


def test_the_jobs_lines_go_to_the_log_only_when_wished(
    scripted_ray: ScriptedRay, caplog: pytest.LogCaptureFixture
) -> None:
    scripted_ray.add_job("a", "SUCCEEDED")
    scripted_ray.append_log("a", ["a line of the job\n"])
    run(scripted_ray, stream_logs=False)
    assert scripted_ray.received_on("GET", ".*/logs.*") == []
    assert "a line of the job" not in messages(caplog)
    run(scripted_ray)
    assert messages(caplog).count("a line of the job") == 1


@pytest.mark.parametrize("code", [1000, 1001, 1011])
def test_the_streams_closing_decides_nothing(code: int, scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a")
    scripted_ray.append_log("a", ["one\n"])
    scripted_ray.tails(*[Tail(after=1, code=code)] * 100)
    event = run(
        scripted_ray,
        lambda: scripted_ray.set_status("a", "FAILED"),
        when=lambda: len(scripted_ray.received_on("GET", ".*/tail")) > 3,
    )
    assert (event.outcome, event.log_tail) == (Outcome.FAILED, ("one",))


def test_a_stream_that_hangs_holds_the_outcome_up_for_bounded_time(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "SUCCEEDED")
    scripted_ray.tails(*[Tail(hang=True)] * 9)
    began = time.monotonic()
    assert run(scripted_ray).outcome is Outcome.SUCCEEDED
    assert time.monotonic() - began < 5


def test_the_streams_close_is_a_hint_to_look_at_once(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "SHORTEST_INTERVAL", 15.0)
    monkeypatch.setattr(log_stream, "OVER_PATIENCE", 3.0)
    scripted_ray.add_job("a")
    began = time.monotonic()
    event = run(scripted_ray, lambda: scripted_ray.set_status("a", "SUCCEEDED"), when=lambda: looks(scripted_ray))
    assert event.outcome is Outcome.SUCCEEDED
    assert time.monotonic() - began < 5


def test_a_log_that_cannot_be_had_changes_nothing(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "SUCCEEDED")
    scripted_ray.script("GET", ".*/logs.*", answers.html(), forever=True)
    assert run(scripted_ray).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("stream_logs", [True, False])
def test_the_end_of_a_job_does_not_wait_for_the_log_of_another(
    stream_logs: bool, scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_stream, "DRAIN_REOPEN", 10.0)
    scripted_ray.add_job("big")
    scripted_ray.append_log("big", ["".join(f"line {n}\n" for n in range(100))] * 100)
    scripted_ray.add_job("small")
    scripted_ray.append_log("small", ["one\ntwo"])
    lines: dict[str, list[str]] = {"big": [], "small": []}

    def slow(line: str) -> None:
        time.sleep(0.0002)  # as Airflow takes
        lines["big"].append(line)

    async def main() -> None:
        async with Poller(AiohttpTransport(cluster_at(scripted_ray), sleep=quick_sleep)) as poller:
            big = JobWatcher(poller, Watch("big", time.time()), LOG, write=slow)
            watch = Watch("small", time.time(), stream_logs=stream_logs)
            small = JobWatcher(poller, watch, LOG, write=lines["small"].append)
            following = asyncio.ensure_future(big.run())
            ending = asyncio.ensure_future(small.run())
            await until(lambda: len(lines["big"]) > 500)
            scripted_ray.set_status("big", "SUCCEEDED")
            scripted_ray.set_status("small", "SUCCEEDED")
            done, _ = await asyncio.wait({following, ending}, return_when=asyncio.FIRST_COMPLETED)
            assert done == {ending}
            await following

    asyncio.run(main())
    assert lines["small"] == (["one", "two"] if stream_logs else [])
    assert "\n".join(lines["big"]).count("\n") == 9_999


# Jobs that are gone


@pytest.mark.parametrize("stream_logs", [True, False])
def test_a_restarted_head_that_forgot_the_job_is_told_as_such(stream_logs: bool, scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a")
    before = scripted_ray.session_name
    event = run(
        scripted_ray,
        scripted_ray.restart,
        when=lambda: looks(scripted_ray) > 1,
        session_name=before,
        stream_logs=stream_logs,
    )
    assert event.outcome is Outcome.LOST
    assert f"the head restarted (session {before} became {scripted_ray.session_name})" in event.detail
    # As it was last seen.
    assert (event.may_run, event.node_id, event.node_ip) == (True, "ab" * 28, "127.0.0.1")
    assert f"may still run on node 127.0.0.1 (node id {'ab' * 28})" in event.detail
    assert "Find the process with a in its environment there, and end it" in event.detail


@pytest.mark.parametrize(
    ("known", "told"),
    [(True, "was deleted from the cluster, whose head did not restart"), (False, "was deleted from the cluster, or")],
)
def test_a_deleted_job_is_told_from_a_restarted_head(known: bool, told: str, scripted_ray: ScriptedRay) -> None:
    event = run(scripted_ray, session_name=scripted_ray.session_name if known else None)
    assert event.outcome is Outcome.LOST
    assert told in event.detail
    assert "A retry of this task submits the job again" in event.detail
    # Ray deletes only jobs that have ended. Nobody ever saw where this one ran.
    assert (event.may_run, event.node_id, event.node_ip) == (not known, None, None)
    assert ("may still run on the job's node" in event.detail) is not known


def test_a_job_that_survived_a_restart_is_followed_on(scripted_ray: ScriptedRay) -> None:
    job = scripted_ray.add_job("a")
    job.reads.extend(["RUNNING", "RUNNING", "SUCCEEDED"])
    assert run(scripted_ray, session_name="session_of_before").outcome is Outcome.SUCCEEDED


# Lost contact


@pytest.mark.parametrize(
    "answer",
    [answers.bad_gateway(), answers.drop(), answers.html(), answers.internal_error(), answers.unauthorized()],
    ids=["502", "reset", "page", "500", "401"],
)
def test_lost_contact_is_ridden_out(
    answer: answers.Answer, scripted_ray: ScriptedRay, caplog: pytest.LogCaptureFixture
) -> None:
    job = scripted_ray.add_job("a")
    job.reads.extend(["RUNNING", "SUCCEEDED"])
    scripted_ray.script("GET", "/api/jobs/a", *[answer] * 12)
    assert run(scripted_ray, stream_logs=False).outcome is Outcome.SUCCEEDED
    said = messages(caplog)
    assert len([line for line in said if line.startswith("No contact with the cluster; retrying for up to 10 s")]) == 1
    assert len([line for line in said if line.startswith("Contact with the cluster is back after")]) == 1


@pytest.mark.parametrize("stream_logs", [True, False])
def test_contact_lost_for_the_whole_budget_is_unreachable_and_no_failure(
    stream_logs: bool, scripted_ray: ScriptedRay
) -> None:
    scripted_ray.add_job("a")
    began = time.monotonic()
    event = run(
        scripted_ray,
        scripted_ray.stop,
        when=lambda: looks(scripted_ray) > 1,
        unreachable_timeout=0.5,
        stream_logs=stream_logs,
    )
    assert 0.5 < time.monotonic() - began < 8
    assert event.outcome is Outcome.UNREACHABLE
    assert "it may still run; a retry of this task finds it" in event.detail
    assert "unreachable_timeout is 0 s" in event.detail or "unreachable_timeout is 1 s" in event.detail
    assert "connection refused" in event.detail


def test_the_budget_begins_anew_after_each_contact(scripted_ray: ScriptedRay) -> None:
    job = scripted_ray.add_job("a")
    job.reads.extend(["RUNNING"] * 6 + ["SUCCEEDED"])
    gap = [answers.internal_error().but(delay=0.15), answers.default()]
    scripted_ray.script("GET", "/api/jobs/a", *gap * 5)
    assert run(scripted_ray, stream_logs=False, unreachable_timeout=0.4).outcome is Outcome.SUCCEEDED


# Deadlines


@pytest.mark.parametrize("name", ["job_timeout", "execution_timeout"])
def test_a_deadline_stops_the_job(name: str, scripted_ray: ScriptedRay, caplog: pytest.LogCaptureFixture) -> None:
    scripted_ray.add_job("a")
    scripted_ray.stop_takes = 0.1
    event = run(scripted_ray, deadlines={"other": time.time() + 99, name: time.time() + 0.2})
    assert event.outcome is Outcome.TIMEOUT
    assert event.detail.startswith(f"exceeded its {name}: it was submitted 0 s ago")
    assert event.detail.endswith("; it was stopped")
    assert not event.may_run
    assert scripted_ray.jobs["a"].status == "STOPPED"
    assert any("exceeded its" in line and "stopping it" in line for line in messages(caplog))
    assert re.fullmatch(r"STOPPED after \d\.\d s \(PENDING and RUNNING \d\.\d s\)", messages(caplog)[-1])


def test_a_deadline_is_met_in_time_whatever_the_poll_interval(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "SHORTEST_INTERVAL", 15.0)
    scripted_ray.add_job("a")
    began = time.monotonic()
    run(scripted_ray, deadlines={"job_timeout": time.time() + 0.3}, stream_logs=False)
    assert time.monotonic() - began < 5


def test_a_job_that_does_not_heed_the_stop_is_a_timeout_that_says_so(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "LIMIT_STOP_TIMEOUT", 0.2)
    scripted_ray.add_job("a")
    scripted_ray.stop_takes = None
    event = run(scripted_ray, deadlines={"job_timeout": time.time()})
    assert event.outcome is Outcome.TIMEOUT
    assert "it is still RUNNING" in event.detail
    assert event.may_run


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED"])
def test_a_job_that_ends_by_itself_while_it_is_stopped_keeps_its_outcome(
    status: str, scripted_ray: ScriptedRay
) -> None:
    scripted_ray.add_job("a")
    scripted_ray.stop_takes = None
    event = run(
        scripted_ray,
        lambda: scripted_ray.set_status("a", status),
        when=lambda: scripted_ray.received_on("POST", ".*/stop"),
        deadlines={"job_timeout": time.time()},
    )
    assert event.outcome.value == status.lower()


def test_a_job_that_is_gone_when_it_is_stopped_is_lost(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a")
    scripted_ray.script("POST", ".*/stop", answers.not_found("a"))
    assert run(scripted_ray, deadlines={"job_timeout": time.time()}).outcome is Outcome.LOST


def test_a_deadline_counts_while_contact_is_lost(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a")
    scripted_ray.script("GET", "/api/jobs/a", *[answers.internal_error()] * 4)
    event = run(scripted_ray, deadlines={"job_timeout": time.time()}, stream_logs=False)
    assert event.outcome is Outcome.TIMEOUT


def test_pending_too_long_is_a_timeout(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "PENDING")
    event = run(scripted_ray, pending_deadline=time.time() + 0.1, stream_logs=False)
    assert event.outcome is Outcome.TIMEOUT
    assert event.detail.startswith("exceeded its pending_timeout: still PENDING after 0 s")
    assert scripted_ray.jobs["a"].status == "STOPPED"


def test_the_pending_deadline_does_not_touch_a_job_that_runs(scripted_ray: ScriptedRay) -> None:
    job = scripted_ray.add_job("a")
    job.reads.extend(["RUNNING"] * 5 + ["SUCCEEDED"])
    assert run(scripted_ray, pending_deadline=time.time() - 5, stream_logs=False).outcome is Outcome.SUCCEEDED
    assert scripted_ray.received_on("POST") == []


# A limit for which an earlier watcher stopped the job


def stopped(server: ScriptedRay, *, after: float, clock: float = 0.0, **fields: Any) -> None:
    """Put a job on record that was submitted 1000 s ago, and stopped later, by a wrong clock."""
    submitted = time.time() - 1000 + clock
    times = {"start_time": int(submitted * 1000), "end_time": int((submitted + after) * 1000)}
    server.add_job("a", "STOPPED", **times | fields)


def limits(**seconds: float) -> dict[str, Any]:
    """Return the limits of a watch on such a job, in seconds after its submission."""
    submitted = time.time() - 1000
    pending = seconds.pop("pending_timeout", None)
    return {
        "submitted_at": submitted,
        "deadlines": {name: submitted + value for name, value in seconds.items()},
        "pending_deadline": None if pending is None else submitted + pending,
        "stream_logs": False,
    }


@pytest.mark.parametrize("clock", [0.0, -30.0, 30.0], ids=["", "a head that is behind", "a head that is ahead"])
@pytest.mark.parametrize("name", ["job_timeout", "execution_timeout", "pending_timeout"])
def test_a_stop_for_a_limit_is_told_as_such_by_the_next_watcher(
    name: str, clock: float, scripted_ray: ScriptedRay
) -> None:
    stopped(scripted_ray, after=905, clock=clock)
    others = {"job_timeout": 950.0, "execution_timeout": 990.0} | {name: 900.0}
    event = run(scripted_ray, **limits(**others))
    assert event.outcome is Outcome.TIMEOUT
    said = f"exceeded its {name}: it ended {935 if clock > 0 else 905} s after its submission; it was stopped"
    assert event.detail == said
    assert scripted_ray.received_on("POST") == []


def test_the_limit_that_passed_first_is_named(scripted_ray: ScriptedRay) -> None:
    stopped(scripted_ray, after=905)
    event = run(scripted_ray, **limits(job_timeout=903, execution_timeout=901, pending_timeout=902))
    assert event.detail.startswith("exceeded its execution_timeout")


@pytest.mark.parametrize("name", ["job_timeout", "execution_timeout", "pending_timeout"])
@pytest.mark.parametrize("fields", [{}, {"end_time": None}], ids=["", "no time of the end"])
def test_a_stop_by_a_user_before_a_limit_is_no_timeout(
    name: str, fields: dict[str, Any], scripted_ray: ScriptedRay
) -> None:
    stopped(scripted_ray, after=890, **fields)
    limit = 1100 if fields else 900  # then all that is known is that it has ended by now
    event = run(scripted_ray, **limits(**{name: limit}))
    assert event.outcome is Outcome.STOPPED


def test_a_stop_long_after_the_pending_timeout_is_a_users(scripted_ray: ScriptedRay) -> None:
    """Ray does not tell whether it ever ran, but the watcher that stops a PENDING job does not wait that long."""
    stopped(scripted_ray, after=905)
    assert run(scripted_ray, **limits(pending_timeout=800)).outcome is Outcome.STOPPED


def test_a_stop_soon_after_the_pending_timeout_of_a_job_that_was_seen_to_run_is_a_users(
    scripted_ray: ScriptedRay,
) -> None:
    job = scripted_ray.add_job("a")
    job.reads.extend(["RUNNING", "RUNNING", "STOPPED"])
    event = run(scripted_ray, pending_deadline=time.time() - 1, stream_logs=False)
    assert event.outcome is Outcome.STOPPED


# Intervals


@given(st.floats(0, 1e7), st.floats(1.0, 3600.0))
def test_the_delay_follows_the_age_within_bounds(age: float, interval: float) -> None:
    delay = poll_delay(age, interval)
    assert min(interval, watcher.SHORTEST_INTERVAL) <= delay <= interval
    assert delay <= max(1.5, 0.05 * age)


def test_a_watch_is_json_that_makes_an_equal_watch() -> None:
    watch = Watch("a", 1.5, "s", 7.0, {"job_timeout": 9.5}, 8.5, False, reattached_at=6.5)
    assert Watch(**json.loads(json.dumps(watch.to_json()))) == watch


# Why it waits

#: Two CPUs, one of them in use.
RESOURCES = {"data": {"clusterStatus": {"loadMetricsReport": {"usageByNode": {"ab": {"CPU": [1.0, 2.0]}}}}}}
WAITS = "needs 4 CPU on one node, but no node has 4 CPU (at most 2 CPU); Ray: said"


def pending(server: ScriptedRay, **metadata: str) -> None:
    server.add_job("a", "PENDING", message="said", metadata={"airflow_resources": '{"CPU": 4}', **metadata})
    server.script("GET", "/api/cluster_status", answers.as_json(RESOURCES), forever=True)


def test_why_a_job_waits_is_logged_at_growing_intervals(
    scripted_ray: ScriptedRay, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_module, "EXPLAIN_AFTER", (0.1, 0.2, 5.0))
    pending(scripted_ray)

    def reasons() -> list[str]:
        return [text for text in messages(caplog) if text.startswith("PENDING for")]

    def end() -> None:
        time.sleep(0.3)
        scripted_ray.set_status("a", "SUCCEEDED")

    run(scripted_ray, end, lambda: len(reasons()) == 2, stream_logs=False)
    assert [text.partition(": ")[2] for text in reasons()] == [WAITS] * 2
    assert len(scripted_ray.received_on("GET", "/api/cluster_status")) == 1, "all followers share what was read"


def test_a_job_that_runs_is_not_explained(
    scripted_ray: ScriptedRay, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_module, "EXPLAIN_AFTER", (0.05,))
    scripted_ray.add_job("a", "RUNNING")

    def end() -> None:
        time.sleep(0.3)
        scripted_ray.set_status("a", "SUCCEEDED")

    run(scripted_ray, end, lambda: looks(scripted_ray) > 0, stream_logs=False)
    assert not [text for text in messages(caplog) if text.startswith("PENDING for")]
    assert not scripted_ray.received_on("GET", "/api/cluster_status")


def test_a_pending_timeout_says_what_the_job_waited_for(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_module, "EXPLAIN_AFTER", (0.05,))
    pending(scripted_ray)
    event = run(scripted_ray, pending_deadline=time.time() + 1.0, stream_logs=False)
    assert event.outcome is Outcome.TIMEOUT
    assert f"still PENDING after 1 s ({WAITS})" in event.detail


def test_a_cluster_that_does_not_show_its_resources_leaves_what_the_job_needs(
    scripted_ray: ScriptedRay, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_module, "EXPLAIN_AFTER", (0.05, 5.0))
    scripted_ray.script("GET", "/api/cluster_status", answers.html(404), forever=True)
    pending(scripted_ray)

    def end() -> None:
        scripted_ray.set_status("a", "SUCCEEDED")

    def told() -> bool:
        return any(text.endswith(" s: needs 4 CPU on one node; Ray: said") for text in messages(caplog))

    assert run(scripted_ray, end, told, stream_logs=False).outcome is Outcome.SUCCEEDED


def test_an_alarm_that_is_raised_while_a_wait_is_explained_ends_it(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Alarm(BaseException):
        pass

    async def alarm(*_: object) -> str:
        raise Alarm

    monkeypatch.setattr(pending_module, "EXPLAIN_AFTER", (0.05,))
    monkeypatch.setattr(Poller, "why_pending", alarm)
    pending(scripted_ray)
    with pytest.raises(Alarm):
        run(scripted_ray, stream_logs=False)


# How far it is


def counts(server: ScriptedRay, *functions: dict[str, dict[str, int]]) -> None:
    """Let the cluster answer with these counts of tasks, in order, and with the last one from then on."""
    given = [answers.Answer(body=counted(one)) for one in functions]
    server.script("GET", "/api/v0/tasks/summarize.*", *given, forever=True)


def progress_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text for text in messages(caplog) if text.startswith("Ray tasks: ")]


@pytest.fixture
def _counts_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "COUNT_EVERY", 0.05)
    monkeypatch.setattr(poller_module, "TASKS_SHARE", 1.0)


def run_with_counts(server: ScriptedRay, number: int, **watch: Any) -> None:
    """Follow job "a" until the cluster was asked for its tasks some times."""

    def asked() -> bool:
        return len(server.received_on("GET", "/api/v0/tasks/summarize.*")) >= number

    run(server, lambda: server.set_status("a", "SUCCEEDED"), asked, **{"stream_logs": False} | watch)


@pytest.mark.usefixtures("_counts_often")
def test_how_far_a_job_is_is_logged_when_it_changed(
    scripted_ray: ScriptedRay, caplog: pytest.LogCaptureFixture
) -> None:
    scripted_ray.add_job("a", "RUNNING", job_id="02000000")
    counts(scripted_ray, {"train": {"RUNNING": 2}}, {"train": {"RUNNING": 2}}, {"train": {"RUNNING": 1, "FINISHED": 1}})
    run_with_counts(scripted_ray, 5)
    assert progress_lines(caplog) == [
        "Ray tasks: 0 of 2 done, 2 running (train 0 of 2)",
        "Ray tasks: 1 of 2 done, 1 running (train 1 of 2)",
    ]
    (path,) = {request.path for request in scripted_ray.received_on("GET", "/api/v0/tasks/summarize.*")}
    assert "filter_values=02000000" in path


@pytest.mark.usefixtures("_counts_often")
def test_a_job_that_connected_to_ray_late_has_its_tasks_counted(
    scripted_ray: ScriptedRay, caplog: pytest.LogCaptureFixture
) -> None:
    job = scripted_ray.add_job("a", "RUNNING", job_id=None)
    counts(scripted_ray, {"train": {"RUNNING": 2}})
    scripted_ray.script("GET", "/api/jobs/a", *[answers.default()] * 2)

    def connect() -> None:
        job.fields["job_id"] = "03000000"

    threading.Timer(0.3, connect).start()
    run_with_counts(scripted_ray, 1)
    assert progress_lines(caplog) == ["Ray tasks: 0 of 2 done, 2 running (train 0 of 2)"]


@pytest.mark.usefixtures("_counts_often")
@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_nothing_is_counted_where_nobody_wants_it(status: str, scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", status, job_id="02000000")

    def end() -> None:
        time.sleep(0.3)
        scripted_ray.set_status("a", "SUCCEEDED")

    run(scripted_ray, end, lambda: looks(scripted_ray) > 0, stream_logs=False, log_progress=status == "PENDING")
    assert not scripted_ray.received_on("GET", "/api/v0/tasks/summarize.*")


@pytest.mark.usefixtures("_counts_often")
def test_a_function_that_reports_its_progress_is_not_counted(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "RUNNING", job_id="02000000")
    scripted_ray.append_log("a", [to_line({"done": 1, "total": 2, "message": ""})])

    def end() -> None:
        time.sleep(0.4)
        scripted_ray.set_status("a", "SUCCEEDED")

    seen = lambda: bool(scripted_ray.received_on("GET", ".*/logs/tail"))  # noqa: E731
    event = run(scripted_ray, end, seen)
    assert event.progress == {"done": 1, "total": 2, "message": ""}
    assert len(scripted_ray.received_on("GET", "/api/v0/tasks/summarize.*")) <= 2, "not once the report was read"


def test_the_counts_of_all_jobs_take_a_small_share_of_the_heads_time(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller_module, "TASKS_SHARE", 0.1)
    slow = answers.Answer(body=counted({"train": {"RUNNING": 1}}), delay=0.1)
    scripted_ray.script("GET", "/api/v0/tasks/summarize.*", slow, forever=True)

    async def count() -> float:
        poller = Poller(AiohttpTransport(cluster_at(scripted_ray), sleep=quick_sleep))
        began = time.monotonic()
        await asyncio.gather(*(poller.job_tasks(f"j{number}", "02") for number in range(3)))
        await poller.close()
        return time.monotonic() - began

    assert asyncio.run(count()) > 2 * (0.1 + 0.1 / 0.1)


# Why it failed


def test_a_failed_job_is_looked_into_with_its_secrets_masked(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "FAILED", job_id="02000000", error_type="JOB_ENTRYPOINT_COMMAND_ERROR")
    row = failed_task("OUT_OF_MEMORY", "hunter2 took 7 GB")
    scripted_ray.script("GET", "/api/v0/tasks.*", answers.Answer(body=listed(row)), forever=True)

    async def main() -> JobEvent:
        async with Poller(AiohttpTransport(cluster_at(scripted_ray), sleep=quick_sleep)) as poller:
            watch = Watch("a", time.time(), stream_logs=False)
            return await JobWatcher(poller, watch, LOG, lambda job: lambda text: text.replace("hunter2", "***")).run()

    event = asyncio.run(main())
    assert event.failure is not None
    assert (event.failure.cause, event.failure.failed_tasks[0].message) == ("OUT_OF_MEMORY", "*** took 7 GB")


@pytest.mark.parametrize("problem", [RuntimeError("a defect"), ValueError("x")])
def test_a_look_that_fails_never_changes_the_outcome(
    problem: Exception, scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> None:
        raise problem

    monkeypatch.setattr(Poller, "why_failed", fails)
    scripted_ray.add_job("a", "FAILED", message="no luck")
    event = run(scripted_ray, stream_logs=False)
    assert (event.outcome, event.message, event.failure) == (Outcome.FAILED, "no luck", None)
    assert f"Why the job failed can't be found out ({type(problem).__name__})" in messages(caplog)


def test_a_cluster_that_does_not_tell_in_time_delays_nobody_for_long(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller_module, "EXPLAIN_TIMEOUT", 0.2)
    scripted_ray.script("GET", "/api/v0/(tasks|nodes).*", answers.default(delay=5.0), forever=True)
    scripted_ray.add_job("a", "FAILED")
    began = time.monotonic()
    assert run(scripted_ray, stream_logs=False).failure == JobFailure("JOB_ENTRYPOINT_COMMAND_ERROR", exit_code=1)
    assert time.monotonic() - began < 4


def test_a_job_that_fails_while_it_is_stopped_for_a_limit_is_looked_into_as_it_ended(scripted_ray: ScriptedRay) -> None:
    job = scripted_ray.add_job("a", "PENDING")

    def fail() -> None:
        time.sleep(0.3)
        scripted_ray.set_status("a", "FAILED")
        job.fields.update(error_type="RUNTIME_ENV_SETUP_FAILURE", driver_exit_code=None)

    scripted_ray.stop_takes = 60.0
    threading.Thread(target=fail).start()
    event = run(scripted_ray, pending_deadline=time.time() + 0.1, stream_logs=False)
    assert event.outcome is Outcome.FAILED
    assert event.failure == JobFailure("RUNTIME_ENV_SETUP_FAILURE")


@pytest.mark.usefixtures("_counts_often")
def test_progress_begins_soon_after_a_long_wait(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pending_module, "EXPLAIN_AFTER", (0.05, 60.0))
    pending(scripted_ray)
    scripted_ray.jobs["a"].fields["job_id"] = "02000000"
    counts(scripted_ray, {"train": {"RUNNING": 2}})

    def start() -> None:
        time.sleep(0.5)
        scripted_ray.set_status("a", "RUNNING")

    threading.Thread(target=start).start()
    run_with_counts(scripted_ray, 1)
    assert progress_lines(caplog) == ["Ray tasks: 0 of 2 done, 2 running (train 0 of 2)"]


def test_many_jobs_that_fail_at_once_are_looked_into_one_after_the_other(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller_module, "QUEUE_TIMEOUT", 1.0)
    scripted_ray.script("GET", "/api/v0/.*", answers.default(delay=0.6), forever=True)
    details = JobDetails.from_json({"type": "SUBMISSION", "status": "FAILED"})

    async def look() -> list[JobFailure | None]:
        async with Poller(AiohttpTransport(cluster_at(scripted_ray), sleep=quick_sleep)) as poller:
            return list(await asyncio.gather(*(poller.why_failed(details, str) for _ in range(8))))

    found = asyncio.run(look())
    assert found[:2] == [JobFailure()] * 2
    assert found[-1] is None, "it waited for its turn for too long"

"""A cluster that goes away at any step of a task: the step waits, says so once, and gives up when it is to."""

from __future__ import annotations

import hashlib
import json
import logging
import signal
import threading
import time
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest

from airflow_provider_rayjobs.client import retries
from airflow_provider_rayjobs.client.contact import Contact
from airflow_provider_rayjobs.client.requests_transport import RequestsTransport
from airflow_provider_rayjobs.client.verbs import get_version
from airflow_provider_rayjobs.compat import versions
from airflow_provider_rayjobs.decorators import RayJobDecoratedOperator
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError, RayJobError, RayTLSError
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.operators import RayDeleteJobOperator, RayStopJobOperator, RaySubmitJobOperator
from tests.support import answers, faults
from tests.support.clients import cluster_at
from tests.support.faulty_proxy import FaultyProxy
from tests.support.tries import Tries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.faults import Fault
    from tests.support.scripted_server import ScriptedRay

#: Seconds for which the cluster is away and comes back, and the budget that ends before it does.
AWAY = 1.2
BUDGET = 2.0

#: Seconds that are longer than all quick retries of a request, which are not told.
LONGER = 5.0

JOB = r"/api/jobs/[^/]+"


class Away:
    """A cluster that goes away when a request is met, and comes back after some seconds, if at all."""

    def __init__(self, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
        self.proxy = proxy
        self.left_at = 0.0
        self._monkeypatch = monkeypatch
        self._timers: list[threading.Timer] = []
        self.budget(30.0)

    def budget(self, seconds: float) -> None:
        """Set the connection's ``unreachable_timeout``."""
        extra = {"unreachable_timeout": seconds, "connect_timeout": 2, "read_timeout": 5}
        connection = {"conn_type": "ray_jobs", "host": self.proxy.url, "extra": extra}
        self._monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(connection))

    def leave(self, seconds: float | None) -> None:
        """Go away, for some seconds or for good."""
        self.left_at = time.monotonic()
        threading.Thread(target=self.proxy.down, daemon=True).start()
        if seconds is not None:
            self._timers.append(threading.Timer(seconds, self.proxy.up))
            self._timers[-1].start()

    def at(self, method: str, path: str, seconds: float | None, number: int = 1, moment: Any = "received") -> None:
        """Go away when this request comes, for the first time or a later one; the cluster does not see it."""
        hang = faults.hang() if moment == "received" else None  # until the connection is cut
        self.proxy.on(faults.call(lambda: self.leave(seconds), moment, then=hang), method, path, number, 1)

    def end(self) -> None:
        """End what is under way."""
        for timer in self._timers:
            timer.cancel()
            timer.join()


@pytest.fixture
def away(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> Iterator[Away]:
    monkeypatch.setattr(retries, "LONGEST_ABSENCE_WAIT", 0.6)
    with FaultyProxy(scripted_ray.host, scripted_ray.port) as proxy:
        made = Away(proxy, monkeypatch)
        yield made
        made.end()


def submit(**kwargs: Any) -> RaySubmitJobOperator:
    return RaySubmitJobOperator(task_id="task", entrypoint="true", wait_for_completion=False, **kwargs)


def seven() -> int:
    return 7


def function(**kwargs: Any) -> RayJobDecoratedOperator:
    return RayJobDecoratedOperator(
        task_id="task", python_callable=seven, op_args=[], op_kwargs={}, stream_logs=False, **kwargs
    )


def assert_told_once(lines: list[str]) -> None:
    told = [line for line in lines if line.startswith(("No contact", "Contact with"))]
    assert len(told) == 2, lines
    assert told[0].startswith("No contact with the cluster; retrying for up to 30 s: http://127.0.0.1:")
    assert told[1].startswith("Contact with the cluster is back after ")


# Each step of a task that submits: the request at which the cluster goes away, and whether the cluster sees it.

STEPS = {
    "version": ("GET", "/api/version", "received"),
    "look for a package": ("GET", "/api/packages/gcs/.*", "received"),
    "upload": ("PUT", "/api/packages/gcs/.*", "received"),
    "after the upload": ("PUT", "/api/packages/gcs/.*", "delivered"),
    "submission": ("POST", "/api/jobs/", "received"),
    "answer to the submission": ("POST", "/api/jobs/", "answered"),
}


def put_folder(folder: Path) -> dict[str, str]:
    (folder / "main.py").write_text("print(1)\n" * 1000)
    return {"working_dir": str(folder)}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_goes_on_when_the_cluster_is_back(
    step: str, away: Away, scripted_ray: ScriptedRay, tmp_path: Path
) -> None:
    method, path, moment = STEPS[step]
    away.at(method, path, AWAY, moment=moment)
    tries = Tries(lambda: submit(runtime_env=put_folder(tmp_path)), "run")
    submission_id = tries.run()
    assert list(scripted_ray.jobs) == [submission_id]
    assert len(scripted_ray.received_on("POST", "/api/jobs/")) == 1
    (package,) = scripted_ray.packages.values()
    assert package[:2] == b"PK"
    assert_told_once(tries.lines)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_gives_up_as_unreachable(step: str, away: Away, scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    method, path, moment = STEPS[step]
    away.budget(BUDGET)
    away.at(method, path, None, moment=moment)
    tries = Tries(lambda: submit(runtime_env=put_folder(tmp_path)), "run")
    with pytest.raises(RayClusterUnreachableError, match=r"the cluster was unreachable for \d s .*is 2 s\). Last err"):
        tries.run()
    assert BUDGET - 0.1 < time.monotonic() - away.left_at < BUDGET + 3.0
    assert len(scripted_ray.received_on("POST", "/api/jobs/")) == (step == "answer to the submission")
    assert len([line for line in tries.lines if line.startswith("No contact")]) == 1
    assert "is back" not in str(tries.lines)


@pytest.mark.parametrize(
    "fault",
    [faults.answer(502), faults.answer(503), faults.answer(504), faults.hang()],
    ids=lambda fault: f"{fault.kind} {fault.status}",
)
def test_an_absent_cluster_is_waited_for_in_whatever_way_it_does_not_answer(
    fault: Fault, away: Away, scripted_ray: ScriptedRay
) -> None:
    rule = away.proxy.on(fault, times=7 if fault.status else 1)  # more than the quick retries are
    tries = Tries(submit, "run")
    assert tries.run() in scripted_ray.jobs
    assert rule.hits == rule.times
    assert_told_once(tries.lines)


def test_an_agent_that_is_not_there_yet_is_waited_for_and_told_once(
    away: Away, scripted_ray: ScriptedRay, caplog: pytest.LogCaptureFixture
) -> None:
    no_agent = answers.text(500, "Traceback\nNo available agent to submit job, please try again later.")
    scripted_ray.script("POST", "/api/jobs/", *[no_agent] * 3)
    assert Tries(submit, "run").run() in scripted_ray.jobs
    assert caplog.text.count("No available agent") == 1


def test_an_agent_that_never_comes_is_given_up(away: Away, scripted_ray: ScriptedRay) -> None:
    no_agent = answers.text(500, "Traceback\nNo available agent to submit job, please try again later.")
    scripted_ray.script("POST", "/api/jobs/", no_agent, forever=True)
    away.budget(1.0)
    with pytest.raises(RayClusterUnreachableError, match=r"No available agent.*; gave up the submission after \d"):
        Tries(submit, "run").run()


def test_a_failed_handshake_is_not_waited_for(scripted_ray: ScriptedRay) -> None:
    cluster = cluster_at(f"https://127.0.0.1:{scripted_ray.port}", unreachable_timeout=30)
    transport = RequestsTransport(cluster)
    with transport.waiting_for_cluster(logging.getLogger(__name__)), pytest.raises(RayTLSError):
        transport.run(get_version())
    transport.close()


def test_the_jobs_limits_do_not_count_the_wait(away: Away, scripted_ray: ScriptedRay) -> None:
    scripted_ray.new_job_reads = ["RUNNING", "SUCCEEDED"]
    away.at("POST", "/api/jobs/", 3.0)
    operator = RaySubmitJobOperator(task_id="task", entrypoint="true", job_timeout=3.0, stream_logs=False)
    assert Tries(lambda: operator, "run").run() in scripted_ray.jobs


# Later tries


@pytest.mark.parametrize(("method", "path", "number"), [("GET", JOB, 1), ("POST", f"{JOB}/stop", 1), ("GET", JOB, 2)])
def test_a_cleared_task_waits_until_it_can_stop_its_old_job(
    method: str, path: str, number: int, away: Away, scripted_ray: ScriptedRay
) -> None:
    tries = Tries(submit, "run")
    old = tries.run()
    tries._retries += 1  # as Airflow does for a clear
    away.at(method, path, AWAY, number=number)
    new = tries.run()
    assert {name: job.status for name, job in scripted_ray.jobs.items()} == {old: "STOPPED", new: "PENDING"}
    assert_told_once(tries.lines)


def test_a_retry_follows_the_job_that_an_absent_cluster_has(away: Away, scripted_ray: ScriptedRay) -> None:
    tries = Tries(submit, "run")
    old = tries.run()
    away.at("GET", JOB, AWAY)
    assert tries.run() == old
    assert_told_once(tries.lines)


# The end of a function


def result(submission: str) -> bytes:
    header = {"format": 1, "submission": submission, "outcome": "value", "progress": None}
    described = {"bytes": 1, "sha256": hashlib.sha256(b"7").hexdigest()}
    return json.dumps({**header, **described}).encode() + b"\n7"


@pytest.mark.parametrize(("deferrable", "reads"), [(False, ["SUCCEEDED"]), (True, ["RUNNING", "SUCCEEDED"])])
def test_a_functions_value_is_waited_for(
    deferrable: bool, reads: list[str], away: Away, scripted_ray: ScriptedRay
) -> None:
    scripted_ray.new_job_reads = reads
    scripted_ray.new_job_result = result
    away.at("GET", "/api/v0/logs/file.*result.*", LONGER)
    tries = Tries(lambda: function(deferrable=deferrable), "run")
    assert tries.run() == 7
    assert_told_once(tries.lines)


# The other operators


def stop() -> Any:
    return RayStopJobOperator(task_id="t", submission_id="j1")


def delete() -> Any:
    return RayDeleteJobOperator(task_id="t", submission_id="j1")


def lines_of(operator: Any) -> list[str]:
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger = logging.Logger("test", logging.INFO)  # noqa: LOG001  one of its own
    logger.addHandler(Lines())
    with patch.object(type(operator), "log", logger):
        operator.execute({})
    return lines


@pytest.mark.parametrize(
    ("make", "method", "path"),
    [(stop, "POST", f"{JOB}/stop"), (stop, "GET", JOB), (delete, "GET", JOB), (delete, "DELETE", JOB)],
)
def test_a_job_is_stopped_and_deleted_when_the_cluster_is_back(
    make: Callable[[], Any], method: str, path: str, away: Away, scripted_ray: ScriptedRay
) -> None:
    scripted_ray.add_job("j1", "RUNNING" if make is stop else "SUCCEEDED")
    away.at(method, path, AWAY)
    assert_told_once(lines_of(make()))
    assert [job.status for job in scripted_ray.jobs.values()] == (["STOPPED"] if make is stop else [])


@pytest.mark.parametrize("make", [stop, delete])
def test_a_job_of_a_cluster_that_stays_away_is_an_error(make: Callable[[], Any], away: Away) -> None:
    away.budget(BUDGET)
    away.leave(None)
    with pytest.raises(RayClusterUnreachableError, match=r"the cluster was unreachable for \d s"):
        make().execute({})
    assert BUDGET - 0.1 < time.monotonic() - away.left_at < BUDGET + 3.0 + LONGER  # a request under way may take that


@pytest.mark.parametrize("make", [RayStopJobOperator, RayDeleteJobOperator])
def test_the_wait_for_the_cluster_is_not_taken_from_the_time_for_the_jobs_end(
    make: Any, away: Away, scripted_ray: ScriptedRay
) -> None:
    scripted_ray.stop_takes = 1.0
    scripted_ray.add_job("j1", "RUNNING")
    if make is RayDeleteJobOperator:
        scripted_ray.jobs["j1"].reads.extend(["RUNNING"] * 2 + ["SUCCEEDED"])
    name = "stop_timeout" if make is RayStopJobOperator else "end_timeout"
    away.leave(3.0)
    make(task_id="t", submission_id="j1", **{name: 2.5}).execute({})


# What does not wait


def test_a_users_own_call_keeps_the_quick_retries(away: Away) -> None:
    away.leave(None)
    hook = RayJobHook()
    for call in (hook.get_version_info, lambda: hook.submit_job(entrypoint="true")):
        started = time.monotonic()
        with pytest.raises(RayClusterUnreachableError, match="connection refused"):
            call()
        assert time.monotonic() - started < 9.0


@pytest.mark.parametrize("step", ["version", "upload"])
def test_a_kill_breaks_the_wait_off(step: str, away: Away, scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    method, path, _ = STEPS[step]
    operator = submit(runtime_env=put_folder(tmp_path))

    def handler(*_: object) -> None:
        operator.on_kill()
        for terminated in versions.TERMINATED:  # as Airflow 2's own does
            raise terminated("Task received SIGTERM signal")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        away.at(method, path, None)
        signal.setitimer(signal.ITIMER_REAL, 1.5)
        started = time.monotonic()
        with pytest.raises(versions.TERMINATED or RayJobError):
            Tries(lambda: operator, "run").run()
        assert time.monotonic() - started < 4.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert scripted_ray.received_on("POST") == []


@pytest.mark.parametrize("single", [False, True], ids=["waiting", "single attempts"])
def test_silence_is_told_after_a_second(
    single: bool, scripted_ray: ScriptedRay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    scripted_ray.script("GET", "/api/version", *[answers.default(delay=1.5)] * 2)
    transport = RequestsTransport(cluster_at(scripted_ray))
    log = logging.getLogger(__name__)
    with transport.single_attempts(Contact(30, log)) if single else transport.waiting_for_cluster(log):
        for _ in range(2):
            transport.run(get_version())
    transport.close()
    said = [record.getMessage() for record in caplog.records if record.name == __name__]
    assert said == [f"No answer from {scripted_ray.url} yet; waiting"]


def test_a_single_attempt_is_not_repeated(scripted_ray: ScriptedRay) -> None:
    scripted_ray.script("GET", "/api/version", answers.bad_gateway())
    transport = RequestsTransport(cluster_at(scripted_ray))
    with transport.single_attempts(Contact(30, logging.getLogger(__name__))), pytest.raises(RayClusterUnreachableError):
        transport.run(get_version())
    assert len(scripted_ray.received_on("GET", "/api/version")) == 1
    assert transport.run(get_version()).ray_version
    transport.close()

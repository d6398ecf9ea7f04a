"""Local files of the operator's runtime_env: packed before there is a submission, and broken off by a kill."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, TaskDeferred

from airflow_provider_rayjobs.compat import versions
from airflow_provider_rayjobs.exceptions import RayJobFailedError, RayJobInterruptedError, RayPackageError
from airflow_provider_rayjobs.jobs import JobFailure
from airflow_provider_rayjobs.observability import traces
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from airflow_provider_rayjobs.tasks.context import FAILURE_XCOM
from airflow_provider_rayjobs.tasks.guard import refused_for_good
from tests.support import answers
from tests.support.tries import Tries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.scripted_server import ScriptedRay
    from tests.support.stats import KeptStats


#: Of a try that another will follow; no Airflow can be asked about it.
CONTEXT: Any = {"ti": SimpleNamespace(try_number=1, max_tries=1, hostname="", pid=1, task=SimpleNamespace(retries=1))}


@pytest.fixture
def operator(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> RaySubmitJobOperator:
    connection = {"conn_type": "ray_jobs", "host": scripted_ray.url, "extra": {"max_upload_size": 0.1}}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(connection))
    return RaySubmitJobOperator(task_id="t", entrypoint="true", ray_conn_id="ray_x", runtime_env={"working_dir": "/no"})


@pytest.fixture
def alarm(operator: RaySubmitJobOperator) -> Iterator[None]:
    """A signal handler as Airflow's, after half a second."""

    def handler(*_: object) -> None:
        operator.on_kill()
        for terminated in versions.TERMINATED:  # as Airflow 2's own does
            raise terminated("Task received SIGTERM signal")

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_package_error_says_that_nothing_was_submitted(operator: Any) -> None:
    with pytest.raises(
        RayPackageError, match=r"^Nothing was submitted: runtime_env\['working_dir'\]: there is no folder"
    ):
        operator._prepare(operator.runtime_env)


def test_relative_paths_are_relative_to_the_dag_file(
    operator: Any, scripted_ray: ScriptedRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, there in (("elsewhere", "1"), ("dags", "the file of the DAG's")):
        (tmp_path / name / "code").mkdir(parents=True)
        (tmp_path / name / "code/main.py").write_text(there)
    (tmp_path / "dags/req.txt").write_text("a==1")
    monkeypatch.chdir(tmp_path / "elsewhere")
    dag = DAG("d", schedule=None)
    dag.fileloc = str(tmp_path / "dags/dag.py")
    operator.dag = dag
    ready = operator._prepare({"working_dir": "code", "py_modules": ["./code"], "pip": "req.txt"})
    assert ready["pip"]["packages"] == ["a==1"]
    for uri in (ready["working_dir"], *ready["py_modules"]):
        with zipfile.ZipFile(io.BytesIO(scripted_ray.packages[uri.removeprefix("gcs://")])) as archive:
            assert [archive.read(name) for name in archive.namelist()] == [b"the file of the DAG's"]
    with pytest.raises(RayPackageError, match=rf"there is no folder.* '{tmp_path}/dags/absent'"):
        operator._prepare({"working_dir": "absent"})


def test_a_package_that_is_too_large_is_not_retried(operator: Any, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(range(256)) * 1000)
    with (tmp_path / "random").open("wb") as file:
        file.write(os.urandom(200_000))
    with (
        pytest.raises(AirflowFailException, match=r"^Nothing was submitted: .*The largest of its 2 files"),
        refused_for_good(),
    ):
        operator._prepare({"working_dir": str(tmp_path)})


@pytest.mark.usefixtures("alarm")
def test_a_kill_breaks_the_upload_off(operator: Any, scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("print(1)")
    scripted_ray.script("PUT", ".*", answers.default(delay=8))
    started = time.monotonic()
    guard = operator._new_guard(CONTEXT)
    with (
        pytest.raises(versions.TERMINATED or RayJobInterruptedError, match=r"it had no Ray job yet|SIGTERM"),
        guard.guarding(),
        operator._waiting_for_cluster(),
    ):
        operator._prepare({"working_dir": str(tmp_path)})
    assert time.monotonic() - started < 7
    assert not scripted_ray.received_on("POST")


def test_after_a_kill_nothing_is_packed(operator: Any, scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    guard = operator._new_guard(CONTEXT)
    operator.on_kill()
    with (
        pytest.raises(RayJobInterruptedError, match="it had no Ray job yet"),
        guard.guarding(),
        operator._waiting_for_cluster(),
    ):
        operator._prepare({"working_dir": str(tmp_path)})
    assert not scripted_ray.received


def test_a_secret_that_ray_may_change_is_told_by_its_name(operator: Any, caplog: pytest.LogCaptureFixture) -> None:
    operator.secret_env_vars = {"LOGIN": "tr0ub$HOME&3", "BRACES": "a${X}b", "PLAIN": "5$ and $", "OTHER": "x"}
    env_vars = {**operator.secret_env_vars, "A_PASSWORD": "x$y", "PATH": "$PATH:/x"}
    warned: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operator.log, "warning", lambda text, *args: warned.append(text % args))
        operator._warn_of_expansion({"env_vars": env_vars})
    assert sorted(text.partition("variable ")[2].partition(",")[0] for text in warned) == [
        "A_PASSWORD",
        "BRACES",
        "LOGIN",
    ]
    assert "tr0ub" not in "".join(warned)


#: Runs a task to its end in a process of its own; prints what of this package is loaded after the job has ended.
_LATE = """
import json, sys
from types import SimpleNamespace
from airflow_provider_rayjobs.{module} import {kind}
from airflow_provider_rayjobs.following.watcher import JobWatcher

def square(number):
    return number * number

run, seen = JobWatcher.run, []

async def watched(self):
    event = await run(self)
    seen[:] = sys.modules
    return event

JobWatcher.run = watched

class TaskInstance(SimpleNamespace):
    pass

operator = {kind}(task_id="t", ray_conn_id="ray_x", {arguments})
ti = TaskInstance(
    dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1, max_tries=0, start_date=None, task=operator,
    xcom_push=lambda key, value: None, hostname="", pid=1,
)
try:
    operator.execute(dict(ti=ti, dag_run=SimpleNamespace(start_date=None)))
except Exception as e:
    print(repr(e))
print("LATE", json.dumps(sorted(name for name in set(sys.modules) - set(seen) if "rayjobs" in name)), bool(seen))
"""


@pytest.mark.parametrize(
    ("module", "kind", "arguments"),
    [
        ("operators", "RaySubmitJobOperator", "entrypoint='true'"),
        ("decorators", "RayJobDecoratedOperator", "python_callable=square, op_args=[3]"),
    ],
)
def test_nothing_is_loaded_after_the_wait(
    scripted_ray: ScriptedRay, tmp_path: Path, module: str, kind: str, arguments: str
) -> None:
    """The package may have been upgraded while the job ran: modules of two versions don't fit together."""
    scripted_ray.new_job_reads = ["RUNNING", "SUCCEEDED"]
    connection = {"conn_type": "ray_jobs", "host": scripted_ray.url}
    code = _LATE.format(module=module, kind=kind, arguments=arguments)
    file = tmp_path / "task.py"
    file.write_text(code)
    environ = os.environ | {"AIRFLOW_CONN_RAY_X": json.dumps(connection)}
    command = [sys.executable, "-W", "ignore", file]
    done = subprocess.run(command, check=False, env=environ, capture_output=True, text=True, timeout=120)
    assert "LATE [] True" in done.stdout, done.stdout + done.stderr


class _NoXComs(dict):  # type: ignore[type-arg]
    """XComs of a backend that is gone."""

    def __setitem__(self, key: str, value: object) -> None:
        if key == FAILURE_XCOM:
            raise OSError("the backend is gone")
        super().__setitem__(key, value)


@pytest.mark.parametrize("gone", [False, True])
def test_why_a_job_failed_is_an_xcom_whose_loss_does_not_hide_the_error(
    gone: bool, scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url}))
    scripted_ray.new_job_reads = ["FAILED"]
    tries = Tries(lambda: RaySubmitJobOperator(task_id="task", entrypoint="x", stream_logs=False), "run")
    context = tries.context()
    if gone:
        tries.ti.xcoms = _NoXComs()
    with pytest.raises(RayJobFailedError) as failed:
        tries.make().execute(context)
    assert failed.value.cause == "JOB_ENTRYPOINT_COMMAND_ERROR"
    stored = None if gone else JobFailure(failed.value.cause, failed.value.exit_code).to_json()
    assert tries.ti.xcoms.get(FAILURE_XCOM) == stored


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, True),
        *[({name: wish}, wish) for name in ("reattach", "durable") for wish in (True, False)],
        *[({"reattach": wish, "durable": wish}, wish) for wish in (True, False)],
        ({"reattach": None, "durable": False}, False),
    ],
)
def test_durable_is_another_name_of_reattach(given: dict[str, bool], wanted: bool) -> None:
    made = RaySubmitJobOperator(task_id="t", entrypoint="true", **given)
    assert made.reattach is wanted


@pytest.mark.parametrize("durable", [False, True])
def test_durable_and_reattach_must_not_contradict_each_other(durable: bool) -> None:
    given = {"task_id": "t", "entrypoint": "true", "reattach": not durable}
    with pytest.raises(ValueError, match=f"^reattach={not durable} and durable={durable} contradict each other: "):
        RaySubmitJobOperator(**given, durable=durable)
    with pytest.raises(ValueError, match="may come from default_args"):
        RaySubmitJobOperator(**given, default_args={"durable": durable})


def test_without_durable_the_job_of_a_lost_try_is_stopped(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url}))
    scripted_ray.new_job_reads = ["RUNNING"]
    given: dict[str, Any] = {"task_id": "task", "entrypoint": "x", "stream_logs": False}
    tries = Tries(lambda: RaySubmitJobOperator(**given, durable=False), "run")
    with pytest.raises(TaskDeferred):  # nothing resumes it
        RaySubmitJobOperator(**given, deferrable=True).execute(tries.context())
    lost = tries.ti.xcoms["submission_id"]
    scripted_ray.new_job_reads = ["SUCCEEDED"]
    assert tries.run() != lost
    assert scripted_ray.received_on("POST", f"/api/jobs/{lost}/stop")


class StateStore:
    """Airflow's store of a task's state; it can be written to only."""

    def __init__(self, error: Exception | None = None, look: Callable[[], int] = lambda: 0) -> None:
        self.values: list[tuple[str, Any]] = []
        self.seen: list[int] = []
        self._error, self._look = error, look

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""
        self.seen.append(self._look())
        if self._error:
            raise self._error
        self.values.append((key, value))


@pytest.mark.parametrize("deferrable", [False, True])
def test_the_id_is_in_the_store_before_the_job_is_followed(
    deferrable: bool, scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url}))
    scripted_ray.new_job_reads = ["RUNNING"] if deferrable else ["SUCCEEDED"]
    tries = Tries(lambda: RaySubmitJobOperator(task_id="task", entrypoint="x", deferrable=deferrable), "run")
    for number in range(2):  # the second try follows the first one's job
        store = StateStore(look=lambda: len(scripted_ray.received_on("POST", "/api/jobs/")))
        with pytest.raises(TaskDeferred) if deferrable else nullcontext():
            tries.make().execute(tries.context(task_state_store=store))
        assert store.values == [("submission_id", tries.ti.xcoms["submission_id"])]
        assert store.seen == [number], "it may take long: a kill after the submission must stop the job at once"
        assert [one.json["submission_id"] for one in scripted_ray.received_on("POST", "/api/jobs/")] == [
            store.values[0][1]
        ]


def test_a_store_that_takes_no_id_does_not_fail_the_task(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url}))
    scripted_ray.new_job_reads = ["SUCCEEDED"]
    tries = Tries(lambda: RaySubmitJobOperator(task_id="task", entrypoint="x", stream_logs=False), "run")
    result = tries.run(task_state_store=StateStore(RuntimeError("API_SERVER_ERROR")))
    assert result == tries.ti.xcoms["submission_id"]
    (line,) = [line for line in tries.lines if "task_state_store" in line]
    assert line.endswith("RuntimeError('API_SERVER_ERROR')")


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize(("end", "cause"), [("SUCCEEDED", ""), ("FAILED", "job_entrypoint_command_error")])
def test_the_metrics_of_a_try(
    end: str,
    cause: str,
    deferrable: bool,
    scripted_ray: ScriptedRay,
    monkeypatch: pytest.MonkeyPatch,
    stats: KeptStats,
    tmp_path: Path,
) -> None:
    (tmp_path / "main.py").write_text("print(1)")
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url}))
    scripted_ray.new_job_reads = ["PENDING", "RUNNING", end]
    job = {"entrypoint": "x", "stream_logs": False, "runtime_env": {"working_dir": str(tmp_path)}}
    tries = Tries(lambda: RaySubmitJobOperator(task_id="task", deferrable=deferrable, **job), "run")
    with pytest.raises(RayJobFailedError) if cause else contextlib.nullcontext():
        tries.run()
    assert stats.of("submitted") == [1]
    assert stats.of("adopted") == stats.of("reattached") == []
    assert [tags["cause"] for _, name, _, tags in stats.sent if name == "ray_jobs.failed"] == [cause] * bool(cause)
    assert stats.of("upload_bytes") == [len(package) for package in scripted_ray.packages.values()]
    (pending,), (ran,) = stats.of("pending_time"), stats.of("run_time")
    assert 0 < pending < 30
    assert 0 < ran < 30
    task = {"conn_id": "ray_default", "dag_id": "dag", "task_id": "task"}
    of_task = [tags for _, _, _, tags in stats.sent if "task_id" in tags]
    assert all(tags | task == tags for tags in of_task)
    if not deferrable:  # the requests of the triggers are told by what they share, every few seconds
        assert sum(stats.of("head_requests")) == len(scripted_ray.received)


def test_a_reattached_job_and_a_refused_one_are_counted(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch, stats: KeptStats
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url}))
    job = {"task_id": "task", "entrypoint": "x", "wait_for_completion": False}
    tries = Tries(lambda: RaySubmitJobOperator(**job), "run")
    tries.run()
    tries.run()
    assert (stats.of("submitted"), stats.of("reattached")) == ([1], [1])
    scripted_ray.script("GET", "/api/version", answers.forbidden())
    with pytest.raises(AirflowFailException):
        tries.run()
    assert stats.sent[-2][1:] == (
        "ray_jobs.failed",
        1,
        {"conn_id": "ray_default", "dag_id": "dag", "task_id": "task", "cause": "refused"},
    )


def test_the_job_gets_the_trace_of_its_task_and_a_later_try_still_follows_it(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url}))
    numbers = itertools.count(1)
    monkeypatch.setattr(traces, "environment_of", lambda ti: {"TRACEPARENT": f"00-{next(numbers)}"})

    def make(inject: bool = True, **more: Any) -> Tries:
        job = {"task_id": "task", "entrypoint": "x", "wait_for_completion": False, "inject_trace_context": inject}
        return Tries(lambda: RaySubmitJobOperator(**job, **more), f"run {inject} {more}")

    def env_vars(submission_id: str) -> Any:
        return (scripted_ray.jobs[submission_id].fields["runtime_env"] or {}).get("env_vars")

    tries = make()
    first = tries.run()
    assert env_vars(first) == {"TRACEPARENT": "00-1"}
    assert tries.run() == first, "the trace of the second try makes no other job"
    mine = {"env_vars": {"TRACEPARENT": "mine"}}
    assert env_vars(make(runtime_env=mine).run()) == mine["env_vars"]
    assert env_vars(make(secret_env_vars={"TRACESTATE": "s3cret"}).run()) == {"TRACESTATE": "s3cret"}
    assert not env_vars(make(inject=False).run())


def test_a_job_without_a_trace_says_why(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url}))
    job = {"task_id": "task", "entrypoint": "x", "wait_for_completion": False, "inject_trace_context": True}
    tries = Tries(lambda: RaySubmitJobOperator(**job), "run")
    tries.run()
    assert "The job gets no trace context: Airflow does not trace this task (see [traces] otel_on)" in tries.lines

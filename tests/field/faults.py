"""The faults and their expected results: by default the same as without the fault."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.field.airflow import SCHEDULERS, TRIGGERERS, WORKERS
from tests.field.broker import DEFAULT, LATER
from tests.field.case import MOMENTS, Expected, Fault
from tests.field.run import TASK
from tests.support import faults as network
from tests.support.airflow_processes import (
    COMPONENT_HEARTBEAT_TIMEOUT,
    TASK_HEARTBEAT_TIMEOUT,
    airflow_version,
)
from tests.support.airflow_records import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.field.bench import Bench
    from tests.field.run import Run
    from tests.support.postgres import Postgres
    from tests.support.redis_server import Redis

    Fire = Callable[[Bench, Sequence[Run]], None]

KILL, TERM, QUIT, STOP, CONT = signal.SIGKILL, signal.SIGTERM, signal.SIGQUIT, signal.SIGSTOP, signal.SIGCONT

ONCE = Expected()

# Seconds.
#: A pause after which Airflow considers a task or component dead, and has acted on it.
LONG_PAUSE = 10 + max(TASK_HEARTBEAT_TIMEOUT, COMPONENT_HEARTBEAT_TIMEOUT)
#: From shorter than each grace period of Airflow and the provider (the shortest: 5 s between SIGTERM and SIGKILL), to
#: longer than each (the longest: a minute, in which a job that was stopped with its old try is submitted again).
PAUSES = (3, LONG_PAUSE, 75)
#: How long a job may take to stop after a user's action; Airflow 2 gives a task marked as a success 20 s.
STOPPED_WITHIN = 50


def _once(_moment: str, _mode: str) -> Expected:
    return ONCE


def _may_be_handed_over(_moment: str, mode: str) -> Expected:
    """Return the result for a task whose trigger may move to another triggerer, which reads the log from its start."""
    return replace(ONCE, repeats=mode == "deferrable")


# Processes of one task


def _has_process(moment: str, mode: str) -> bool:
    """Return whether a task has a process; a deferred one has none, and a queued one has none yet."""
    return moment == "uploading" or (mode == "sync" and moment != "queued")


def _task_process(sig: int, *, supervisor: bool, pause: float = 0.0) -> Fire:
    """Send a signal to the tasks' processes, or to their supervisors; resume them after a pause."""

    def fire(_bench: Bench, runs: Sequence[Run]) -> None:
        # If the job has ended, its task's process may have ended too.
        found = [processes[supervisor] for run in runs if (processes := run.processes())]
        for process in found:
            process.signal(sig)
        if pause:
            time.sleep(pause)
            for process in found:
                process.signal(CONT)

    return fire


def _of_tasks() -> list[Fault]:
    def fault(hits: str, name: str, fire: Fire, sliced: tuple[str, str] | None) -> Fault:
        return Fault(
            name,
            hits,
            fire,
            lambda moment, mode: ONCE if _has_process(moment, mode) else None,
            shared=True,
            slice=sliced,
        )

    def pair(hits: str, *, supervisor: bool) -> list[Fault]:
        return [
            fault(hits, "kill -9", _task_process(KILL, supervisor=supervisor), ("running", "sync")),
            fault(hits, "SIGTERM", _task_process(TERM, supervisor=supervisor), ("running", "sync")),
            *(
                fault(
                    hits,
                    f"paused for {pause} s",
                    _task_process(STOP, supervisor=supervisor, pause=pause),
                    ("running", "sync") if pause == LONG_PAUSE else None,
                )
                for pause in PAUSES
            ),
        ]

    return [*pair("task process", supervisor=False), *pair("task supervisor", supervisor=True)]


# User actions


def _stopped(bench: Bench, runs: Sequence[Run]) -> None:
    """Wait until no job of the runs is alive, or until a timeout.

    Jobs that wait for resources are not waited for, because Ray stops them only when they get their resources.
    """
    at_once = [run for run in runs if run.moment not in ("queued", "pending")]
    time.sleep(10)
    deadline = time.monotonic() + STOPPED_WITHIN
    while time.monotonic() < deadline:
        jobs = bench.ray.jobs()
        if all(not run.alive(jobs) and (run.jobs(jobs) or run.moment == "uploading") for run in at_once):
            return
        time.sleep(1)


def _act(act: Callable[[Run], None], *, users: int = 20, then_stops: bool = True) -> Fire:
    """Return a fault in which users act on all runs at once, and wait until the jobs have stopped."""

    def fire(bench: Bench, runs: Sequence[Run]) -> None:
        with ThreadPoolExecutor(users) as threads:
            list(threads.map(act, runs))
        if then_stops:
            _stopped(bench, runs)

    return fire


def _cleared(bench: Bench, runs: Sequence[Run]) -> None:
    """Clear all tasks at once; wait until their earlier jobs have stopped, see :func:`_stopped`."""
    old = {run.run_id: run.alive(bench.ray.jobs()) for run in runs if run.moment != "pending"}
    _act(lambda run: run.airflow.clear(run.dag_id, run.run_id, TASK), then_stops=False)(bench, runs)
    time.sleep(10)
    deadline = time.monotonic() + STOPPED_WITHIN
    while time.monotonic() < deadline:
        jobs = bench.ray.jobs()
        if not any(set(old.get(run.run_id, ())) & set(run.alive(jobs)) for run in runs):
            return
        time.sleep(1)


def _ended_by_user(state: str) -> Callable[[str, str], Expected]:
    """Return the result for a task that a user ends: its job, if there is one, ends with it."""

    def expected(moment: str, _mode: str) -> Expected:
        must = Expected(state=state, starts=1, ends=0, whole=False)
        if moment == "queued":
            return replace(must, starts=0)
        if moment in ("uploading", "pending"):  # the job may start before it is stopped
            return replace(must, starts=(0, 1))
        if moment == "ending":
            return replace(must, ends=(0, 1))
        return replace(must, ends=1) if moment == "ended" else must

    def of_airflow_2(moment: str, mode: str) -> Expected:
        # Airflow 2 gives a task that is marked as a success another 20 s ([core] task_success_overtime).
        return replace(expected(moment, mode), ends=(0, 1)) if moment == "uploading" else expected(moment, mode)

    return of_airflow_2 if state == "success" and airflow_version() < (3, 0) else expected


def _run_failed(moment: str, mode: str) -> Expected:
    """Return the result for a task whose run a user marks as failed: Airflow skips tasks without a worker."""
    return _ended_by_user("skipped" if moment == "queued" else "failed")(moment, mode)


def _run_anew(moment: str, mode: str) -> Expected:
    """Return the result for a task that a user clears: its job ends, and another one runs."""
    must = Expected(starts=2, ends=1)
    if moment == "queued":
        return replace(must, starts=1)
    if moment in ("uploading", "pending"):
        return replace(must, starts=(1, 2))
    if moment == "ending":
        return replace(must, ends=(1, 2))
    if (
        moment == "ended" and mode == "sync"
    ):  # no new job if Airflow records the success at that moment, see docs/exactly-once.md
        return replace(must, starts=(1, 2), ends=(1, 2))
    return replace(must, ends=2) if moment == "ended" else must


def _by_users() -> list[Fault]:
    def marks(state: str) -> Fire:
        return _act(lambda run: run.airflow.set_task_state(run.dag_id, run.run_id, TASK, state))  # type: ignore[arg-type]

    acts: list[tuple[str, Fire, Callable[[str, str], Expected], tuple[str, str]]] = [
        ("marks the task failed", marks("failed"), _ended_by_user("failed"), ("running", "sync")),
        ("marks the task a success", marks("success"), _ended_by_user("success"), ("running", "deferrable")),
        ("clears the task", _cleared, _run_anew, ("running", "deferrable")),
        # One after another: when a dozen are deleted at the same time, the API server of Airflow 3.3 runs out of
        # database connections, and does not answer for minutes.
        (
            "deletes the run",
            _act(lambda run: run.delete(), users=1),
            _ended_by_user("deleted"),
            ("running", "deferrable"),
        ),
        (
            "marks the run failed",
            _act(lambda run: run.airflow.set_run_state(run.dag_id, run.run_id, "failed")),
            _run_failed,
            ("running", "sync"),
        ),
    ]
    single = [Fault(name, "user", fire, expected, shared=True, slice=sliced) for name, fire, expected, sliced in acts]
    twenty = tuple(f"running {number:02}" for number in range(1, 11))
    many = [
        Fault(
            f"{name}, twenty at once",
            "user",
            fire,
            lambda _moment, mode, expected=expected: expected("running", mode),  # type: ignore[misc]
            moments=twenty,
        )
        for name, fire, expected, _ in acts
    ]
    return [*single, *many]


# Time-outs


def _timeouts() -> list[Fault]:
    def over(bench: Bench, runs: Sequence[Run]) -> None:
        deadline = time.monotonic() + 60
        while not all(run.is_over() for run in runs) and time.monotonic() < deadline:
            time.sleep(1)
        _stopped(bench, runs)

    def fault(kind: str, state: str, error: tuple[str, ...]) -> Fault:
        must = Expected(state=state, ends=0, tries=1, error=error, whole=False)
        return Fault(
            f"{kind} passes",
            "time-out",
            over,
            lambda _moment, _mode: must,
            shared=True,
            moments=("running",),
            kind=kind,
            slice=("running", "deferrable"),
        )

    return [
        fault("execution_timeout", "failed", ("AirflowTaskTimeout", "RayJobTimeoutError")),
        fault("job_timeout", "failed", ("RayJobTimeoutError",)),
        fault("dagrun_timeout", "skipped", ()),
    ]


# Components


def _killed(names: Sequence[str], sig: int = KILL, away: float = 0.0) -> Fire:
    """Return a fault that kills components, or stops them gracefully, and starts them again."""

    def fire(bench: Bench, _runs: Sequence[Run]) -> None:
        for name in names:
            bench.airflow.components[name].signal(KILL) if sig == KILL else bench.airflow.components[name].terminate()
        for name in names:
            bench.airflow.components[name].end(0 if sig == KILL else 20)
        time.sleep(away)
        bench.airflow.heal()

    return fire


def _paused(names: Sequence[str], seconds: float) -> Fire:
    def fire(bench: Bench, _runs: Sequence[Run]) -> None:
        for name in names:
            bench.airflow.signal_process(name, STOP)
        time.sleep(seconds)
        for name in names:
            bench.airflow.signal_process(name, CONT)

    return fire


def _only_first(bench: Bench) -> None:
    """Make all tasks run on the first worker."""
    bench.airflow.broker.cease(DEFAULT, [WORKERS[1]])


def _first_worker(strike: Fire) -> Fire:
    """Return a fault of the first worker, which has all tasks; the second one then takes new tasks."""

    def fire(bench: Bench, runs: Sequence[Run]) -> None:
        strike(bench, runs)
        bench.airflow.broker.consume(DEFAULT, [WORKERS[1]])

    return fire


def _first_worker_paused(seconds: float) -> Fire:
    def pause(bench: Bench, _runs: Sequence[Run]) -> None:
        bench.airflow.signal_process(WORKERS[0], STOP)

    def fire(bench: Bench, runs: Sequence[Run]) -> None:
        _first_worker(pause)(bench, runs)
        time.sleep(seconds)
        bench.airflow.signal_process(WORKERS[0], CONT)

    return fire


def _workers() -> list[Fault]:
    first = WORKERS[0]

    def warm(bench: Bench, _runs: Sequence[Run]) -> None:
        bench.airflow.components[first].terminate()  # waits for its tasks; a later session starts it again

    def cold(bench: Bench, _runs: Sequence[Run]) -> None:
        main = bench.airflow.components[first].main()
        assert main is not None
        main.signal(QUIT)

    def all_processes(bench: Bench, _runs: Sequence[Run]) -> None:
        bench.airflow.signal_process(first, TERM)

    def lost(bench: Bench, _runs: Sequence[Run]) -> None:
        bench.airflow.kill_process(first)

    def after_grace(strike: Fire) -> Fire:
        """Return a fault that kills the worker after a grace period, like an orchestrator, and starts it again."""

        def fire(bench: Bench, runs: Sequence[Run]) -> None:
            _first_worker(strike)(bench, runs)
            bench.airflow.components[first].end(15)
            bench.airflow.heal()

        return fire

    def fault(name: str, fire: Fire, sliced: tuple[str, str] | None) -> Fault:
        return Fault(name, "worker", fire, _once, prepare=_only_first, slice=sliced)

    return [
        fault("kill -9", after_grace(lost), ("running", "sync")),
        fault("warm shutdown (SIGTERM)", _first_worker(warm), None),
        fault("warm shutdown, killed after 15 s", after_grace(warm), ("running", "sync")),
        fault("cold shutdown (SIGQUIT)", after_grace(cold), ("running", "sync")),
        fault("SIGTERM to all its processes", after_grace(all_processes), ("pending", "sync")),
        *(
            fault(
                f"paused for {seconds} s",
                _first_worker_paused(seconds),
                ("ending", "sync") if seconds == LONG_PAUSE else None,
            )
            for seconds in PAUSES
        ),
    ]


def _clocks() -> list[Fault]:
    def fault(name: str, offset: str) -> Fault:
        def set_clock(bench: Bench) -> None:
            bench.airflow.set_clock(WORKERS[0], offset)
            _only_first(bench)

        def until_the_end(bench: Bench, runs: Sequence[Run]) -> None:
            for run in runs:
                run.let_end()
            wait(lambda: all(run.is_over() for run in runs), 150, lambda: "the tasks do not end")
            bench.airflow.set_clock(WORKERS[0], "")

        return Fault(
            f"its clock is 10 minutes {name}",
            "worker",
            until_the_end,
            # Airflow 2 runs no task on a worker whose clock is slow.
            lambda _moment, _mode: None if name == "slow" and airflow_version() < (3, 0) else ONCE,
            prepare=set_clock,
            moments=("uploading", "running"),
            slice=("running", "deferrable") if name == "slow" else None,
        )

    return [fault("fast", "+10m"), fault("slow", "-10m")]


def _triggerers() -> list[Fault]:
    def busiest(bench: Bench) -> str:
        rows = bench.airflow.query(
            "SELECT j.hostname AS name FROM trigger t JOIN job j ON j.id = t.triggerer_id"
            " GROUP BY j.hostname ORDER BY count(*) DESC"
        )
        return str(rows[0]["name"]) if rows else TRIGGERERS[0]

    def one(strike: Callable[[Sequence[str]], Fire]) -> Fire:
        return lambda bench, runs: strike([busiest(bench)])(bench, runs)

    def fault(hits: str, name: str, fire: Fire, sliced: tuple[str, str] | None) -> Fault:
        return Fault(name, hits, fire, _may_be_handed_over, slice=sliced)

    def killed_and_paused(bench: Bench, runs: Sequence[Run]) -> None:
        bench.airflow.signal_process(TRIGGERERS[0], KILL)
        _paused([TRIGGERERS[1]], LONG_PAUSE)(bench, runs)
        bench.airflow.heal()

    def hundred() -> Fault:
        return Fault(
            f"one killed with -9, the other one paused for {LONG_PAUSE} s, a hundred jobs",
            "triggerers",
            killed_and_paused,
            lambda moment, mode: _may_be_handed_over(moment, mode) if mode == "deferrable" else None,
            moments=tuple(f"running {number:03}" for number in range(1, 101)),
        )

    gone = COMPONENT_HEARTBEAT_TIMEOUT + 5
    running = ("running", "deferrable")
    return [
        hundred(),
        fault("one triggerer", "kill -9", one(lambda names: _killed(names, KILL, gone)), running),
        fault("one triggerer", "SIGTERM", one(lambda names: _killed(names, TERM, gone)), None),
        fault("one triggerer", f"paused for {LONG_PAUSE} s", one(lambda names: _paused(names, LONG_PAUSE)), running),
        fault("both triggerers", "kill -9", _killed(TRIGGERERS), ("ending", "deferrable")),
        fault("both triggerers", "SIGTERM", _killed(TRIGGERERS, TERM), running),
        fault("both triggerers", f"paused for {LONG_PAUSE} s", _paused(TRIGGERERS, LONG_PAUSE), None),
    ]


def _schedulers() -> list[Fault]:
    first = SCHEDULERS[:1]
    gone = COMPONENT_HEARTBEAT_TIMEOUT + 5
    faults = [
        ("one scheduler", "kill -9", _killed(first, KILL, gone), ("queued", "sync")),
        ("one scheduler", "SIGTERM", _killed(first, TERM, gone), None),
        ("one scheduler", f"paused for {LONG_PAUSE} s", _paused(first, LONG_PAUSE), None),
        ("both schedulers", "kill -9", _killed(SCHEDULERS), ("ending", "sync")),
        ("both schedulers", "SIGTERM", _killed(SCHEDULERS, TERM), None),
        ("both schedulers", f"paused for {LONG_PAUSE} s", _paused(SCHEDULERS, LONG_PAUSE), None),
    ]
    return [Fault(name, hits, fire, _once, slice=sliced) for hits, name, fire, sliced in faults]


def _api_servers() -> list[Fault]:
    name = ["api-server"]
    faults = [
        ("kill -9, started again at once", _killed(name), None),
        ("away for 30 s", _killed(name, KILL, 30), ("running", "sync")),
        ("paused for 10 s", _paused(name, 10), None),
    ]
    return [Fault(what, "API server", fire, _once, slice=sliced) for what, fire, sliced in faults]


def _stores() -> list[Fault]:
    def without_broker(moment: str, mode: str) -> Expected:
        # The job has ended, but the task can't be sent to a worker: Airflow may use up all tries within seconds.
        ends_meanwhile = mode == "deferrable" and moment in ("ending", "ended")
        return replace(ONCE, state=("success", "failed")) if ends_meanwhile else ONCE

    def restarted(of: Callable[[Bench], Postgres | Redis], away: float, *, crash: bool = False) -> Fire:
        def fire(bench: Bench, _runs: Sequence[Run]) -> None:
            server = of(bench)
            server.kill() if crash else server.stop()
            time.sleep(away)
            server.start()

        return fire

    def postgres(bench: Bench) -> Postgres:
        return bench.postgres

    def redis(bench: Bench) -> Redis:
        return bench.redis

    def postgres_paused(bench: Bench, _runs: Sequence[Run]) -> None:
        bench.postgres.pause()
        time.sleep(10)
        bench.postgres.resume()

    def redis_paused(bench: Bench, _runs: Sequence[Run]) -> None:
        bench.redis.freeze()
        time.sleep(15)
        bench.redis.resume()

    faults = [
        ("PostgreSQL", "paused for 10 s", postgres_paused, _may_be_handed_over, None),
        (
            "PostgreSQL",
            "crashes, started again at once",
            restarted(postgres, 0, crash=True),
            _may_be_handed_over,
            ("running", "sync"),
        ),
        ("PostgreSQL", "away for 15 s", restarted(postgres, 15), _may_be_handed_over, None),
        ("Redis", "crashes, started again at once", restarted(redis, 0, crash=True), _once, None),
        ("Redis", "away for 15 s", restarted(redis, 15), without_broker, ("queued", "sync")),
        ("Redis", "paused for 15 s", redis_paused, without_broker, None),
    ]
    return [Fault(name, hits, fire, must, slice=sliced) for hits, name, fire, must, sliced in faults]


def _deliveries() -> list[Fault]:
    def again(bench: Bench, _runs: Sequence[Run]) -> None:
        assert bench.airflow.broker.deliver_again() > 0
        time.sleep(10)

    must = replace(ONCE, tries=1)
    return [
        Fault(
            "delivers the message of a running task again",
            "broker",
            again,
            lambda moment, mode: must if _has_process(moment, mode) else None,
            slice=("running", "sync"),
        )
    ]


# The cluster


def _clusters() -> list[Fault]:
    def away(seconds: float, *, tasks_start: bool = False) -> Fire:
        def fire(bench: Bench, _runs: Sequence[Run]) -> None:
            bench.proxy.down()
            if tasks_start:
                bench.airflow.broker.consume(LATER, WORKERS)
            time.sleep(seconds)
            bench.proxy.up()

        return fire

    def slow(bench: Bench, _runs: Sequence[Run]) -> None:
        bench.proxy.on(network.delay_response(3))
        time.sleep(20)
        bench.proxy.clear()

    def lost(bench: Bench, _runs: Sequence[Run]) -> None:
        bench.ray.restart()

    def forgotten(moment: str, _mode: str) -> Expected:
        # A head without fault tolerance forgets its jobs: they are lost, and the next try submits another one.
        if moment == "queued":
            return replace(ONCE, tries=1)
        if moment == "uploading":
            return ONCE
        if moment in ("pending", "running"):
            return Expected(starts=1 + (moment == "running"), tries=2, error=("RayJobLostError",), whole=False)
        return Expected(starts=(1, 2), ends=(1, 2), whole=False)

    faults = [
        ("unreachable for 10 s", away(10), _once, tuple(MOMENTS), ("running", "deferrable")),
        ("unreachable for 30 s", away(30), _once, tuple(MOMENTS), None),
        ("unreachable for 30 s when tasks start", away(30, tasks_start=True), _once, ("queued",), ("queued", "sync")),
        ("answers 3 s late for 20 s", slow, _once, tuple(MOMENTS), ("ending", "sync")),
        ("killed and started again", lost, forgotten, tuple(MOMENTS), ("running", "deferrable")),
    ]
    return [Fault(name, "Ray", fire, must, moments=at, slice=sliced) for name, fire, must, at, sliced in faults]


# Not promised: the job goes on, and no task follows it


def _not_promised() -> list[Fault]:
    def without_triggerers(bench: Bench, runs: Sequence[Run]) -> None:
        for name in TRIGGERERS:
            bench.airflow.kill_process(name)
        _act(lambda run: run.airflow.set_task_state(run.dag_id, run.run_id, TASK, "failed"), then_stops=False)(
            bench, runs
        )
        time.sleep(2)
        bench.airflow.heal()

    def worker_lost(bench: Bench, runs: Sequence[Run]) -> None:
        bench.airflow.kill_process(WORKERS[0])
        wait(lambda: all(run.is_over() for run in runs), 120, lambda: "the task does not end")

    must = Expected(state="failed", ends=1, tries=1, whole=False)

    def only(mode: str) -> Callable[[str, str], Expected | None]:
        return lambda _moment, played: must if played == mode else None

    return [
        Fault(
            "marks the task failed while no triggerer runs (not promised: its job goes on)",
            "user",
            without_triggerers,
            only("deferrable"),
            moments=("running",),
        ),
        Fault(
            "kill -9 in the last try (not promised: its job goes on)",
            "worker",
            worker_lost,
            only("sync"),
            prepare=_only_first,
            moments=("running",),
            kind="once",
        ),
    ]


# The DAG file


def _edits() -> list[Fault]:
    def edited(new: int) -> Fire:
        def fire(bench: Bench, runs: Sequence[Run]) -> None:
            bench.set_retries(new)
            killed = [run for run in runs if run.processes()]
            _task_process(KILL, supervisor=False)(bench, killed)
            wait(lambda: all(_is_at_second_try(run) for run in killed), 120, lambda: "no second try")

        return fire

    def _is_at_second_try(run: Run) -> bool:
        row = run.airflow.task(run.dag_id, run.run_id, TASK)
        return row.try_number > 1 and row.state in ("running", "deferred", "success", "failed")

    return [
        Fault(
            f"edited to {new} retries, then kill -9 of the task",
            "DAG file",
            edited(new),
            lambda moment, mode: (
                ONCE if _has_process(moment, mode) and moment in ("uploading", "pending", "running") else None
            ),
            slice=("running", "sync") if new == 5 else None,
        )
        for new in (5, 1)
    ]


def _nothing(_bench: Bench, _runs: Sequence[Run]) -> None:
    """Do nothing: a session without a fault must not change anything."""


FAULTS = [
    Fault(
        "nothing happens",
        "nobody",
        _nothing,
        lambda _moment, _mode: replace(ONCE, tries=1),
        slice=("ended", "deferrable"),
    ),
    *_of_tasks(),
    *_by_users(),
    *_timeouts(),
    *_not_promised(),
    *_edits(),
    *_deliveries(),
    *_workers(),
    *_clocks(),
    *_triggerers(),
    *_schedulers(),
    *_api_servers(),
    *_stores(),
    *_clusters(),
]

"""Why a job FAILED: what is read, what counts as its cause, and what people see."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_rayjobs.client.exchange import Request
from airflow_provider_rayjobs.diagnosis.failure import Findings, failure_lines, in_words
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError
from airflow_provider_rayjobs.jobs import FailedTasks, JobDetails, JobFailure
from tests.support.flows import answer_to
from tests.support.state_answers import counted, dead_actor, failed_task, listed

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_rayjobs.client.exchange import Flow

#: The end of the job, in milliseconds: nodes that died before its start have nothing to do with it.
START = 1_000_000

RAISED = "TASK_EXECUTION_EXCEPTION"


def job(**fields: Any) -> JobDetails:
    known = {"type": "SUBMISSION", "status": "FAILED", "job_id": "02000000", "driver_exit_code": 1}
    return JobDetails.from_json({**known, "start_time": START, "error_type": "JOB_ENTRYPOINT_COMMAND_ERROR", **fields})


def found(
    details: JobDetails | None = None,
    *,
    tasks: bytes = listed(),
    others: bytes = listed(),
    actors: bytes = listed(),
    nodes: bytes = listed(),
    driver_node: bytes = listed(),
    attempts: dict[str, bytes] | None = None,
    summary: bytes = counted({}),
    counts: dict[str, int] | None = None,
    public: Callable[[str], str] = str,
) -> JobFailure:
    """
    Return why a job failed, if the State API gives these answers.

    :param others: the failed tasks with other causes than those that were counted.
    :param attempts: all attempts of a task, by its id.
    :param counts: the number of failed tasks by cause.
    """

    def answer(path: str) -> bytes:
        if "/summarize?" in path:
            return summary
        if "filter_keys=task_id" in path:
            return next((body for task, body in (attempts or {}).items() if f"={task}&" in path), listed())
        if "filter_predicates=%21%3D" in path:
            return others
        if "filter_keys=error_type" in path:
            return listed({}, number=next(n for cause, n in (counts or {}).items() if f"={cause}&" in path))
        if "filter_keys=node_id" in path:
            return driver_node
        return {"tasks": tasks, "actors": actors, "nodes": nodes}[path.split("?", maxsplit=1)[0].rpartition("/")[2]]

    flow = why_failed(details or job(), public)
    step = next(flow)
    while True:
        assert isinstance(step, Request)
        try:
            step = flow.send(answer_to(step, answer(step.path)))
        except StopIteration as end:
            failure: JobFailure = end.value
            return failure


def why_failed(details: JobDetails, public: Callable[[str], str] = str) -> Flow[JobFailure]:
    findings = Findings(details)
    yield from findings.read()
    return findings.failure(public)


def test_failed_tasks_are_grouped_by_cause() -> None:
    text = "User exception:\nray::load() (pid=7)\n  File 'x', line 6\nValueError: bad input 9"
    rows = [failed_task("OUT_OF_MEMORY", "7.2GB of 8GB used\nmore") for _ in range(3)] + [
        failed_task(RAISED, text, "load")
    ]
    failure = found(
        tasks=listed(*rows), summary=counted({"train": {"FAILED": 3, "FINISHED": 4}, "load": {"FAILED": 1}})
    )
    assert failure.failed_tasks == (
        FailedTasks("OUT_OF_MEMORY", 3, "7.2GB of 8GB used", ("train",)),
        FailedTasks(RAISED, 1, "ValueError: bad input 9", ("load",)),
    )
    assert failure_lines(failure) == [
        "4 of 8 Ray tasks failed (a retry counts again):",
        "  3 out of memory in train: 7.2GB of 8GB used",
        "  1 exception in load: ValueError: bad input 9",
    ]


def test_the_cause_is_that_of_the_task_that_failed_last() -> None:
    rows = [failed_task(RAISED, ended=5), failed_task("NODE_DIED", ended=9), failed_task(RAISED, ended=7)]
    assert found(tasks=listed(*rows)).cause == "NODE_DIED"


def test_a_task_that_failed_long_before_the_end_is_not_the_cause() -> None:
    rows = listed(failed_task("WORKER_DIED", ended=START + 1000))
    assert found(job(end_time=START + 12_000), tasks=rows).cause == "JOB_ENTRYPOINT_COMMAND_ERROR"
    assert found(job(end_time=START + 10_000), tasks=rows).cause == "WORKER_DIED"


def test_a_task_that_was_retried_is_not_the_cause() -> None:
    rows = listed(
        failed_task("WORKER_DIED", task_id="t1", attempt_number=0, ended=9), failed_task(RAISED, task_id="t2", ended=5)
    )
    attempts = {"t1": listed({"attempt_number": 0}, {"attempt_number": 1})}
    assert found(tasks=rows, attempts=attempts).cause == RAISED
    assert found(tasks=rows).cause == "WORKER_DIED"
    attempts["t2"] = attempts["t1"]
    assert found(tasks=rows, attempts=attempts).cause == "JOB_ENTRYPOINT_COMMAND_ERROR"


@pytest.mark.parametrize(("number", "cause"), [(4900, "OUT_OF_MEMORY"), (3000, "JOB_ENTRYPOINT_COMMAND_ERROR")])
def test_the_cause_of_many_tasks_is_that_of_most(number: int, cause: str) -> None:
    rows = [failed_task("OUT_OF_MEMORY", ended=5), failed_task(RAISED, ended=9)]
    counts = {"OUT_OF_MEMORY": number, RAISED: 5000 - number}
    assert found(tasks=listed(*rows, number=5000), counts=counts).cause == cause


@pytest.mark.parametrize(
    ("death", "cause"),
    [
        ({"actor_died_error_context": {"reason": "NODE_DIED", "error_message": "x"}}, "NODE_DIED"),
        ({"actor_died_error_context": {"reason": "WORKER_DIED", "error_message": "x"}}, "WORKER_DIED"),
        ({"actor_died_error_context": {"reason": "", "error_message": "x"}}, "ACTOR_DIED"),
        ({"oom_context": {"error_message": "x"}}, "OUT_OF_MEMORY"),
        ({"creation_task_failure_context": {"formatted_exception_string": "T\nE: x"}}, RAISED),
    ],
)
def test_the_cause_of_a_dead_actor_is_that_of_its_death(death: dict[str, Any], cause: str) -> None:
    failure = found(
        tasks=listed(failed_task("ACTOR_DIED", actor_id="a1")), actors=listed(dead_actor("a1", "Trainer", **death))
    )
    assert failure.cause == cause
    assert failure.dead_actors[0].startswith("1 Trainer: ")


@pytest.mark.parametrize(
    "context",
    [
        {"reason": "OWNER_DIED", "error_message": "The actor is dead because its owner has died."},
        {"error_message": "The actor is dead because its owner has died. Owner Id: 02"},
        {"error_message": "The actor is dead because all references to the actor were removed."},
        {"reason": "RAY_KILL", "error_message": "The actor is dead because it was killed by `ray.kill`."},
    ],
)
def test_an_actor_that_ended_with_the_job_did_not_fail(context: dict[str, str]) -> None:
    assert found(actors=listed(dead_actor("a", "Trainer", actor_died_error_context=context))).dead_actors == ()


def test_only_nodes_that_died_while_the_job_ran_are_named() -> None:
    rows = [
        {"node_ip": "10.0.0.3", "state_message": "missed heartbeats", "end_time_ms": START + 5, "node_id": "b"},
        {"node_ip": "10.0.0.4", "state_message": "long ago", "end_time_ms": START - 5, "node_id": "c"},
    ]
    failure = found(nodes=listed(*rows))
    assert failure.dead_nodes == ("10.0.0.3 (missed heartbeats)",)
    assert failure.cause == "JOB_ENTRYPOINT_COMMAND_ERROR"
    on_it = job(driver_node_id="b", error_type="JOB_SUPERVISOR_ACTOR_DIED")
    assert found(on_it, driver_node=listed({"state": "DEAD"})).cause == "NODE_DIED"
    assert found(on_it, driver_node=listed({"state": "ALIVE"})).cause == "JOB_SUPERVISOR_ACTOR_DIED"


@pytest.mark.parametrize(
    "ended",
    [
        {"state_message": "Expected termination: received SIGTERM", "end_time_ms": START + 5},
        {"state_message": "Terminated due to idle", "end_time_ms": START + 5},
        {"state_message": "lost", "end_time_ms": START + 120_000},
    ],
)
def test_a_node_that_was_stopped_or_that_died_later_is_not_named(ended: dict[str, Any]) -> None:
    assert found(job(end_time=START + 10), nodes=listed({"node_ip": "n", **ended})).dead_nodes == ()


def test_a_node_of_which_ray_says_nothing_is_named() -> None:
    assert found(nodes=listed({"node_ip": "n", "end_time_ms": START + 5})).dead_nodes == ("n",)


def test_a_job_that_never_ran_has_rays_own_error() -> None:
    failure = found(job(job_id=None, error_type="RUNTIME_ENV_SETUP_FAILURE", driver_exit_code=None))
    assert failure == JobFailure("RUNTIME_ENV_SETUP_FAILURE")


def test_tasks_that_ended_with_the_job_did_not_fail() -> None:
    row = failed_task(
        "WORKER_DIED", "Job finishes (02000000) as driver exits. Marking all non-terminal tasks as failed."
    )
    assert found(tasks=listed(row)).failed_tasks == ()


def test_more_tasks_than_are_read_are_counted_by_cause() -> None:
    rows = [failed_task("OUT_OF_MEMORY"), failed_task(RAISED)]
    failure = found(tasks=listed(*rows, number=5000), counts={"OUT_OF_MEMORY": 4988, RAISED: 12})
    assert [(tasks.cause, tasks.number) for tasks in failure.failed_tasks] == [("OUT_OF_MEMORY", 4988), (RAISED, 12)]
    assert failure_lines(failure)[0] == "5,000 Ray tasks failed (a retry counts again):"


def test_a_cause_that_the_first_tasks_do_not_have_is_found() -> None:
    rows, others = [failed_task(RAISED)], [failed_task("NODE_DIED"), failed_task("NODE_DIED")]
    failure = found(tasks=listed(*rows, number=5000), counts={RAISED: 4998}, others=listed(*others))
    assert [(tasks.cause, tasks.number) for tasks in failure.failed_tasks] == [(RAISED, 4998), ("NODE_DIED", 2)]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("User exception:\ncret\nray::load()\nValueError: no", "ValueError: no"),
        ("User exception:\n" + "s" * 500, "the exception's text is too long"),
        ("rest of a secret\n  File x\nValueError: no", "ValueError: no"),
        ("\x1b[36mray::load()\x1b[39m\nValueError: no", "ValueError: no"),
        ("CreationTaskError: CreationTaskError: no weights", "CreationTaskError: CreationTaskError: no weights"),
        ("x" * 5000 + "\nValueError: no", "ValueError: no"),
    ],
)
def test_the_first_line_of_an_exception_that_ray_has_cut_is_left_out(text: str, line: str) -> None:
    """Ray keeps the last 500 characters; they may begin with the rest of a secret, which no mask recognizes."""
    assert found(tasks=listed(failed_task(RAISED, text))).failed_tasks[0].message == line


def test_a_task_without_a_cause_fails_for_an_unknown_one() -> None:
    failure = found(tasks=listed({"error_type": None}))
    assert failure.cause == "JOB_ENTRYPOINT_COMMAND_ERROR"
    assert failure_lines(failure)[1].startswith("  1 unknown cause in None")


def test_texts_that_differ_only_in_numbers_are_one() -> None:
    rows = [failed_task(RAISED, f"KeyError: {number}") for number in range(3)] + [
        failed_task(RAISED, "IOError: disk")
    ] * 2
    assert found(tasks=listed(*rows)).failed_tasks[0].message == "KeyError: 0"


def test_secrets_are_masked_before_texts_are_cut() -> None:
    long = "x" * 298 + "hunter2"
    rows = [failed_task("WORKER_DIED", long, "hunter2"), failed_task(RAISED, f"E: {long}")]
    nodes = listed({"node_ip": "n", "state_message": long, "end_time_ms": START})
    death = {"actor_died_error_context": {"error_message": long}}
    failure = found(
        tasks=listed(*rows),
        nodes=nodes,
        actors=listed(dead_actor("a", "hunter2", **death)),
        public=lambda text: text.replace("hunter2", "***"),
    )
    assert "hu" not in json.dumps(failure.to_json())
    assert max(len(line) for line in failure_lines(failure)) < 400


def test_what_is_not_told_is_left_out() -> None:
    assert found(tasks=b"<html>", actors=b"{}", nodes=b"[]", summary=b"") == JobFailure(
        "JOB_ENTRYPOINT_COMMAND_ERROR", 1
    )


def test_tasks_that_were_counted_are_not_counted_again() -> None:
    findings = Findings(job(), 9)
    flow, paths = findings.read(), []
    step: Any = next(flow)
    while step is not None:
        paths.append(step.path)
        try:
            step = flow.send(answer_to(step, listed(failed_task("OUT_OF_MEMORY"))))
        except StopIteration:
            step = None
    assert paths
    assert not any("summarize" in path for path in paths)
    assert findings.failure().tasks == 9


def test_a_cluster_that_does_not_answer_is_asked_once() -> None:
    flow = why_failed(job())
    next(flow)
    with pytest.raises(StopIteration) as end:
        flow.throw(RayClusterUnreachableError("gone"))
    assert end.value.value == JobFailure("JOB_ENTRYPOINT_COMMAND_ERROR", 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            [
                "error_type",
                "error_message",
                "func_or_class_name",
                "end_time_ms",
                "actor_id",
                "death_cause",
                "class_name",
            ],
            JSON,
        ),
    ),
    max_size=3,
)


@given(ROWS, ROWS, ROWS)
def test_whatever_a_cluster_says_is_a_failure_that_can_be_stored(
    tasks: list[dict[str, Any]], actors: list[dict[str, Any]], nodes: list[dict[str, Any]]
) -> None:
    failure = found(tasks=listed(*tasks), actors=listed(*actors), nodes=listed(*nodes))
    stored = failure.to_json()
    assert json.loads(json.dumps(stored)) == stored, "only what JSON has: Airflow stores tuples as classes"
    assert JobFailure.from_json(stored) == failure
    assert all("\n" not in line for line in failure_lines(failure))


def test_a_cause_in_words() -> None:
    assert [in_words(cause) for cause in ("OUT_OF_MEMORY", RAISED)] == ["out of memory", "exception in a Ray task"]

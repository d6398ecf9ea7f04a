"""
Finds out why a job FAILED: its failed tasks by cause, nodes that died, and actors that died.

Ray's words for the causes are those of ``ErrorType`` in its ``common.proto``, the same from Ray 2.8 to 2.60.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.client.answers import cause_line
from airflow_provider_rayjobs.client.state_api import ACTORS, NODES, TASKS, Listed, count_tasks, list_state
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError, RayJobsError
from airflow_provider_rayjobs.jobs import FailedTasks, JobFailure
from airflow_provider_rayjobs.text.safe_text import safe_text, without_logins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from airflow_provider_rayjobs.client.exchange import Flow
    from airflow_provider_rayjobs.jobs import JobDetails

#: Failed tasks, and dead actors and nodes, that are read; and the causes whose tasks are counted if there are more.
MOST_TASKS = 100
MOST_DEAD = 50
MOST_CAUSES = 5

#: Functions, actors and nodes that are named.
MOST_NAMED = 3

#: Maximum length of a text of Ray, and of a name or a cause, in characters.
LONGEST_TEXT = 300
#: Characters of a text that are searched for the line that tells.
MOST_READ = 20_000
LONGEST_NAME = 60

#: Ray's errors for a job whose entrypoint ran: its tasks may tell more.
_ENTRYPOINT_FAILED = ("", "JOB_ENTRYPOINT_COMMAND_ERROR")

#: Ray's message for the tasks that it marks as failed because their job has ended, 15 s after its end.
_ENDED_WITH_THE_JOB = "Job finishes ("

_RAISED = "TASK_EXECUTION_EXCEPTION"

#: What people call a cause.
_WORDS = {_RAISED: "exception in a Ray task"}

#: Deaths of actors that are no errors: the owner has ended, or nobody uses the actor any more. Ray 2.8 has only texts.
_NORMAL_DEATHS = ("OWNER_DIED", "OUT_OF_SCOPE", "REF_DELETED", "RAY_KILL")
_NORMAL_DEATH = re.compile(r"owner has died|references to the actor|ray\.kill")

_NUMBER = re.compile(r"0x[0-9a-f]+|[0-9a-f]{16,}|\d+")


def why_failed(job: JobDetails, public: Callable[[str], str] = str) -> Flow[JobFailure]:
    """
    Find out why a job FAILED.

    Reads Ray's State API (``GET /api/v0/tasks``, ``/actors``, ``/nodes`` and ``/tasks/summarize``). What can't be read
    is left out.

    :param job: the job.
    :param public: removes the job's secrets from text.
    """

    def shown(text: object, longest: int = LONGEST_TEXT) -> str:
        # Cut last: the beginning of a secret would not be recognized.
        return " ".join(safe_text(without_logins(public(str(text)))).split())[:longest]

    nothing = Listed((), 0)
    tasks = actors = nodes = nothing
    numbers: dict[str, int] = {}
    known = 0
    try:
        if job.job_id:
            mine = {"job_id": job.job_id}
            tasks = yield from _listed(TASKS, {**mine, "state": "FAILED"}, MOST_TASKS)
            numbers = yield from _count_causes(tasks, {**mine, "state": "FAILED"})
            actors = yield from _listed(ACTORS, {**mine, "state": "DEAD"}, MOST_DEAD)
        nodes = yield from _listed(NODES, {"state": "DEAD"}, MOST_DEAD)
        if tasks.number and job.job_id:
            known = yield from _known_tasks(job.job_id)
    except RayClusterUnreachableError:
        pass
    failed = [row for row in tasks.rows if not str(row.get("error_message")).startswith(_ENDED_WITH_THE_JOB)]
    deaths = {str(row.get("actor_id")): death for row in actors.rows if (death := _death(row))}
    dead_nodes = [row for row in nodes.rows if _time(row, "end_time_ms") >= (job.start_time or 0)]
    return JobFailure(
        cause=shown(_cause(job, failed, deaths, dead_nodes), LONGEST_NAME),
        exit_code=job.driver_exit_code,
        failed_tasks=tuple(_failed_tasks(failed, numbers, shown)),
        tasks=known,
        dead_nodes=tuple(
            shown(f"{row.get('node_ip')} ({row.get('state_message')})") for row in dead_nodes[:MOST_NAMED]
        ),
        dead_actors=tuple(_dead_actors(actors.rows, deaths, shown)),
    )


def _listed(route: str, filters: Mapping[str, str], limit: int) -> Flow[Listed]:
    """List what the State API has; empty if it does not answer with a list."""
    try:
        return (yield from list_state(route, filters, limit=limit))
    except RayClusterUnreachableError:
        raise
    except RayJobsError:
        return Listed((), 0)


def _count_causes(tasks: Listed, filters: Mapping[str, str]) -> Flow[dict[str, int]]:
    """Count the failed tasks of each cause; each needs a request if not all tasks were read."""
    causes = Counter(str(row.get("error_type")) for row in tasks.rows)
    if tasks.number <= len(tasks.rows):
        return {}
    numbers = {}
    for cause, _ in causes.most_common(MOST_CAUSES):
        listed = yield from _listed(TASKS, {**filters, "error_type": cause}, 1)
        numbers[cause] = listed.number
    return numbers


def _known_tasks(ray_job_id: str) -> Flow[int]:
    try:
        functions = yield from count_tasks(ray_job_id)
    except RayJobsError:
        return 0
    return sum(sum(states.values()) for states in functions.values())


def _time(row: Mapping[str, Any], name: str) -> float:
    """Return a time of Ray, in milliseconds; 0 if it has none."""
    value = row.get(name)
    return value if isinstance(value, int | float) else 0.0


def _death(actor: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the cause of an actor's death and Ray's text about it; None if it was no error."""
    cause = actor.get("death_cause")
    if not isinstance(cause, dict) or not cause:
        return None
    (kind, context), *_ = cause.items()
    context = context if isinstance(context, dict) else {}
    if kind == "creation_task_failure_context":
        return _RAISED, cause_line(str(context.get("formatted_exception_string")))
    reason = str(context.get("reason") or "")
    text = str(context.get("error_message") or "")
    if reason in _NORMAL_DEATHS or _NORMAL_DEATH.search(text):
        return None
    if kind == "oom_context":
        return "OUT_OF_MEMORY", text
    return reason if reason in ("NODE_DIED", "WORKER_DIED") else "ACTOR_DIED", text


def _cause(
    job: JobDetails,
    failed: list[Mapping[str, Any]],
    deaths: Mapping[str, tuple[str, str]],
    dead_nodes: Iterable[Mapping[str, Any]],
) -> str:
    """Return the cause of the job's failure: its own, or that of the task that failed last."""
    if job.driver_node_id and any(row.get("node_id") == job.driver_node_id for row in dead_nodes):
        return "NODE_DIED"
    if (job.error_type or "") not in _ENTRYPOINT_FAILED or not failed:
        return job.error_type or ""
    last = max(failed, key=lambda row: _time(row, "end_time_ms"))
    cause = str(last.get("error_type"))
    if cause == "ACTOR_DIED":
        cause, _ = deaths.get(str(last.get("actor_id")), (cause, ""))
    return cause


def _failed_tasks(
    rows: Iterable[Mapping[str, Any]], numbers: Mapping[str, int], shown: Callable[..., str]
) -> Iterator[FailedTasks]:
    """Group failed tasks by cause."""
    by_cause: defaultdict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_cause[str(row.get("error_type"))].append(row)

    def number(cause: str) -> int:
        return max(numbers.get(cause, 0), len(by_cause[cause]))

    for cause in sorted(by_cause, key=number, reverse=True)[:MOST_CAUSES]:
        functions = Counter(shown(row.get("func_or_class_name"), LONGEST_NAME) for row in by_cause[cause])
        message = _most_frequent(shown(_said(cause, str(row.get("error_message") or ""))) for row in by_cause[cause])
        names = tuple(name for name, _ in functions.most_common(MOST_NAMED))
        yield FailedTasks(shown(cause, LONGEST_NAME), number(cause), message, names)


def _said(cause: str, text: str) -> str:
    """Return the line that tells: of a traceback its last one, of Ray's own explanations the first one."""
    if cause == _RAISED or text.startswith("Traceback"):
        return cause_line(text[-MOST_READ:])
    return text[:MOST_READ].strip().partition("\n")[0]


def _most_frequent(texts: Iterable[str]) -> str:
    """Return the most frequent text; texts that differ only in numbers are the same."""
    kinds: dict[str, tuple[int, str]] = {}
    for text in texts:
        kind = _NUMBER.sub("#", text)
        number, first = kinds.get(kind, (0, text))
        kinds[kind] = (number + 1, first)
    return max(kinds.values(), key=lambda found: found[0])[1] if kinds else ""


def _dead_actors(
    rows: Iterable[Mapping[str, Any]], deaths: Mapping[str, tuple[str, str]], shown: Callable[..., str]
) -> Iterator[str]:
    """Describe the actors that died, by class."""
    by_class: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        if death := deaths.get(str(row.get("actor_id"))):
            by_class[shown(row.get("class_name"), LONGEST_NAME)].append(shown(death[1] or death[0]))
    for name in sorted(by_class, key=lambda name: -len(by_class[name]))[:MOST_NAMED]:
        yield f"{len(by_class[name])} {name}: {_most_frequent(by_class[name])}"


def failure_lines(failure: JobFailure) -> list[str]:
    """Describe a failure, without its cause and exit code, in lines of which the first matters most."""
    lines = []
    if failure.failed_tasks:
        number = sum(of.number for of in failure.failed_tasks)
        of_all = f" of {failure.tasks:,}" if failure.tasks >= number else ""
        tasks = "task" if max(number, failure.tasks) == 1 else "tasks"
        lines.append(f"{number:,}{of_all} Ray {tasks} failed (each attempt counts):")
        for of in failure.failed_tasks:
            functions = f" in {', '.join(of.functions)}" if of.functions else ""
            word = in_words(of.cause).removesuffix(" in a Ray task")
            lines.append(f"  {of.number:,} {word}{functions}: {of.message}".removesuffix(": "))
    lines += [f"Node that died meanwhile: {text}" for text in failure.dead_nodes]
    lines += [f"Actors that died: {text}" for text in failure.dead_actors]
    return lines


def in_words(cause: str) -> str:
    """Return what people call a cause, such as ``out of memory``."""
    return _WORDS.get(cause, cause.replace("_", " ").lower())

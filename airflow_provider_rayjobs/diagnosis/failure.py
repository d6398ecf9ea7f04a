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
from airflow_provider_rayjobs.text.safe_text import one_line, safe_text, without_logins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from airflow_provider_rayjobs.client.exchange import Flow
    from airflow_provider_rayjobs.client.state_api import Filter
    from airflow_provider_rayjobs.jobs import JobDetails

    Row = Mapping[str, Any]

#: Failed tasks, and dead actors and nodes, that are read; and the causes that are counted.
MOST_TASKS = 100
MOST_DEAD = 50
MOST_CAUSES = 5

#: Functions, actors and nodes that are named; and failed tasks for which a later attempt is looked for.
MOST_NAMED = 3

#: Maximum length of a text of Ray, and of a name or a cause, in characters.
LONGEST_TEXT = 300
LONGEST_NAME = 60
#: Characters of a text that are searched for the line that tells.
MOST_READ = 4_000

#: Most seconds before the job's end at which a task failed that may be the cause: a driver that gets the error of a
#: task ends soon after.
SHORTLY = 10.0

#: Share of the failed tasks that one cause must have to be named, if not all of them were read.
MOST_OF_THEM = 0.9

#: Ray's errors for a job whose entrypoint ran: its tasks may tell more.
_ENTRYPOINT_FAILED = ("", "JOB_ENTRYPOINT_COMMAND_ERROR")

#: Ray's message for the tasks that it marks as failed because their job has ended, 15 s after its end.
_ENDED_WITH_THE_JOB = "Job finishes ("

_RAISED = "TASK_EXECUTION_EXCEPTION"

#: What people call a cause.
_WORDS = {_RAISED: "exception in a Ray task", "": "unknown cause"}

#: Deaths of actors that are no errors: the owner has ended, or nobody uses the actor any more. Ray 2.8 has only texts.
_NORMAL_DEATHS = ("OWNER_DIED", "OUT_OF_SCOPE", "REF_DELETED", "RAY_KILL")
_NORMAL_DEATH = re.compile(r"owner has died|references to the actor|ray\.kill")

#: Ends of nodes that are no errors: somebody or the autoscaler stopped them.
_NORMAL_END = re.compile(r"^expected termination|idle", re.IGNORECASE)

#: Begins an exception of a task, if Ray has not cut off its beginning: it keeps the last 500 characters.
_WHOLE_EXCEPTION = re.compile(r"(\x1b\[\d+m)?ray::|\w*Error: ")

_NUMBER = re.compile(r"0x[0-9a-f]+|[0-9a-f]{16,}|\d+")


class Findings:
    """
    What Ray's State API says of a job that FAILED; empty until :meth:`read` has read it.

    :param job: the job.
    :param known: number of its tasks that Ray knows, if they were counted already; otherwise they are counted.
    """

    def __init__(self, job: JobDetails, known: int | None = None) -> None:
        self._job = job
        self._tasks = self._actors = self._nodes = Listed((), 0)
        self._numbers: dict[str, int] = {}  # of failed tasks, by cause
        self._known = known
        self._retried: set[str] = set()  # ids of tasks of which a later attempt did not fail
        self._driver_node_died = False

    def read(self) -> Flow[None]:
        """
        Read what the State API has (``GET /api/v0/tasks``, ``/actors``, ``/nodes`` and ``/tasks/summarize``).

        What can't be read is left out. What was read until a timeout remains.
        """
        try:
            if node_id := self._job.driver_node_id:
                found = yield from _listed(NODES, [("node_id", "=", node_id)], 1)
                self._driver_node_died = any(row.get("state") == "DEAD" for row in found.rows)
            if self._job.job_id:
                yield from self._read_tasks(self._job.job_id)
            self._nodes = yield from _listed(NODES, [("state", "=", "DEAD")], MOST_DEAD)
            if self._tasks.number and self._job.job_id and self._known is None:
                self._known = yield from _known_tasks(self._job.job_id)
        except RayClusterUnreachableError:
            pass

    def _read_tasks(self, ray_job_id: str) -> Flow[None]:
        of_job: Filter = ("job_id", "=", ray_job_id)
        failed: list[Filter] = [of_job, ("state", "=", "FAILED")]
        self._tasks = yield from _listed(TASKS, failed, MOST_TASKS)
        self._actors = yield from _listed(ACTORS, [of_job, ("state", "=", "DEAD")], MOST_DEAD)
        for row in self._last_tasks()[:MOST_NAMED]:
            attempts = yield from _listed(TASKS, [of_job, ("task_id", "=", str(row.get("task_id")))], MOST_DEAD)
            if any(_number(other, "attempt_number") > _number(row, "attempt_number") for other in attempts.rows):
                self._retried.add(str(row.get("task_id")))
            else:
                break
        yield from self._count_causes(failed)

    def _count_causes(self, failed: Sequence[Filter]) -> Flow[None]:
        """Count the failed tasks of each cause; this needs requests if not all tasks were read."""
        if self._tasks.number <= len(self._tasks.rows):
            return
        causes = [cause for cause, _ in Counter(map(_cause_of, self._tasks.rows)).most_common(MOST_CAUSES)]
        for cause in causes:
            listed = yield from _listed(TASKS, [*failed, ("error_type", "=", cause)], 1)
            self._numbers[cause] = listed.number
        if sum(self._numbers.values()) < self._tasks.number and len(causes) < MOST_CAUSES:
            others = yield from _listed(
                TASKS, [*failed, *(("error_type", "!=", cause) for cause in causes)], MOST_TASKS
            )
            self._tasks = Listed((*self._tasks.rows, *others.rows), self._tasks.number)

    def _last_tasks(self) -> list[Row]:
        """Return the failed tasks that were read, the last one first; without those that ended with the job."""
        rows = [row for row in self._tasks.rows if not str(row.get("error_message")).startswith(_ENDED_WITH_THE_JOB)]
        return sorted(rows, key=lambda row: -_number(row, "end_time_ms"))

    def failure(self, public: Callable[[str], str] = str) -> JobFailure:
        """
        Return why the job FAILED, as far as it was read.

        :param public: removes the job's secrets from text.
        """

        def masked(text: str) -> str:
            return safe_text(without_logins(public(text)))

        def shown(text: object, longest: int = LONGEST_TEXT) -> str:
            return one_line(public(str(text)[:MOST_READ]), longest)

        def line_of(cause: str, text: str) -> str:
            return " ".join(_said(cause, text, masked).split())[:LONGEST_TEXT]

        failed = self._last_tasks()
        deaths = {str(row.get("actor_id")): death for row in self._actors.rows if (death := _death(row))}
        groups = tuple(self._groups(failed, shown, line_of))
        return JobFailure(
            cause=shown(self._cause(failed, groups, deaths), LONGEST_NAME),
            exit_code=self._job.driver_exit_code,
            failed_tasks=groups,
            tasks=self._known or 0,
            dead_nodes=tuple(map(shown, self._dead_nodes())),
            dead_actors=tuple(_dead_actors(self._actors.rows, deaths, shown, line_of)),
        )

    def _cause(
        self, failed: Sequence[Row], groups: Sequence[FailedTasks], deaths: Mapping[str, tuple[str, str]]
    ) -> str:
        """Return the cause of the job's failure: its own, or that of a task that failed shortly before its end."""
        own = self._job.error_type or ""
        if self._driver_node_died:
            return "NODE_DIED"
        candidates = [row for row in failed if str(row.get("task_id")) not in self._retried]
        if self._tasks.number > len(self._tasks.rows):  # the last one may not have been read
            most = {group.cause for group in groups if group.number >= MOST_OF_THEM * self._tasks.number}
            candidates = [row for row in candidates if _cause_of(row) in most]
        if own not in _ENTRYPOINT_FAILED or not candidates:
            return own
        last = candidates[0]
        failed_at, end = _number(last, "end_time_ms"), self._job.end_time
        if failed_at and end and failed_at < end - 1000 * SHORTLY:
            return own
        cause = _cause_of(last)
        if cause == "ACTOR_DIED":
            cause, _ = deaths.get(str(last.get("actor_id")), (cause, ""))
        return cause or own

    def _groups(
        self, rows: Iterable[Row], shown: Callable[..., str], line_of: Callable[[str, str], str]
    ) -> Iterator[FailedTasks]:
        """Group failed tasks by cause."""
        by_cause: defaultdict[str, list[Row]] = defaultdict(list)
        for row in rows:
            by_cause[_cause_of(row)].append(row)

        def number(cause: str) -> int:
            return max(self._numbers.get(cause, 0), len(by_cause[cause]))

        for cause in sorted(by_cause, key=number, reverse=True)[:MOST_CAUSES]:
            functions = Counter(shown(row.get("func_or_class_name"), LONGEST_NAME) for row in by_cause[cause])
            message = _most_frequent(line_of(cause, str(row.get("error_message") or "")) for row in by_cause[cause])
            names = tuple(name for name, _ in functions.most_common(MOST_NAMED))
            yield FailedTasks(shown(cause, LONGEST_NAME), number(cause), message, names)

    def _dead_nodes(self) -> list[str]:
        """Return the nodes that died while the job ran, and what Ray says of each; Ray 2.8 says nothing."""
        begin, end = self._job.start_time or 0, self._job.end_time
        found = []
        for row in self._nodes.rows:
            ended, said = _number(row, "end_time_ms"), str(row.get("state_message") or "")
            # A head notices some time after it that a node has died.
            if ended >= begin and (end is None or ended <= end + 60_000) and not _NORMAL_END.search(said[:MOST_READ]):
                found.append(f"{row.get('node_ip')}{f' ({said})' if said else ''}")
        return found[:MOST_NAMED]


def _listed(route: str, filters: Sequence[Filter], limit: int) -> Flow[Listed]:
    """List what the State API has; empty if it does not answer with a list."""
    try:
        return (yield from list_state(route, filters, limit=limit))
    except RayClusterUnreachableError:
        raise
    except RayJobsError:
        return Listed((), 0)


def _known_tasks(ray_job_id: str) -> Flow[int]:
    try:
        functions = yield from count_tasks(ray_job_id)
    except RayClusterUnreachableError:
        raise
    except RayJobsError:
        return 0
    return sum(sum(states.values()) for states in functions.values())


def _number(row: Row, name: str) -> float:
    """Return a number of a row, such as a time in milliseconds; 0 if it has none."""
    value = row.get(name)
    return value if isinstance(value, int | float) else 0.0


def _cause_of(row: Row) -> str:
    return str(row.get("error_type") or "")[:LONGEST_NAME]


def _death(actor: Row) -> tuple[str, str] | None:
    """Return the cause of an actor's death and Ray's text about it; None if it was no error."""
    cause = actor.get("death_cause")
    if not isinstance(cause, dict) or not cause:
        return None
    (kind, context), *_ = cause.items()
    context = context if isinstance(context, dict) else {}
    if kind == "creation_task_failure_context":
        return _RAISED, str(context.get("formatted_exception_string") or "")
    reason = str(context.get("reason") or "")
    text = str(context.get("error_message") or "")
    if reason in _NORMAL_DEATHS or _NORMAL_DEATH.search(text[:MOST_READ]):
        return None
    if kind == "oom_context":
        return "OUT_OF_MEMORY", text
    return reason if reason in ("NODE_DIED", "WORKER_DIED") else "ACTOR_DIED", text


def _said(cause: str, text: str, masked: Callable[[str], str]) -> str:
    """
    Return the line that tells: of a traceback its last one, of Ray's own explanations the first one.

    A line whose beginning was cut off is left out: it may begin with the rest of a secret.
    """
    text = text.removeprefix("User exception:\n")
    if cause != _RAISED and not text.startswith("Traceback"):
        return masked(text[:MOST_READ].strip().partition("\n")[0])
    begins = text.startswith("Traceback") or _WHOLE_EXCEPTION.match(text)
    end = text[-MOST_READ:]
    if not begins or len(text) > MOST_READ:
        end = end.partition("\n")[2]
    return cause_line(masked(end)) if end.strip() else "the exception's text is too long"


def _most_frequent(texts: Iterable[str]) -> str:
    """Return the most frequent text; texts that differ only in numbers are the same."""
    kinds: dict[str, tuple[int, str]] = {}
    for text in texts:
        kind = _NUMBER.sub("#", text)
        number, first = kinds.get(kind, (0, text))
        kinds[kind] = (number + 1, first)
    return max(kinds.values(), key=lambda found: found[0])[1] if kinds else ""


def _dead_actors(
    rows: Iterable[Row],
    deaths: Mapping[str, tuple[str, str]],
    shown: Callable[..., str],
    line_of: Callable[[str, str], str],
) -> Iterator[str]:
    """Describe the actors that died, by class."""
    by_class: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        if death := deaths.get(str(row.get("actor_id"))):
            by_class[shown(row.get("class_name"), LONGEST_NAME)].append(line_of(*death) or in_words(death[0]))
    for name in sorted(by_class, key=lambda name: -len(by_class[name]))[:MOST_NAMED]:
        yield f"{len(by_class[name])} {name}: {_most_frequent(by_class[name])}"


def failure_lines(failure: JobFailure) -> list[str]:
    """Describe a failure, without its cause and exit code, in lines of which the first matters most."""
    lines = []
    if failure.failed_tasks:
        number = sum(of.number for of in failure.failed_tasks)
        of_all = f" of {failure.tasks:,}" if failure.tasks >= number else ""
        tasks = "task" if max(number, failure.tasks) == 1 else "tasks"
        lines.append(f"{number:,}{of_all} Ray {tasks} failed (a retry counts again):")
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

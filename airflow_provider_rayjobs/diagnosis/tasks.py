"""Tells how far a job is, by the Ray tasks that it has started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_rayjobs.client.state_api import MOST_LISTED, count_tasks
from airflow_provider_rayjobs.exceptions import RayJobsError
from airflow_provider_rayjobs.text.safe_text import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_rayjobs.client.exchange import Flow

#: Functions that are named in a line, and the maximum length of each name, in characters.
MOST_FUNCTIONS = 3
LONGEST_NAME = 40
#: Characters of a name that are looked at.
MOST_READ = 1_000

_RUNNING = ("RUNNING", "RUNNING_IN_RAY_GET", "RUNNING_IN_RAY_WAIT")


@dataclass(frozen=True)
class TaskCounts:
    """How many tasks there are; each attempt of a task counts."""

    total: int
    done: int
    running: int
    failed: int

    @classmethod
    def of_states(cls, states: Mapping[str, int]) -> TaskCounts:
        """Count tasks by Ray's states."""
        running = sum(states.get(state, 0) for state in _RUNNING)
        return cls(sum(states.values()), states.get("FINISHED", 0), running, states.get("FAILED", 0))


@dataclass(frozen=True)
class JobTasks:
    """
    The tasks of a job that Ray knows.

    :param counts: of all of them.
    :param by_function: for each function, the largest first.
    """

    counts: TaskCounts
    by_function: tuple[tuple[str, TaskCounts], ...]


def job_tasks(ray_job_id: str) -> Flow[JobTasks | None]:
    """
    Count a job's tasks (``GET /api/v0/tasks/summarize``); None if there are none, or they can't be counted.

    :param ray_job_id: Ray's id of the job (``job_id``), not its submission id.
    """
    try:
        states = yield from count_tasks(ray_job_id)
    except RayJobsError:
        return None
    functions = [(name, TaskCounts.of_states(of_function)) for name, of_function in states.items()]
    functions.sort(key=lambda function: -function[1].total)
    numbers = [counts for _, counts in functions]
    total = TaskCounts(
        *(sum(getattr(counts, name) for counts in numbers) for name in ("total", "done", "running", "failed"))
    )
    return JobTasks(total, tuple(functions)) if total.total > 0 else None


def progress_line(tasks: JobTasks, public: Callable[[str], str] = str) -> str:
    """
    Describe how far a job is, as one line that can be shown.

    :param public: removes the job's secrets from text.
    """
    counts = tasks.counts
    least = "at least " if counts.total >= MOST_LISTED else ""  # Ray counts no more
    parts = [f"{counts.done:,} of {least}{counts.total:,} done", f"{counts.running:,} running"]
    parts += [f"{counts.failed:,} failed"] if counts.failed else []
    functions = [
        f"{_name(name, public)} {of_function.done:,} of {of_function.total:,}"
        for name, of_function in tasks.by_function[:MOST_FUNCTIONS]
    ]
    return f"Ray tasks: {', '.join(parts)} ({'; '.join(functions)})"


def _name(name: str, public: Callable[[str], str]) -> str:
    return one_line(public(name[:MOST_READ]), LONGEST_NAME)

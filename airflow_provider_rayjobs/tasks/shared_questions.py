"""
Asks Airflow about many tasks at once: a user who ends a DAG run ends all its tasks, and cancels all their triggers.

A question takes some 30 ms, and a triggerer asks one at a time.
"""

from __future__ import annotations

import asyncio
import contextvars
import re
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow_provider_rayjobs.client.threads import in_airflows_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    Run = tuple[str, str]
    Instance = tuple[str, int]

#: Seconds to wait for others that ask about the same DAG run.
GATHER = 0.05

#: Times that a question is asked if it fails, and seconds between two of them. Many jobs depend on one answer.
ATTEMPTS, PAUSE = 3, 1.0

#: Characters of the task ids in one question, which Airflow 3 sends in a URL. Many servers take 8 kB.
LONGEST_QUESTION = 5000

#: What a task id adds to a URL, without itself.
_AROUND = len("&task_ids=")

_LIKE_MAPPED = re.compile(r"(.+)_[0-9]+")


def name_of(task_id: str, map_index: int) -> str:
    """Return what Airflow 3 calls a task instance in the answer about the states of a DAG run."""
    return task_id if map_index < 0 else f"{task_id}_{map_index}"


class SharedQuestions:
    """
    Answers all who ask about a DAG run at about the same time with as few questions as possible.

    :param read: asks Airflow about a DAG run (its DAG's id, its id), some tasks of it, and one map index or, for None,
        all of them. Returns what is known of each task instance by :func:`name_of`. It is called in Airflow's thread.
    """

    def __init__(self, read: Callable[[str, str, list[str], int | None], Mapping[str, Any]]) -> None:
        self._read = read
        self._open: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Run, _Question]] = WeakKeyDictionary()

    async def about(self, run: Run, instance: Instance, absent: Any) -> Any:
        """
        Return what Airflow says, asked now or a little later, of a task instance.

        :param run: ids of the DAG and of its run.
        :param instance: id of the task, and map index, or -1.
        :param absent: returned if the answer does not have it.
        :raises Exception: of Airflow, for all who have asked, if there is no answer.
        """
        loop = asyncio.get_running_loop()
        questions = self._open.setdefault(loop, {})
        question = questions.get(run)
        if question is None:
            question = questions[run] = _Question()
            # Not in the context of the first trigger that asks: Airflow assigns log records by it.
            asking = self._ask(run, questions)
            question.answer = loop.create_task(asking, context=contextvars.Context())
        question.instances.add(instance)
        return (await asyncio.shield(question.answer)).get(instance, absent)

    async def _ask(self, run: Run, questions: dict[Run, _Question]) -> dict[Instance, Any]:
        await asyncio.sleep(GATHER)
        instances = questions.pop(run).instances  # what is asked from now on needs a newer answer
        map_index = next(iter(instances))[1] if len(instances) == 1 else None
        found: dict[Instance, Any] = {}
        for task_ids in _parts({task_id for task_id, _ in instances}):
            answer = await self._answer(run, task_ids, map_index)
            asked = {instance: name_of(*instance) for instance in instances if instance[0] in task_ids}
            found |= {instance: answer[name] for instance, name in asked.items() if name in answer}
        return found

    async def _answer(self, run: Run, task_ids: list[str], map_index: int | None) -> Mapping[str, Any]:
        for _ in range(ATTEMPTS - 1):
            try:
                return await in_airflows_thread(self._read, *run, task_ids, map_index)
            except Exception:  # noqa: BLE001 - of any database or API server; the last attempt raises it
                await asyncio.sleep(PAUSE)
        return await in_airflows_thread(self._read, *run, task_ids, map_index)


class _Question:
    """A question that is not asked yet, and its answer."""

    def __init__(self) -> None:
        self.instances: set[Instance] = set()
        self.answer: asyncio.Task[dict[Instance, Any]]


def _parts(task_ids: Collection[str]) -> Iterator[list[str]]:
    """Yield the tasks of each question. In one answer, task `t_1` can't be told from the mapped task `t` at index 1."""
    left = sorted(task_ids)
    while left:
        part: list[str] = []
        names, prefixes, later, room = set[str](), set[str](), list[str](), LONGEST_QUESTION
        for task_id in left:
            mapped = _LIKE_MAPPED.fullmatch(task_id)
            prefix = mapped[1] if mapped else ""
            room_after = room - len(task_id) - _AROUND
            if (part and room_after < 0) or task_id in prefixes or prefix in names:
                later.append(task_id)
                continue
            part.append(task_id)
            names.add(task_id)
            prefixes.add(prefix)
            room = room_after
        yield part
        left = later

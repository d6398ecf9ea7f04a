"""Many who ask about a DAG run share a question, and each gets the answer about its own task instance."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.tasks import shared_questions
from airflow_provider_rayjobs.tasks.shared_questions import LONGEST_QUESTION, SharedQuestions, name_of

if TYPE_CHECKING:
    from collections.abc import Iterable

RUN = ("d", "r")


class Airflow:
    """Answers as Airflow's API does; a state is the task instance itself."""

    def __init__(self, instances: Iterable[tuple[str, int]], failures: int = 0) -> None:
        self.instances = list(instances)
        self.failures = failures
        self.asked: list[tuple[str, str, list[str], int | None]] = []

    def read(self, dag_id: str, run_id: str, task_ids: list[str], map_index: int | None) -> dict[str, Any]:
        self.asked.append((dag_id, run_id, task_ids, map_index))
        if len(self.asked) <= self.failures:
            raise RuntimeError("no answer")
        return {
            name_of(*instance): (run_id, *instance)
            for instance in self.instances
            if instance[0] in task_ids and map_index in (None, instance[1])
        }


def ask(airflow: Airflow, about: Iterable[tuple[tuple[str, str], tuple[str, int]]]) -> list[Any]:
    """Ask about all at once."""

    async def together() -> list[Any]:
        shared = SharedQuestions(airflow.read)
        answers = (shared.about(run, instance, "absent") for run, instance in about)
        return await asyncio.gather(*answers, return_exceptions=True)

    return asyncio.run(together())


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_questions, "PAUSE", 0.01)


def test_there_is_one_question_for_each_dag_run() -> None:
    instances = [(f"task{letter}", -1) for letter in "abc"]
    airflow = Airflow(instances)
    about = [((dag, run), one) for dag in "de" for run in "rs" for one in instances]
    assert ask(airflow, about) == [(run, *one) for (_, run), one in about]
    assert Counter((dag, run) for dag, run, _, _ in airflow.asked) == Counter([(d, r) for d in "de" for r in "rs"])


def test_a_mapped_task_of_thousands_takes_one_question() -> None:
    instances = [("t", number) for number in range(5000)]
    airflow = Airflow(instances)
    assert ask(airflow, [(RUN, one) for one in instances]) == [("r", *one) for one in instances]
    assert airflow.asked == [(*RUN, ["t"], None)]


def test_one_who_asks_alone_gets_no_more_than_it_asks_for() -> None:
    airflow = Airflow([("t", number) for number in range(5000)])
    assert ask(airflow, [(RUN, ("t", 4711))]) == [("r", "t", 4711)]
    assert airflow.asked == [(*RUN, ["t"], 4711)]


def test_tasks_with_the_same_name_in_an_answer_are_not_mistaken_for_each_other() -> None:
    instances = [("t", 1), ("t", 2), ("t_1", -1), ("t_1", 2), ("t_1_2", -1), ("u_1", -1), ("u_2", -1)]
    airflow = Airflow(instances)
    assert ask(airflow, [(RUN, one) for one in instances]) == [("r", *one) for one in instances]
    assert [task_ids for _, _, task_ids, _ in airflow.asked] == [["t", "t_1_2", "u_1", "u_2"], ["t_1"]]


def test_no_question_is_too_long_for_a_url() -> None:
    instances = [(f"{number:0>250}", -1) for number in range(100)]
    airflow = Airflow(instances)
    assert ask(airflow, [(RUN, one) for one in instances]) == [("r", *one) for one in instances]
    assert all(sum(map(len, task_ids)) <= LONGEST_QUESTION for _, _, task_ids, _ in airflow.asked)
    assert len(airflow.asked) < 10


def test_what_the_answer_does_not_have_is_absent() -> None:
    assert ask(Airflow([("t", 1)]), [(RUN, ("t", 1)), (RUN, ("t", 2))]) == [("r", "t", 1), "absent"]


@pytest.mark.parametrize("failures", [2, 3])
def test_an_answer_that_fails_is_asked_for_again_and_then_nobody_has_one(failures: int) -> None:
    airflow = Airflow([("t", 1), ("t", 2)], failures)
    found = ask(airflow, [(RUN, ("t", 1)), (RUN, ("t", 2))])
    if failures == 2:
        assert found == [("r", "t", 1), ("r", "t", 2)]
    else:
        assert [str(error) for error in found] == ["no answer"] * 2
    assert len(airflow.asked) == 3


def test_who_asks_later_gets_a_newer_answer_and_who_gives_up_takes_it_from_nobody() -> None:
    airflow = Airflow([("t", 1), ("t", 2)])

    async def run() -> None:
        shared = SharedQuestions(airflow.read)
        first = asyncio.create_task(shared.about(RUN, ("t", 1), "absent"))
        second = asyncio.create_task(shared.about(RUN, ("t", 2), "absent"))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == ("r", "t", 2)
        assert first.cancelled()
        airflow.instances.clear()
        assert await shared.about(RUN, ("t", 2), "absent") == "absent"

    asyncio.run(run())
    assert len(airflow.asked) == 2

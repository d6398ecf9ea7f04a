"""Running a flow: its steps are performed in order, and it may handle their errors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.client.flows import run_flow, run_flow_async

if TYPE_CHECKING:
    from collections.abc import Generator


def divide(*numbers: int) -> Generator[int, float, list[float]]:
    """Ask for 12 divided by each number; what can't be divided is -1."""
    found = []
    for number in numbers:
        try:
            found.append((yield number))
        except ArithmeticError:
            found.append(-1.0)
    return found


def perform(number: int) -> float:
    if number < 0:
        raise ValueError("not an error of steps")
    return 12 / number


async def perform_later(number: int) -> float:
    await asyncio.sleep(0)
    return perform(number)


def test_a_flow_gets_the_answers_and_the_errors_of_its_steps() -> None:
    wanted = [4.0, -1.0, 3.0]
    assert run_flow(divide(3, 0, 4), perform, ArithmeticError) == wanted
    assert asyncio.run(run_flow_async(divide(3, 0, 4), perform_later, ArithmeticError)) == wanted


def test_a_flow_without_steps_has_a_result() -> None:
    assert run_flow(divide(), perform, ArithmeticError) == []
    assert asyncio.run(run_flow_async(divide(), perform_later, ArithmeticError)) == []


def test_another_error_ends_the_flow() -> None:
    with pytest.raises(ValueError, match="not an error of steps"):
        run_flow(divide(-1), perform, ArithmeticError)
    with pytest.raises(ValueError, match="not an error of steps"):
        asyncio.run(run_flow_async(divide(-1), perform_later, ArithmeticError))


def test_an_error_that_is_final_is_not_for_the_flow_to_handle() -> None:
    flow = divide(0, 3)
    with pytest.raises(ArithmeticError):
        run_flow(flow, perform, ArithmeticError, lambda: True)
    with pytest.raises(StopIteration):
        next(flow)

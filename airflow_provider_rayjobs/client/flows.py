"""Runs flows: generators that yield steps, such as requests, and are sent the answers. No I/O of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

Step = TypeVar("Step")
Answer = TypeVar("Answer")
T = TypeVar("T")


def run_flow(
    flow: Generator[Step, Answer, T],
    perform: Callable[[Step], Answer],
    errors: type[Exception],
    is_final: Callable[[], bool] = lambda: False,
) -> T:
    """
    Run a flow to its end.

    :param perform: performs a step, and returns its answer.
    :param errors: errors of a step that are raised inside the flow, which may handle them.
    :param is_final: returns whether the error of the last step ends the flow, which would treat it as that of a single
        attempt.
    :return: what the flow returns.
    """
    try:
        step = next(flow)
        while True:
            try:
                answer = perform(step)
            except errors as e:
                if is_final():
                    flow.close()
                    raise
                step = flow.throw(e)
            else:
                step = flow.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result


async def run_flow_async(
    flow: Generator[Step, Answer, T], perform: Callable[[Step], Awaitable[Answer]], errors: type[Exception]
) -> T:
    """Run a flow to its end on an event loop; takes and returns what :func:`run_flow` does."""
    try:
        step = next(flow)
        while True:
            try:
                answer = await perform(step)
            except errors as e:
                step = flow.throw(e)
            else:
                step = flow.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result

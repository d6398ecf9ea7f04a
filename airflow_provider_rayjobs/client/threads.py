"""
Runs blocking functions in threads, so that they don't block the event loop.

The threads are asgiref's, which know the event loop that called them. Before Airflow 3.2, a triggerer dies if one of
its triggers sends a request to the supervisor (for a connection, or to mask a secret) from any other thread. It also
dies if a trigger is cancelled between such a request and its answer. So a started call always runs to its end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

Result = TypeVar("Result")


async def in_airflows_thread(function: Callable[..., Result], *args: Any) -> Result:
    """Call a function of Airflow in the thread that all triggers share."""
    return await _call(function, args, shared=True)


async def in_own_thread(
    function: Callable[..., Result], *args: Any, executor: ThreadPoolExecutor | None = None
) -> Result:
    """
    Call a function that may take long and may call Airflow, such as one of the deployment's.

    :param executor: provides the thread; by default the event loop's executor, which also does DNS look-ups.
    """
    return await _call(function, args, shared=False, executor=executor)


async def _call(
    function: Callable[..., Result],
    args: tuple[Any, ...],
    *,
    shared: bool,
    executor: ThreadPoolExecutor | None = None,
) -> Result:
    from asgiref.sync import sync_to_async

    return await asyncio.shield(sync_to_async(function, thread_sensitive=shared, executor=executor)(*args))

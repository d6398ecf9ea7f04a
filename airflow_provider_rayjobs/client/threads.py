"""
Threads for what an event loop must not wait for.

They are asgiref's, which know the loop that they were called from: before Airflow 3.2, a triggerer dies when one of its
triggers asks the supervisor (for a connection, or to mask a secret) from any other thread. It dies, too, when a trigger
is cancelled between such a question and its answer; so what was begun is heard out.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

Result = TypeVar("Result")


async def in_airflows_thread(function: Callable[..., Result], *args: Any) -> Result:
    """Call a function of Airflow in the one thread that all triggers share."""
    return await _call(function, args, shared=True)


async def in_own_thread(
    function: Callable[..., Result], *args: Any, executor: ThreadPoolExecutor | None = None
) -> Result:
    """
    Call what may take its time, and may ask Airflow meanwhile: the deployment's own functions do.

    :param executor: has the thread; by default the loop's own, which also looks names up.
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

"""Questions to Airflow from an event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from asgiref.sync import async_to_sync

from airflow_provider_rayjobs.client.threads import in_airflows_thread, in_own_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


@pytest.mark.parametrize("call", [in_airflows_thread, in_own_thread])
def test_what_was_asked_is_heard_out_on_the_callers_loop(call: Callable[..., Awaitable[object]]) -> None:
    """As a triggerer's supervisor is asked before Airflow 3.2: by a coroutine that no other may come between."""

    async def main() -> None:
        asked, answer, heard = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def ask() -> None:
            assert asyncio.get_running_loop() is loop
            asked.set()
            await answer.wait()
            heard.set()

        def in_thread() -> None:  # where Airflow makes it, too
            async_to_sync(ask)()

        loop = asyncio.get_running_loop()
        asking = asyncio.ensure_future(call(in_thread))
        await asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        answer.set()
        await asyncio.wait_for(heard.wait(), 30)

    asyncio.run(main())

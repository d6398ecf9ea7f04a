"""An asyncio event loop in its own thread, for servers in synchronous tests."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads until it is stopped; then ends all tasks and transports.

    :param name: name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T], timeout: float = 30.0) -> T:
        """Run a coroutine on the loop and return its result. Call it from any other thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def soon(self, work: Callable[[], object]) -> None:
        """Schedule a call of a function on the loop."""
        self._loop.call_soon_threadsafe(work)

    def stop(self) -> None:
        """Cancel all tasks and end the thread."""
        if self._thread.is_alive():
            self.call(_cancel_the_rest())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            self._loop.close()


async def _cancel_the_rest() -> None:
    # Several iterations of the loop are needed: a task must have started before it can clean up, a connection that was
    # just accepted becomes a task in the next one, and a closed transport (with TLS) closes its socket even later.
    for _ in range(10):
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

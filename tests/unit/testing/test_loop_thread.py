"""A loop in a thread runs coroutines for others, and ends what is left."""

from __future__ import annotations

import asyncio
import threading

import pytest

from airflow_provider_rayjobs.testing.loop_thread import LoopThread


def test_it_runs_coroutines_and_cancels_what_is_left() -> None:
    cancelled = threading.Event()

    async def wait_forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def begin() -> str:
        begin.task = asyncio.ensure_future(wait_forever())
        return threading.current_thread().name

    thread = LoopThread("loop")
    assert thread.call(begin()) == "loop"
    thread.stop()
    assert cancelled.is_set()


def test_an_error_reaches_the_caller() -> None:
    async def fail() -> None:
        raise ValueError("no")

    thread = LoopThread("loop")
    with pytest.raises(ValueError, match="no"):
        thread.call(fail())
    thread.stop()

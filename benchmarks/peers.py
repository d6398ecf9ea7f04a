"""Triggers that the benchmark `triggerer` compares with this provider's; a triggerer imports them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import aiohttp
from airflow.providers.common.compat.sdk import BaseHook
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Seconds between two requests of the naive trigger.
INTERVAL = 2.0


class Floor(DateTimeTrigger):
    """
    Airflow's own DateTimeTrigger, which knows the end beforehand and asks nobody.

    :param moment: the end, in Unix seconds.
    """

    def __init__(self, moment: float) -> None:
        super().__init__(datetime.fromtimestamp(moment, UTC))


class Naive(BaseTrigger):
    """
    Polls a job with an HTTP session of its own, and stops the job when a user ends the task.

    :param ray_conn_id: the connection, which each trigger reads.
    :param submission_id: the job.
    """

    def __init__(self, ray_conn_id: str, submission_id: str) -> None:
        super().__init__()
        self.arguments = {"ray_conn_id": ray_conn_id, "submission_id": submission_id}
        self.job = ""  # its URL

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return "peers.Naive", self.arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll the job until it ends."""
        connection = await BaseHook.aget_connection(self.arguments["ray_conn_id"])
        self.job = f"{connection.host}/api/jobs/{self.arguments['submission_id']}"
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(self.job) as answer:
                    status = (await answer.json())["status"]
                if status in ("SUCCEEDED", "FAILED", "STOPPED"):
                    yield TriggerEvent({"status": status})
                    return
                await asyncio.sleep(INTERVAL)

    async def on_kill(self) -> None:
        """Stop the job."""
        async with aiohttp.ClientSession() as session, session.post(f"{self.job}/stop"):
            pass

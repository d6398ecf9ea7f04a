"""The scripted head asks for its token, and its streams end as told."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from airflow_provider_rayjobs.testing import answers
from airflow_provider_rayjobs.testing.ray_server import ScriptedRay, Tail
from tests.unit.testing.http_client import Client


async def tail(server: ScriptedRay, submission_id: str = "a") -> tuple[list[str], int | None]:
    """Read a job's stream to its end; return its messages and the code of its close."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{server.url}/api/jobs/{submission_id}/logs/tail") as ws,
    ):
        return [message.data async for message in ws], ws.close_code


def test_token() -> None:
    with ScriptedRay(token="t") as server:
        client = Client(server)
        assert client.ask("GET", "/api/version")[0] == 401
        assert client.ask("GET", "/api/version", Authorization="Bearer x")[0] == 403
        assert client.ask("GET", "/api/version", Authorization="Bearer t")[0] == 200
        assert client.ask("GET", "/api/version", **{"X-Ray-Authorization": "Bearer t"})[0] == 200
        client.connection.close()


def test_tail_ends_with_the_job(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a")
    scripted_ray.append_log("a", ["one\n", "two\n"])

    async def follow() -> tuple[list[str], int | None]:
        reading = asyncio.ensure_future(tail(scripted_ray))
        await asyncio.sleep(0.1)
        assert not reading.done()
        scripted_ray.append_log("a", ["three\n"])
        scripted_ray.set_status("a", "SUCCEEDED")
        return await reading

    assert asyncio.run(follow()) == (["one\n", "two\n", "three\n"], 1000)


def test_tail_ends_early_and_begins_anew(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a")
    scripted_ray.append_log("a", ["one\n", "two\n", "three\n"])
    scripted_ray.tails(Tail(after=1), Tail(after=2, code=1009), Tail(after=2, abort=True))
    assert asyncio.run(tail(scripted_ray)) == (["one\n"], 1000)
    assert asyncio.run(tail(scripted_ray)) == (["one\n", "two\n"], 1009)
    assert asyncio.run(tail(scripted_ray)) == (["one\n", "two\n"], 1006)


def test_tail_that_hangs_and_tail_that_is_refused(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("a", "SUCCEEDED")
    scripted_ray.tails(Tail(hang=True))

    async def impatient() -> None:
        async with asyncio.timeout(0.2):
            await tail(scripted_ray)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    scripted_ray.script("GET", ".*/tail", answers.bad_gateway())
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        asyncio.run(tail(scripted_ray))
    assert caught.value.status == 502

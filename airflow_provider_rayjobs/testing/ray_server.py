"""A scripted Jobs REST API, for responses that a real Ray head can't be made to send."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from airflow_provider_rayjobs.testing import answers
from airflow_provider_rayjobs.testing.http_server import ScriptedHttp
from airflow_provider_rayjobs.testing.jobs import Job, ScriptedJobs
from airflow_provider_rayjobs.testing.resets import flush, reset

if TYPE_CHECKING:
    import ssl

    from airflow_provider_rayjobs.testing.answers import Answer
    from airflow_provider_rayjobs.testing.http_server import Received

_TAIL = re.compile(r"/api/jobs/([^/]+)/logs/tail")


@dataclass(frozen=True)
class Tail:
    """How one WebSocket connection to a job's log ends before the job does.

    :param after: how many messages are sent first, from the start of the log.
    :param code: the close code.
    :param abort: reset the TCP connection instead.
    :param hang: keep the connection open without sending anything instead.
    """

    after: int = 0
    code: int = 1000
    abort: bool = False
    hang: bool = False


class ScriptedRay(ScriptedHttp, ScriptedJobs):
    """Serves :class:`ScriptedJobs` on the loopback address, except where :meth:`script` says otherwise.

    :param token: accept only requests with this bearer token, in either of Ray's two headers.
    :param max_body: the most bytes of a request's body; above it the response is 413, as on a head.
    :param tls: serve https with this context.
    """

    def __init__(self, token: str = "", max_body: int = 104857600, tls: ssl.SSLContext | None = None) -> None:
        ScriptedHttp.__init__(self, max_body, tls)
        ScriptedJobs.__init__(self)
        self.token = token
        self._tails: deque[Tail] = deque()

    # For tests, from any thread

    def tails(self, *ends: Tail) -> None:
        """End the next WebSocket connections in these ways, in order; later ones end with the job."""
        with self._script_lock:
            self._tails.extend(ends)

    def clear(self) -> None:
        """Remove all scripts."""
        super().clear()
        with self._script_lock:
            self._tails.clear()

    # On the loop

    def default_answer(self, received: Received) -> Answer:
        """Do what a head does; return its response."""
        return self._refusal(received.headers) or self.answer(received.method, received.path, received.body)

    async def _respond(self, request: web.Request, received: Received, answer: Answer) -> web.StreamResponse:
        tail = _TAIL.fullmatch(request.path)
        job = self.jobs.get(tail[1]) if tail else None
        if tail and answer.default:
            answer = self._refusal(received.headers) or answer
            if job is not None and answer.default:
                return await self._play(request, job)
        return await super()._respond(request, received, answer)

    def _refusal(self, headers: dict[str, str]) -> Answer | None:
        if not self.token:
            return None
        given = headers.get("authorization") or headers.get("x-ray-authorization")
        if not given:
            return answers.unauthorized()
        return None if given == f"Bearer {self.token}" else answers.forbidden()

    async def _play(self, request: web.Request, job: Job) -> web.WebSocketResponse:
        """Send a job's log from its start, until the job ends or as a :class:`Tail` says."""
        with self._script_lock:
            tail = self._tails.popleft() if self._tails else None
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        # The client sends only its close, which aiohttp answers while this receives.
        client = asyncio.ensure_future(ws.receive())
        sent = 0
        try:
            while not client.done() and not self.is_absent:
                ended = job.ended  # read before the log, so that no output is missed
                limit = len(job.log) if tail is None else min(len(job.log), tail.after)
                for chunk in job.log[sent:limit]:
                    await ws.send_str(chunk)
                sent = limit
                if tail is not None and sent == tail.after:
                    if tail.hang:
                        await client
                    break
                if ended and sent == len(job.log):
                    break
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass  # the client has disconnected
        finally:
            client.cancel()
            await asyncio.gather(client, return_exceptions=True)
        transport = request.transport
        if transport is not None and (self.is_absent or (tail is not None and tail.abort)):
            await flush(transport)
            reset(transport)
        else:
            await ws.close(code=tail.code if tail is not None else 1000)
        return ws

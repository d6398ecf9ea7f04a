"""A scripted Jobs REST API, for responses that a real Ray head can't be made to send."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.support import answers, wire
from tests.support.loop_thread import LoopThread
from tests.support.ports import free_port
from tests.support.scripted_jobs import Job, ScriptedJobs

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from tests.support.answers import Answer

_TAIL = re.compile(r"/api/jobs/([^/]+)/logs/tail")


@dataclass
class Received:
    """One received request.

    :param path: the path with its query.
    :param headers: by lower-case name.
    :param peer: address and port of the client, which identify the TCP connection.
    """

    time: float
    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    peer: tuple[str, int] = field(default=("", 0), repr=False)

    @property
    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


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


@dataclass
class _Script:
    method: str
    path: str
    left: deque[Answer]
    forever: bool

    def next(self, method: str, path: str) -> Answer | None:
        if not self.left or not (re.fullmatch(self.method, method) and re.fullmatch(self.path, path)):
            return None
        return self.left[0] if self.forever and len(self.left) == 1 else self.left.popleft()


class ScriptedRay(ScriptedJobs):
    """Serves :class:`ScriptedJobs` on the loopback address, except where :meth:`script` says otherwise.

    :param token: accept only requests with this bearer token, in either of Ray's two headers.
    :param max_body: the most bytes of a request's body; above it the response is 413, as on a head.
    :param tls: serve https with this context, see :meth:`tests.support.private_ca.PrivateCA.server_context`.
    """

    host = "127.0.0.1"

    def __init__(self, token: str = "", max_body: int = 104857600, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.port = free_port()
        self.url = f"{'https' if tls else 'http'}://{self.host}:{self.port}"
        self.token = token
        self._max_body = max_body
        self._tls = tls
        self._scripts: list[_Script] = []
        self._tails: deque[Tail] = deque()
        self._received: list[Received] = []
        self._script_lock = threading.Lock()
        self._thread: LoopThread | None = None
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> ScriptedRay:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # For tests, from any thread

    def start(self) -> None:
        """Start to serve."""
        self._thread = LoopThread("scripted-ray")
        self._thread.call(self._listen())

    def stop(self) -> None:
        """End all connections and the thread."""
        if self._thread is not None:
            self._thread.call(self._close())
            self._thread.stop()
            self._thread = None

    def script(self, method: str, path: str, *given: Answer, forever: bool = False) -> None:
        """Send these responses, in order, to matching requests, and then the default ones again.

        Scripts are tried in the order in which they were added.

        :param method: regular expression for the whole method.
        :param path: regular expression for the whole path with its query. WebSocket requests are matched too.
        :param given: the responses; :func:`tests.support.answers.default` stands for the default one.
        :param forever: repeat the last response.
        """
        with self._script_lock:
            self._scripts.append(_Script(method, path, deque(given), forever))

    def tails(self, *ends: Tail) -> None:
        """End the next WebSocket connections in these ways, in order; later ones end with the job."""
        with self._script_lock:
            self._tails.extend(ends)

    def clear(self) -> None:
        """Remove all scripts."""
        with self._script_lock:
            self._scripts.clear()
            self._tails.clear()

    @property
    def received(self) -> list[Received]:
        """All requests so far, oldest first."""
        return list(self._received)

    def received_on(self, method: str, path: str = ".*") -> list[Received]:
        """Return the requests whose whole method and path match these regular expressions."""
        return [one for one in self._received if re.fullmatch(method, one.method) and re.fullmatch(path, one.path)]

    def wait_for(self, condition: Callable[[], object], timeout: float = 10.0) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"the condition does not hold after {timeout} s: {self.received}")
            time.sleep(0.01)

    # On the loop

    async def _listen(self) -> None:
        app = web.Application(client_max_size=self._max_body)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, ssl_context=self._tls).start()

    async def _close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        peer = request.transport.get_extra_info("peername") if request.transport is not None else ("", 0)
        received = Received(time.time(), request.method, request.raw_path, headers, peer=peer)
        try:
            received.body = await request.read()
        finally:
            self._received.append(received)
        answer = self._scripted(received)
        tail = _TAIL.fullmatch(request.path)
        if tail is not None and (answer is None or answer.default):
            job = self.jobs.get(tail[1])
            answer = self._refusal(headers)
            if answer is None and job is not None:
                return await self._play(request, job)
        if answer is None:
            answer = answers.default()
        if answer.default or answer.applies:
            real = self._refusal(headers) or self.answer(received.method, received.path, received.body)
            if answer.default:
                extra = {name: getattr(answer, name) for name in ("headers", "delay", "cut_after", "drop")}
                answer = real.but(**extra)
        return await _send(request, answer)

    def _scripted(self, received: Received) -> Answer | None:
        with self._script_lock:
            for script in self._scripts:
                if (answer := script.next(received.method, received.path)) is not None:
                    return answer
        return None

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
            while not client.done():
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
        if tail is not None and tail.abort and transport is not None:
            await wire.flush(transport)
            wire.reset(transport)
        else:
            await ws.close(code=tail.code if tail is not None else 1000)
        return ws


async def _send(request: web.Request, answer: Answer) -> web.StreamResponse:
    if answer.delay:
        await asyncio.sleep(answer.delay)
    headers = {"Content-Type": answer.content_type, **dict(answer.headers)}
    if answer.cut_after is None and not answer.drop:
        return web.Response(status=answer.status, headers=headers, body=answer.body)
    response = web.StreamResponse(status=answer.status, headers=headers)
    transport = request.transport
    if transport is None:  # the client has disconnected
        return response
    if answer.drop:
        wire.reset(transport)
        return response
    response.content_length = len(answer.body)
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        await response.write(answer.body[: answer.cut_after])
    transport.close()
    return response

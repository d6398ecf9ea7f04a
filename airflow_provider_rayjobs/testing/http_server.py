"""A scripted HTTP server: it answers by its default, except where a test says otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from airflow_provider_rayjobs.testing import answers
from airflow_provider_rayjobs.testing.loop_thread import LoopThread
from airflow_provider_rayjobs.testing.ports import free_port
from airflow_provider_rayjobs.testing.resets import reset

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from airflow_provider_rayjobs.testing.answers import Answer


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


class ScriptedHttp:
    """Serves on the loopback address, by default what :meth:`default_answer` returns.

    :param max_body: the most bytes of a request's body; above it the response is 413.
    :param tls: serve https with this context.
    """

    host = "127.0.0.1"

    def __init__(self, max_body: int, tls: ssl.SSLContext | None) -> None:
        self.port = free_port()
        self.url = f"{'https' if tls else 'http'}://{self.host}:{self.port}"
        #: Until then, by ``time.monotonic()``, connections are reset without an answer.
        self.absent_until = 0.0
        self._max_body = max_body
        self._tls = tls
        self._scripts: list[_Script] = []
        self._received: list[Received] = []
        self._script_lock = threading.Lock()
        self._thread: LoopThread | None = None
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def default_answer(self, received: Received) -> Answer:
        """Do what the route does by default; return its response."""
        raise NotImplementedError

    # For tests, from any thread

    def start(self) -> None:
        """Start to serve."""
        self._thread = LoopThread(type(self).__name__)
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
        :param given: the responses; ``answers.default()`` stands for the default one.
        :param forever: repeat the last response.
        """
        with self._script_lock:
            self._scripts.append(_Script(method, path, deque(given), forever))

    def clear(self) -> None:
        """Remove all scripts."""
        with self._script_lock:
            self._scripts.clear()

    @property
    def is_absent(self) -> bool:
        """Whether it resets connections now."""
        return time.monotonic() < self.absent_until

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
        answer = answers.drop() if self.is_absent else self._scripted(received) or answers.default()
        return await self._respond(request, received, answer)

    async def _respond(self, request: web.Request, received: Received, answer: Answer) -> web.StreamResponse:
        if answer.default or answer.applies:
            real = self.default_answer(received)
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
        reset(transport)
        return response
    response.content_length = len(answer.body)
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        await response.write(answer.body[: answer.cut_after])
    transport.close()
    return response

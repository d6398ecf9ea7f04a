"""
Sends the requests of flows with ``aiohttp``, and opens the stream of a job's log.

Errors of ``aiohttp`` are translated here: callers see only those of ``exceptions``. ``aiohttp`` is imported at the
first request, never before.
"""

from __future__ import annotations

import asyncio
import importlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_rayjobs.client.answer_body import ACCEPTED_ENCODINGS, AnswerBody, AnswerBodyError
from airflow_provider_rayjobs.client.answers import response_of, unusable_body
from airflow_provider_rayjobs.client.counts import Counts
from airflow_provider_rayjobs.client.exchange import NO_RESPONSE, Flow, Pause, Request, Response
from airflow_provider_rayjobs.client.flows import run_flow_async
from airflow_provider_rayjobs.client.foreign_errors import answer_timeout, translating_aiohttp, unreachable
from airflow_provider_rayjobs.client.retries import TOKEN_PAUSE, drop_outdated_token, retry_policy, settled
from airflow_provider_rayjobs.client.threads import in_own_thread
from airflow_provider_rayjobs.client.turns import Turns
from airflow_provider_rayjobs.cluster import network
from airflow_provider_rayjobs.exceptions import RayJobsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import aiohttp

    from airflow_provider_rayjobs.cluster.connection import ClusterConnection

T = TypeVar("T")

#: Bytes to read from the connection at a time.
READ_SIZE = 64 * 1024

#: Largest WebSocket message that is accepted, in bytes. Ray cuts a log into messages of about 20,000 characters, but
#: never within a line. Its own dashboard accepts at most 4 MiB from the node that the job runs on.
MAX_WEBSOCKET_MESSAGE = 5 * 1024 * 1024

#: Size of an answer, in bytes, from which its decoding delays the event loop noticeably.
LARGE = 64 * 1024

#: Seconds to wait for the closing handshake of a log stream.
CLOSE_TIMEOUT = 0.1

#: Connections of one session: more than the status requests and log streams of one poller together.
MOST_CONNECTIONS = 200


class AiohttpTransport:
    """
    Runs flows with ``aiohttp``; one session, bound to the running event loop at its first request.

    :param cluster: the cluster to talk to.
    :param sleep: coroutine that waits, in seconds.
    :param counts: counts what is sent, together with other transports; by default this transport has its own.
    """

    def __init__(
        self,
        cluster: ClusterConnection,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        counts: Counts | None = None,
    ) -> None:
        self.cluster = cluster
        self.counts = Counts() if counts is None else counts
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None
        self._opening = asyncio.Lock()
        self.turns = Turns()
        self._token_thread: ThreadPoolExecutor | None = None

    async def run(self, flow: Flow[T]) -> T:
        """
        Run a flow to its end.

        :return: what the flow returns.
        :raises RayJobsError: what the flow raises.
        """
        return await run_flow_async(flow, self._perform, RayJobsError)

    async def _perform(self, step: Request | Pause) -> Response:
        if isinstance(step, Pause):
            await self._sleep(step.seconds)
            return NO_RESPONSE
        if not step.repeatable:
            return await self._answer(step)
        from tenacity import AsyncRetrying

        return await AsyncRetrying(**retry_policy(), sleep=self._sleep)(self._ask, step)

    async def _ask(self, request: Request) -> Response:
        return settled(await self._answer(request))

    async def _answer(self, request: Request) -> Response:
        response = await self._send(request)
        if drop_outdated_token(self.cluster, response.status):
            await self._sleep(TOKEN_PAUSE)
            response = await self._send(request)
        return response

    async def _send(self, request: Request) -> Response:
        session, headers = await self._opened(), await self._headers()
        self.counts.requests += 1
        total = self.cluster.connect_timeout + max(request.within, self.cluster.read_timeout)
        with translating_aiohttp(self.cluster):
            try:
                async with (
                    asyncio.timeout(total) as limit,
                    session.request(
                        request.method,
                        self.cluster.address + request.path,
                        json=request.json,
                        headers=headers,
                        allow_redirects=False,
                        proxy=self._proxy,
                    ) as answer,
                ):
                    return await self._read(request, answer)
            except TimeoutError:
                if limit.expired():
                    raise answer_timeout(self.cluster, total) from None
                raise

    async def _read(self, request: Request, answer: aiohttp.ClientResponse) -> Response:
        take = request.receiver(answer.status, answer.headers.get("Content-Type"))
        try:
            body = AnswerBody(answer.headers.get("Content-Encoding", ""), request.limit, take)
            async for data in answer.content.iter_chunked(READ_SIZE):
                await self.turns.take(body.feed(data))
            content = body.content()
        except AnswerBodyError as e:
            raise unusable_body(self.cluster.address, request, e) from None
        if len(content) > LARGE:
            await self.turns.take()  # so that decoding starts with a full turn
        return response_of(self.cluster, request, answer.status, content, answer.headers)

    async def _headers(self) -> dict[str, str]:
        if not self.cluster.rotating:
            return self.cluster.request_headers()
        if self._token_thread is None:
            # One thread per cluster: waiting for a token must not delay other clusters or DNS look-ups.
            self._token_thread = ThreadPoolExecutor(1, "ray-token")
        seconds = self.cluster.read_timeout
        try:
            async with asyncio.timeout(seconds):
                return await in_own_thread(self.cluster.request_headers, executor=self._token_thread)
        except TimeoutError:
            problem = f"got no token within {seconds:g} s; check the connection's token_file or token_callable"
            raise unreachable(self.cluster, problem, maybe_sent=False) from None

    async def _opened(self) -> aiohttp.ClientSession:
        if self._session is not None:
            return self._session
        async with self._opening:
            if self._session is None:
                # The first import in a process takes 0.2 s, too long for an event loop.
                aiohttp = await asyncio.to_thread(importlib.import_module, "aiohttp")
                cluster = self.cluster
                # Reading the system's certificates takes some 20 ms of CPU, too long for an event loop.
                https = cluster.address.startswith("https://")
                tls = await asyncio.to_thread(network.ssl_context, cluster) if https else True
                # The rules for proxies come from requests, whose import takes too long, too.
                self._proxy = await asyncio.to_thread(network.http_proxy, cluster)
                self._session = aiohttp.ClientSession(
                    auto_decompress=False,  # aiohttp doesn't limit the decompressed size
                    headers={"Accept-Encoding": ACCEPTED_ENCODINGS},
                    cookie_jar=aiohttp.DummyCookieJar(),
                    connector=aiohttp.TCPConnector(ssl=tls, limit=MOST_CONNECTIONS),
                    trace_configs=[_no_redirects()],
                    timeout=aiohttp.ClientTimeout(
                        total=None, sock_connect=cluster.connect_timeout, sock_read=cluster.read_timeout
                    ),
                )
            return self._session

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[AsyncIterator[str]]:
        """
        Open a WebSocket; yield an asynchronous iterator over its text messages, which ends when Ray closes it.

        :param path: path below the cluster's address.
        :raises RayJobsError: the credentials were refused, or the WebSocket could not be opened, or broke.
        """
        session, headers = await self._opened(), await self._headers()
        self.counts.requests += 1
        from aiohttp import WSServerHandshakeError

        total = self.cluster.connect_timeout + self.cluster.read_timeout
        with translating_aiohttp(self.cluster):
            try:
                async with asyncio.timeout(total) as limit:
                    # No heartbeat: the head never reads from this socket, so it doesn't answer pings.
                    socket = await session.ws_connect(
                        self.cluster.address + path,
                        headers=headers,
                        max_msg_size=MAX_WEBSOCKET_MESSAGE,
                        proxy=self._proxy,
                        autoping=False,
                    )
            except WSServerHandshakeError as e:
                drop_outdated_token(self.cluster, e.status)
                raise
            except TimeoutError:
                if limit.expired():
                    raise answer_timeout(self.cluster, total) from None
                raise
            try:
                yield self._messages(socket)
            finally:
                # The head doesn't answer a close frame, and aiohttp waits for the answer while messages arrive.
                with suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_TIMEOUT):
                        await socket.close()

    async def _messages(self, socket: aiohttp.ClientWebSocketResponse) -> AsyncIterator[str]:
        from aiohttp import WSCloseCode, WSMsgType

        while True:
            message = await socket.receive()
            if message.type is WSMsgType.TEXT:
                yield message.data
            elif message.type is WSMsgType.PING:
                await self.turns.take()  # aiohttp's autoping would answer any number of them without a pause
                await socket.pong(message.data)
            elif message.type is WSMsgType.PONG:
                await self.turns.take()
            elif message.type is WSMsgType.ERROR:
                raise unreachable(self.cluster, f"the log stream broke: {message.data!r}")
            elif socket.close_code in (WSCloseCode.OK, WSCloseCode.GOING_AWAY):
                return
            else:
                raise unreachable(self.cluster, f"the log stream closed with code {socket.close_code}")

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._token_thread is not None:
            self._token_thread.shutdown(wait=False)
            self._token_thread = None


def _no_redirects() -> aiohttp.TraceConfig:
    """Forbid redirects on every request: ``ws_connect`` has no option for it, and would send our headers elsewhere."""
    import aiohttp

    async def refuse(_session: object, _context: object, params: aiohttp.TraceRequestRedirectParams) -> None:
        raise aiohttp.ClientError(f"the server redirects to {params.response.headers.get('Location')}")

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse)
    return trace

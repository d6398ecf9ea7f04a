"""
The two senders, ``requests`` and ``aiohttp``, the retry policy of both, and the translation of their errors.

A flow of ``protocol`` says what to ask; a transport asks it. Foreign exceptions end here: what leaves this module is
an error of ``exceptions``. Both libraries are imported when a transport is made, never before.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from contextlib import asynccontextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_rayjobs import network
from airflow_provider_rayjobs.answers import ERROR_TEXT_LIMIT, REFUSED_STATUSES, Response, error_of, is_transient
from airflow_provider_rayjobs.exceptions import (
    RayClusterUnreachableError,
    RayConnectionConfigError,
    RayJobsError,
    RayTLSError,
)
from airflow_provider_rayjobs.foreign_errors import translate_requests, translating_aiohttp, unreachable
from airflow_provider_rayjobs.protocol import Flow, Pause, Request
from airflow_provider_rayjobs.threads import in_own_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import aiohttp

    from airflow_provider_rayjobs.connection import ClusterConnection
    from airflow_provider_rayjobs.protocol import Body

T = TypeVar("T")

#: Attempts at a repeatable request, and the waits between them in seconds: about 4 s in all.
ATTEMPTS = 5
FIRST_WAIT = 0.25
LONGEST_WAIT = 2.0

#: Seconds after which a request is sent once more when a token that changes was refused.
TOKEN_PAUSE = 1.0

#: Bytes a second that an upload is granted time for, once it has left this machine.
SLOWEST_UPLOAD = 1_000_000

#: Largest WebSocket message taken, in bytes. Ray cuts a log into messages of about 20,000 characters, but never
#: within a line.
MAX_WEBSOCKET_MESSAGE = 16 * 1024 * 1024

#: Bytes of a long answer that are given at a time, little enough not to hold an event loop up.
PIECE = 16 * 1024

#: Connections of one session: more than the looks and log streams of one poller together.
MOST_CONNECTIONS = 200


def retry_policy() -> dict[str, Any]:
    """Return the arguments of tenacity's ``Retrying`` and ``AsyncRetrying``: bounded, with jitter, on lost contact."""
    from tenacity import retry_if_exception, stop_after_attempt, wait_exponential, wait_random

    return {
        "stop": stop_after_attempt(ATTEMPTS),
        "wait": wait_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT) + wait_random(0, FIRST_WAIT),
        "retry": retry_if_exception(
            lambda e: isinstance(e, RayClusterUnreachableError) and not isinstance(e, RayTLSError)
        ),
        "reraise": True,
    }


class RequestsTransport:
    """
    Drives flows with ``requests``; one session, which is not to be shared by threads.

    :param cluster: the cluster to talk to.
    :param sleep: waits, in seconds.
    """

    def __init__(self, cluster: ClusterConnection, sleep: Callable[[float], None] = time.sleep) -> None:
        import requests

        self.cluster = cluster
        self._sleep = sleep
        self._session = requests.Session()
        # Of the environment only what `network` reads counts; a ~/.netrc would replace our Authorization.
        self._session.trust_env = False
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # our own are in the headers
        self._session.cert = cluster.client_cert

    def run(self, flow: Flow[T]) -> T:
        """
        Drive a flow to its end.

        :return: what the flow returns.
        :raises RayJobsError: what the flow raises.
        """
        step = next(flow)
        try:
            while True:
                try:
                    answer = self._perform(step)
                except RayJobsError as e:
                    step = flow.throw(e)
                else:
                    step = flow.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _perform(self, step: Request | Pause) -> Response:
        if isinstance(step, Pause):
            self._sleep(step.seconds)
            return _NO_RESPONSE
        if not step.repeatable:
            return self._answer(step)
        try:
            return self._ask(step)
        except RayClusterUnreachableError as e:
            failed = [e]
        return self._retried(step, failed)

    def _retried(self, request: Request, failed: list[RayClusterUnreachableError]) -> Response:
        """Go on after a first attempt; the many that need no second one do without tenacity's import and its cost."""
        from tenacity import Retrying

        def attempt() -> Response:
            if failed:
                raise failed.pop()
            return self._ask(request)

        return Retrying(**retry_policy(), sleep=self._sleep)(attempt)

    def _ask(self, request: Request) -> Response:
        return _settled(self._answer(request))

    def _answer(self, request: Request) -> Response:
        response = self._send(request)
        if _drop_outdated_token(self.cluster, response.status):
            self._sleep(TOKEN_PAUSE)
            response = self._send(request)
        return response

    def send_once(self, request: Request, timeout: float) -> Response:
        """Send a request once, within ``timeout`` seconds, without retries; for signal handlers."""
        # To ask for a token may take time, and masking it Airflow's channel, which a signal handler must not use.
        return self._send(request, timeout=(timeout, timeout), fresh=False)

    def _send(self, request: Request, timeout: tuple[float, float] | None = None, *, fresh: bool = True) -> Response:
        import requests

        cluster = self.cluster
        headers, proxy = cluster.request_headers(fresh=fresh), network.http_proxy(cluster)
        body = None if request.upload is None else request.upload()
        try:
            answer = self._session.request(
                request.method,
                cluster.address + request.path,
                json=request.json,
                headers=headers,
                data=body,
                timeout=timeout or _timeouts(cluster, body),
                verify=network.trusted(cluster),
                proxies={"http": proxy, "https": proxy} if proxy else None,
                allow_redirects=False,
            )
        except requests.exceptions.RequestException as e:
            raise translate_requests(cluster, e) from e
        except OSError as e:  # a CA file or folder that can't be read
            raise RayConnectionConfigError(cluster.conn_id, "verify", str(e)) from e
        return _response(cluster, request, answer.status_code, answer.content, answer.headers)

    def close(self) -> None:
        """Close the session."""
        self._session.close()


class AiohttpTransport:
    """
    Drives flows with ``aiohttp``; one session, bound to the running event loop at its first request.

    :param cluster: the cluster to talk to.
    :param sleep: coroutine that waits, in seconds.
    """

    def __init__(self, cluster: ClusterConnection, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.cluster = cluster
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None
        self._opening = asyncio.Lock()

    async def run(self, flow: Flow[T]) -> T:
        """Drive a flow to its end, as :meth:`RequestsTransport.run`."""
        step = next(flow)
        try:
            while True:
                try:
                    answer = await self._perform(step)
                except RayJobsError as e:
                    step = flow.throw(e)
                else:
                    step = flow.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def _perform(self, step: Request | Pause) -> Response:
        if isinstance(step, Pause):
            await self._sleep(step.seconds)
            return _NO_RESPONSE
        if not step.repeatable:
            return await self._answer(step)
        try:
            return await self._ask(step)
        except RayClusterUnreachableError as e:
            failed = [e]
        return await self._retried(step, failed)

    async def _retried(self, request: Request, failed: list[RayClusterUnreachableError]) -> Response:
        """Do as :meth:`RequestsTransport._retried`; a poller of many jobs feels it in each look."""
        from tenacity import AsyncRetrying

        async def attempt() -> Response:
            if failed:
                raise failed.pop()
            return await self._ask(request)

        return await AsyncRetrying(**retry_policy(), sleep=self._sleep)(attempt)

    async def _ask(self, request: Request) -> Response:
        return _settled(await self._answer(request))

    async def _answer(self, request: Request) -> Response:
        response = await self._send(request)
        if _drop_outdated_token(self.cluster, response.status):
            await self._sleep(TOKEN_PAUSE)
            response = await self._send(request)
        return response

    async def _send(self, request: Request) -> Response:
        session, headers = await self._opened(), await self._headers()
        with translating_aiohttp(self.cluster):
            async with session.request(
                request.method,
                self.cluster.address + request.path,
                json=request.json,
                headers=headers,
                allow_redirects=False,
                proxy=self._proxy,
            ) as answer:
                body = await answer.read()
                return _response(self.cluster, request, answer.status, body, answer.headers)

    async def _headers(self) -> dict[str, str]:
        if self.cluster.token is None:
            return self.cluster.request_headers()
        return await in_own_thread(self.cluster.request_headers)

    async def _opened(self) -> aiohttp.ClientSession:
        if self._session is not None:
            return self._session
        async with self._opening:
            if self._session is None:
                # The import takes 0.2 s, too long for an event loop, and happens once in a process.
                aiohttp = await asyncio.to_thread(importlib.import_module, "aiohttp")
                cluster = self.cluster
                # Reading the system's certificates takes some 20 ms of CPU, too long for an event loop.
                https = cluster.address.startswith("https://")
                tls = await asyncio.to_thread(network.ssl_context, cluster) if https else True
                # So does the import of requests, which knows the rules for proxies.
                self._proxy = await asyncio.to_thread(network.http_proxy, cluster)
                self._session = aiohttp.ClientSession(
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
        Open a WebSocket and give its text messages as an asynchronous iterator, which ends when Ray closes it.

        :param path: path below the cluster's address.
        :raises RayJobsError: the credentials were refused, or it could not be opened, or broke.
        """
        session, headers = await self._opened(), await self._headers()
        from aiohttp import WSServerHandshakeError

        with translating_aiohttp(self.cluster):
            try:
                # No heartbeat: the head never reads from this socket, so it would not answer a ping.
                async with session.ws_connect(
                    self.cluster.address + path,
                    headers=headers,
                    max_msg_size=MAX_WEBSOCKET_MESSAGE,
                    proxy=self._proxy,
                ) as socket:
                    yield _messages(self.cluster, socket)
            except WSServerHandshakeError as e:
                _drop_outdated_token(self.cluster, e.status)
                raise

    @asynccontextmanager
    async def body(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """
        Open the body of a ``GET``, in pieces, for answers that are too large to hold.

        :param path: path below the cluster's address.
        :raises RayJobsError: the answer is no success.
        """
        session, headers = await self._opened(), await self._headers()
        with translating_aiohttp(self.cluster):
            async with session.get(
                self.cluster.address + path, headers=headers, allow_redirects=False, proxy=self._proxy
            ) as answer:
                if answer.status != 200:
                    _drop_outdated_token(self.cluster, answer.status)
                    request = Request("GET", path)
                    text = await answer.content.read(ERROR_TEXT_LIMIT)
                    raise error_of(_response(self.cluster, request, answer.status, text, answer.headers))
                yield answer.content.iter_chunked(PIECE)

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _no_redirects() -> aiohttp.TraceConfig:
    """Forbid redirects on every request: a WebSocket's can't be told so, and would carry our headers elsewhere."""
    import aiohttp

    async def refuse(_session: object, _context: object, params: aiohttp.TraceRequestRedirectParams) -> None:
        raise aiohttp.ClientError(f"it redirects to {params.response.headers.get('Location')}")

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(refuse)
    return trace


async def _messages(cluster: ClusterConnection, socket: aiohttp.ClientWebSocketResponse) -> AsyncIterator[str]:
    from aiohttp import WSCloseCode, WSMsgType

    while True:
        message = await socket.receive()
        if message.type is WSMsgType.TEXT:
            yield message.data
        elif message.type is WSMsgType.ERROR:
            raise unreachable(cluster, f"the log stream broke: {message.data!r}")
        elif socket.close_code in (WSCloseCode.OK, WSCloseCode.GOING_AWAY):
            return
        else:
            raise unreachable(cluster, f"the log stream closed with code {socket.close_code}")


_NO_RESPONSE = Response(0, "", "")


def _drop_outdated_token(cluster: ClusterConnection, status: int) -> bool:
    """Whether a token was refused that changes: it may just have been replaced. Ray refuses before it acts."""
    if status not in REFUSED_STATUSES or cluster.token is None:
        return False
    cluster.token.drop()
    return True


def _timeouts(cluster: ClusterConnection, body: Body | None) -> tuple[float, float]:
    """Return seconds for ``requests``: to connect and for each write, and until the answer begins."""
    if body is None:
        return cluster.connect_timeout, cluster.read_timeout
    # A proxy may take in everything at once, and hand it on while we wait.
    return max(cluster.connect_timeout, cluster.read_timeout), cluster.read_timeout + len(body) / SLOWEST_UPLOAD


def _response(cluster: ClusterConnection, request: Request, status: int, body: bytes, headers: Any) -> Response:
    text = body.decode("utf-8", errors="replace")
    kind, location = headers.get("Content-Type", ""), headers.get("Location", "")
    secrets = (*cluster.secrets, *request.secrets)
    return Response(status, text, cluster.address, kind, location, secrets, cluster.conn_id, cluster.credentials)


def _settled(response: Response) -> Response:
    """Turn an answer that asks to come again later into the error that the retry policy knows."""
    if is_transient(response):
        raise error_of(response)
    return response

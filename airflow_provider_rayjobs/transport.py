"""
The two senders, ``requests`` and ``aiohttp``, the retry policy of both, and the translation of their errors.

A flow of ``protocol`` says what to ask; a transport asks it. Foreign exceptions end here: what leaves this module is
an error of ``exceptions``. Both libraries are imported when a transport is made, never before.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_rayjobs.exceptions import (
    RayClusterUnreachableError,
    RayConnectionConfigError,
    RayJobsError,
    RayProtocolError,
    RayTLSError,
)
from airflow_provider_rayjobs.protocol import (
    ERROR_TEXT_LIMIT,
    Flow,
    Pause,
    Request,
    Response,
    error_of,
    is_transient,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import aiohttp
    import requests

    from airflow_provider_rayjobs.connection import ClusterConnection

T = TypeVar("T")

#: Attempts at a repeatable request, and the waits between them in seconds: about 4 s in all.
ATTEMPTS = 5
FIRST_WAIT = 0.25
LONGEST_WAIT = 2.0

#: Largest WebSocket message taken, in bytes. Ray cuts a log into messages of about 20,000 characters, but never
#: within a line.
MAX_WEBSOCKET_MESSAGE = 16 * 1024 * 1024


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
        self._session.headers.update(cluster.headers)
        self._session.cookies.update(dict(cluster.cookies))
        # A callable here keeps requests from replacing our Authorization by one from ~/.netrc.
        self._session.auth = lambda request: request

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
        from tenacity import Retrying

        if isinstance(step, Pause):
            self._sleep(step.seconds)
            return _NO_RESPONSE
        if not step.repeatable:
            return self._send(step)
        return Retrying(**retry_policy(), sleep=self._sleep)(self._ask, step)

    def _ask(self, request: Request) -> Response:
        return _settled(self._send(request))

    def send_once(self, request: Request, timeout: float) -> Response:
        """Send a request once, within ``timeout`` seconds, without retries; for signal handlers."""
        return self._send(request, timeout=(timeout, timeout))

    def _send(self, request: Request, timeout: tuple[float, float] | None = None) -> Response:
        import requests

        cluster = self.cluster
        try:
            answer = self._session.request(
                request.method,
                cluster.address + request.path,
                json=request.json,
                timeout=timeout or (cluster.connect_timeout, cluster.read_timeout),
                verify=self._verify(),
                allow_redirects=False,
            )
        except requests.exceptions.RequestException as e:
            raise _translate_requests(cluster, e) from e
        except OSError as e:  # a CA file or folder that can't be read
            raise RayConnectionConfigError(cluster.conn_id, "verify", str(e)) from e
        return _response(cluster, request, answer.status_code, answer.content, answer.headers)

    def _verify(self) -> bool | str:
        # With verify=True requests lets REQUESTS_CA_BUNDLE override; with an explicit path it does not.
        return self.cluster.verify

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
        from tenacity import AsyncRetrying

        if isinstance(step, Pause):
            await self._sleep(step.seconds)
            return _NO_RESPONSE
        if not step.repeatable:
            return await self._send(step)
        return await AsyncRetrying(**retry_policy(), sleep=self._sleep)(self._ask, step)

    async def _ask(self, request: Request) -> Response:
        return _settled(await self._send(request))

    async def _send(self, request: Request) -> Response:
        session = await self._opened()
        with _translating_aiohttp(self.cluster):
            async with session.request(
                request.method,
                self.cluster.address + request.path,
                json=request.json,
                allow_redirects=False,
            ) as answer:
                body = await answer.read()
                return _response(self.cluster, request, answer.status, body, answer.headers)

    async def _opened(self) -> aiohttp.ClientSession:
        async with self._opening:
            if self._session is None:
                import aiohttp

                cluster = self.cluster
                # Reading the system's certificates takes some 20 ms of CPU, too long for an event loop.
                tls = await asyncio.to_thread(_ssl_context, cluster) if cluster.address.startswith("https") else True
                self._session = aiohttp.ClientSession(
                    headers=dict(cluster.headers),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    connector=aiohttp.TCPConnector(ssl=tls),
                    timeout=aiohttp.ClientTimeout(
                        total=None, sock_connect=cluster.connect_timeout, sock_read=cluster.read_timeout
                    ),
                    trust_env=True,
                )
                if cluster.cookies:
                    # aiohttp's jar drops cookies of servers that are named by IP address.
                    pairs = "; ".join(f"{name}={value}" for name, value in cluster.cookies.items())
                    self._session.headers["Cookie"] = pairs
            return self._session

    @asynccontextmanager
    async def stream(self, path: str) -> AsyncIterator[AsyncIterator[str]]:
        """
        Open a WebSocket and give its text messages as an asynchronous iterator, which ends when Ray closes it.

        :param path: path below the cluster's address.
        :raises RayClusterUnreachableError: it could not be opened, or broke.
        """
        session = await self._opened()
        with _translating_aiohttp(self.cluster):
            # No heartbeat: the head never reads from this socket, so it would not answer a ping.
            async with session.ws_connect(self.cluster.address + path, max_msg_size=MAX_WEBSOCKET_MESSAGE) as socket:
                yield _messages(self.cluster, socket)

    @asynccontextmanager
    async def body(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """
        Open the body of a ``GET``, in pieces, for answers that are too large to hold.

        :param path: path below the cluster's address.
        :raises RayJobsError: the answer is no success.
        """
        session = await self._opened()
        with _translating_aiohttp(self.cluster):
            async with session.get(self.cluster.address + path, allow_redirects=False) as answer:
                if answer.status != 200:
                    request = Request("GET", path)
                    text = await answer.content.read(ERROR_TEXT_LIMIT)
                    raise error_of(_response(self.cluster, request, answer.status, text, answer.headers))
                yield answer.content.iter_chunked(64 * 1024)

    async def close(self) -> None:
        """Close the session."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _messages(cluster: ClusterConnection, socket: aiohttp.ClientWebSocketResponse) -> AsyncIterator[str]:
    from aiohttp import WSCloseCode, WSMsgType

    while True:
        message = await socket.receive()
        if message.type is WSMsgType.TEXT:
            yield message.data
        elif message.type is WSMsgType.ERROR:
            raise _unreachable(cluster, f"the log stream broke: {message.data!r}")
        elif socket.close_code in (WSCloseCode.OK, WSCloseCode.GOING_AWAY):
            return
        else:
            raise _unreachable(cluster, f"the log stream closed with code {socket.close_code}")


_NO_RESPONSE = Response(0, "", "")


def _response(cluster: ClusterConnection, request: Request, status: int, body: bytes, headers: Any) -> Response:
    text = body.decode("utf-8", errors="replace")
    if status != 200:
        for secret in sorted((*cluster.secrets, *request.secrets), key=len, reverse=True):
            if len(secret) > 2:  # shorter ones would blank out half of every message
                text = text.replace(secret, "***")
    return Response(status, text, cluster.address, headers.get("Content-Type", ""), headers.get("Location", ""))


def _settled(response: Response) -> Response:
    """Turn an answer that asks to come again later into the error that the retry policy knows."""
    if is_transient(response):
        raise error_of(response)
    return response


def _unreachable(cluster: ClusterConnection, problem: str, *, maybe_sent: bool = True) -> RayJobsError:
    return RayClusterUnreachableError(f"{cluster.address}: {problem}", maybe_sent=maybe_sent)


def _tls_error(cluster: ClusterConnection, cause: object) -> RayTLSError:
    return RayTLSError(
        f"{cluster.address}: TLS failed ({cause}); check the server's certificate, the connection's 'verify' (a CA "
        "file or folder) and that the server speaks https",
        maybe_sent=False,
    )


def _cause(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """Find an exception of this kind in the chain of an HTTP library's exception."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None or isinstance(seen, kind):
            return seen
        inner = getattr(seen, "reason", None) or (seen.args[0] if seen.args else None)
        seen = inner if isinstance(inner, BaseException) else (seen.__cause__ or seen.__context__)
    return None


_NAME_HINT = "the host name is not known; check the connection's host and this machine's DNS"
_REFUSED_HINT = "nothing accepts connections there; check host and port, and that the Ray head runs"


def _translate_requests(cluster: ClusterConnection, error: requests.exceptions.RequestException) -> RayJobsError:
    import socket

    import requests
    from urllib3.exceptions import NameResolutionError, NewConnectionError

    if isinstance(error, requests.exceptions.SSLError):
        return _tls_error(cluster, _cause(error, ssl.SSLError) or error)
    if isinstance(error, requests.exceptions.ConnectTimeout):
        hint = f"no connection within {cluster.connect_timeout:g} s; check host, port and firewall"
        return _unreachable(cluster, hint, maybe_sent=False)
    if isinstance(error, requests.exceptions.Timeout):
        hint = f"no answer within {cluster.read_timeout:g} s; check that the Ray head is healthy"
        return _unreachable(cluster, hint)
    if _cause(error, NameResolutionError) or _cause(error, socket.gaierror):
        return _unreachable(cluster, _NAME_HINT, maybe_sent=False)
    if isinstance(error, requests.exceptions.ProxyError):
        return _unreachable(cluster, f"the HTTP proxy of this machine failed ({error})", maybe_sent=False)
    if _cause(error, NewConnectionError):
        return _unreachable(cluster, _REFUSED_HINT, maybe_sent=False)
    if isinstance(error, requests.exceptions.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return _unreachable(cluster, f"the connection broke before the whole answer was there ({error})")
    return RayProtocolError(f"{cluster.address}: the request can't be sent or read: {error}")


class _translating_aiohttp:  # noqa: N801 - reads as a function where it is used
    """Context manager that turns what aiohttp raises into our errors."""

    def __init__(self, cluster: ClusterConnection) -> None:
        self._cluster = cluster

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import aiohttp

        if isinstance(error, aiohttp.ClientError | TimeoutError | OSError) and not isinstance(error, RayJobsError):
            raise _translate_aiohttp(self._cluster, error) from error


def _translate_aiohttp(cluster: ClusterConnection, error: Exception) -> RayJobsError:
    import socket

    import aiohttp

    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return _tls_error(cluster, error)
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return _unreachable(cluster, f"the log stream was refused with HTTP {error.status}")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        hint = f"no connection within {cluster.connect_timeout:g} s; check host, port and firewall"
        return _unreachable(cluster, hint, maybe_sent=False)
    if isinstance(error, TimeoutError):
        hint = f"no answer within {cluster.read_timeout:g} s; check that the Ray head is healthy"
        return _unreachable(cluster, hint)
    if isinstance(error, aiohttp.ClientConnectorDNSError) or _cause(error, socket.gaierror):
        return _unreachable(cluster, _NAME_HINT, maybe_sent=False)
    if isinstance(error, aiohttp.ClientConnectorError):
        return _unreachable(cluster, _REFUSED_HINT, maybe_sent=False)
    if isinstance(error, aiohttp.InvalidURL):
        return RayProtocolError(f"{cluster.address}: the request can't be sent: {error}")
    return _unreachable(cluster, f"the connection broke before the whole answer was there ({error!r})")


def _ssl_context(cluster: ClusterConnection) -> ssl.SSLContext | bool:
    """Return what aiohttp takes for TLS; the trusted certificates are those that ``requests`` would use."""
    import os

    if cluster.verify is False:
        return False
    path = cluster.verify
    if path is True:
        from certifi import where  # requests comes with it

        path = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or where()
    try:
        folder = Path(path).is_dir()
        return ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)
    except OSError as e:
        raise RayConnectionConfigError(cluster.conn_id, "verify", f"{path!r} can't be read ({e})") from e

"""
Sends the requests of flows with ``requests``.

Errors of ``requests`` are translated here: callers see only those of ``exceptions``. ``requests`` is imported when a
transport is created, never before.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_rayjobs.client.answer_body import ACCEPTED_ENCODINGS, AnswerBody, AnswerBodyError
from airflow_provider_rayjobs.client.answers import response_of, unusable_body
from airflow_provider_rayjobs.client.contact import Contact
from airflow_provider_rayjobs.client.counts import Counts
from airflow_provider_rayjobs.client.exchange import NO_RESPONSE, Flow, Pause, Request, Response
from airflow_provider_rayjobs.client.flows import run_flow
from airflow_provider_rayjobs.client.foreign_errors import answer_timeout, translate_requests
from airflow_provider_rayjobs.client.retries import (
    TOKEN_PAUSE,
    absence_waits,
    drop_outdated_token,
    retry_policy,
    settled,
)
from airflow_provider_rayjobs.cluster import network
from airflow_provider_rayjobs.exceptions import (
    RayClusterUnreachableError,
    RayConnectionConfigError,
    RayJobsError,
    RayTLSError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import requests

    from airflow_provider_rayjobs.client.exchange import Body
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection

T = TypeVar("T")

#: Bytes to read from the connection at a time.
READ_SIZE = 64 * 1024

#: Seconds without an answer after which the task log says so.
SILENCE = 1.0

#: Slowest speeds that an upload's time limits allow for, in bytes per second: for the whole upload, and from a proxy to
#: the cluster.
SLOWEST_UPLOAD = 100_000
SLOWEST_FORWARDING = 1_000_000


def _nothing() -> None:
    """Do nothing."""


class RequestsTransport:
    """
    Runs flows with ``requests``; one session, which threads must not share.

    :param cluster: the cluster to talk to.
    :param sleep: function that waits, in seconds.
    """

    def __init__(self, cluster: ClusterConnection, sleep: Callable[[float], None] = time.sleep) -> None:
        import requests

        self.cluster = cluster
        self.counts = Counts()
        self._sleep = sleep
        self._contact: Contact | None = None
        self._single_attempts = False
        self._breakable: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
        self._before_submission: Callable[[], None] = _nothing
        self._session = requests.Session()
        # `network` reads what we need of the environment; a ~/.netrc would replace our Authorization.
        self._session.trust_env = False
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # ours are sent as a header
        self._session.cert = cluster.client_cert
        self._session.headers["Accept-Encoding"] = ACCEPTED_ENCODINGS
        self._connection = _OpenConnection()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._connection.adapter())

    @contextlib.contextmanager
    def waiting_for_cluster(
        self,
        log: Any,
        *,
        breakable: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        before_submission: Callable[[], None] = _nothing,
    ) -> Iterator[None]:
        """
        Within this context, wait for an unreachable cluster up to the connection's ``unreachable_timeout``.

        A task's steps run in it, so that an outage does not use up the task's tries. Without it, a few quick retries
        are made; other callers, and the handling of a kill, need a quick answer.

        :param log: logger for the loss and the return of contact.
        :param breakable: context manager entered for each request and each wait; within it, a signal handler may
            interrupt.
        :param before_submission: called before each attempt to submit a job; may raise.
        """
        before = self._contact, self._breakable, self._before_submission
        self._contact = Contact(self.cluster.unreachable_timeout, log)
        self._breakable, self._before_submission = breakable, before_submission
        try:
            yield
        finally:
            self._contact, self._breakable, self._before_submission = before

    @contextlib.contextmanager
    def single_attempts(self, contact: Contact) -> Iterator[None]:
        """
        Within this context, send each request once: the caller itself tries again later.

        :param contact: logs that an answer takes long.
        """
        before = self._contact, self._single_attempts
        self._contact, self._single_attempts = contact, True
        try:
            yield
        finally:
            self._contact, self._single_attempts = before

    def run(self, flow: Flow[T]) -> T:
        """
        Run a flow to its end.

        :return: what the flow returns.
        :raises RayJobsError: what the flow raises.
        """
        return run_flow(flow, self._perform, RayJobsError, self._has_given_up)

    def _has_given_up(self) -> bool:
        return self._contact is not None and self._contact.given_up() is not None

    def _perform(self, step: Request | Pause) -> Response:
        if isinstance(step, Pause):
            self._pause(step.seconds)
            return NO_RESPONSE
        if not step.repeatable:
            self._before_submission()
            return self._answer(step)
        if self._contact is not None and self._single_attempts:
            with self._noting_silence(step, self._contact):
                return self._ask(step)
        if self._contact is not None:
            return self._awaited(step, self._contact)
        from tenacity import Retrying

        return Retrying(**retry_policy(), sleep=self._sleep)(self._ask, step)

    def _awaited(self, request: Request, contact: Contact) -> Response:
        """Repeat a request until the cluster answers, or contact has been lost for too long."""
        waits = absence_waits()
        while True:
            try:
                with self._noting_silence(request, contact):
                    answer = self._ask(request)
            except RayTLSError:
                raise
            except RayClusterUnreachableError as e:
                if detail := contact.failed(e):
                    # The detail has the text of this error; chained, both would be in the task log.
                    raise RayClusterUnreachableError(
                        f"{self.cluster.address}: {detail}", address=self.cluster.address
                    ) from None
                self._pause(max(0.0, min(next(waits), contact.left)))
            else:
                contact.back()
                return answer

    @contextlib.contextmanager
    def _noting_silence(self, request: Request, contact: Contact) -> Iterator[None]:
        """
        Log soon that the cluster does not answer: a connection attempt may hang for ``connect_timeout``.

        Not in the thread that cuts a connection which takes too long: that must not depend on a logger.
        """
        if request.upload is not None:
            yield
            return
        timer = threading.Timer(SILENCE, contact.is_slow, [self.cluster.address])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _pause(self, seconds: float) -> None:
        with self._breakable():
            self._sleep(seconds)

    def _ask(self, request: Request) -> Response:
        return settled(self._answer(request))

    def _answer(self, request: Request) -> Response:
        response = self._send(request)
        if drop_outdated_token(self.cluster, response.status):
            self._sleep(TOKEN_PAUSE)
            response = self._send(request)
        return response

    def send_once(self, request: Request, timeout: float) -> Response:
        """Send a request once, within ``timeout`` seconds, without retries; for signal handlers."""
        # No new token: getting one may take long, and a signal handler must not use Airflow's channel to mask it.
        return self._send(request, timeout, fresh=False)

    def _send(self, request: Request, timeout: float | None = None, *, fresh: bool = True) -> Response:
        import requests
        from urllib3.exceptions import HTTPError

        cluster = self.cluster
        headers, proxy = cluster.request_headers(fresh=fresh), network.http_proxy(cluster)
        upload = None if request.upload is None else request.upload()
        self.counts.requests += 1
        connect, read, total = _timeouts(cluster, request, upload, timeout)
        with self._breakable(), self._connection.cut_after(total) as is_cut:
            try:
                with self._session.request(
                    request.method,
                    cluster.address + request.path,
                    json=request.json,
                    headers=headers,
                    data=upload,
                    timeout=(connect, read),
                    verify=network.trusted(cluster),
                    proxies={"http": proxy, "https": proxy} if proxy else None,
                    allow_redirects=False,
                    stream=True,
                ) as answer:
                    response = self._read(request, answer)
            except (requests.exceptions.RequestException, HTTPError) as e:
                # Never chained: the text of some of these contains a proxy's password.
                raise (answer_timeout(cluster, total) if is_cut() else translate_requests(cluster, e)) from None
            except OSError as e:  # a CA file or folder that can't be read
                raise RayConnectionConfigError(cluster.conn_id, "verify", str(e)) from e
            if is_cut():  # a body without a Content-Length ends when the connection is closed
                raise answer_timeout(cluster, total)
            return response

    def _read(self, request: Request, answer: requests.Response) -> Response:
        take = request.receiver(answer.status_code, answer.headers.get("Content-Type"))
        try:
            body = AnswerBody(answer.headers.get("Content-Encoding", ""), request.limit, take)
            for data in answer.raw.stream(READ_SIZE, decode_content=False):
                for _ in body.feed(data):
                    pass
            content = body.content()
        except AnswerBodyError as e:
            raise unusable_body(self.cluster.address, request, e) from None
        return response_of(self.cluster, request, answer.status_code, content, answer.headers)

    def close(self) -> None:
        """Close the session."""
        self._session.close()


def _timeouts(
    cluster: ClusterConnection, request: Request, upload: Body | None, timeout: float | None
) -> tuple[float, float, float]:
    """Return the seconds to connect (and for each write), for each read, and for the whole request."""
    if timeout is not None:
        return timeout, timeout, timeout
    connect, read = cluster.connect_timeout, cluster.read_timeout
    total = connect + max(request.within, read)
    if upload is None:
        return connect, read, total
    # A proxy may accept the whole upload at once, and forward it while we wait.
    size = len(upload)
    return max(connect, read), read + size / SLOWEST_FORWARDING, total + size / SLOWEST_UPLOAD


class _OpenConnection:
    """
    The open connection of a session, which it can cut when a request takes too long.

    The timeouts of ``requests`` limit each read, never the whole request. A server that sends a byte now and then could
    block its caller forever.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def adapter(self) -> requests.adapters.HTTPAdapter:
        """Return the adapter that opens the connections for ``requests``."""
        from requests.adapters import HTTPAdapter
        from urllib3.connection import HTTPConnection, HTTPSConnection
        from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

        keep = self._keep

        def pool(pool_class: Any, connection_class: Any) -> Any:
            class Connection(connection_class):  # type: ignore[misc]
                def _new_conn(self) -> socket.socket:
                    opened: socket.socket = super()._new_conn()
                    keep(opened)
                    return opened

                def connect(self) -> None:
                    super().connect()
                    # TLS replaces the socket. For TLS within TLS, through a proxy, the real socket is an attribute.
                    keep(self.sock if isinstance(self.sock, socket.socket) else self.sock.socket)

            return type(pool_class.__name__, (pool_class,), {"ConnectionCls": Connection})

        pools = {
            "http": pool(HTTPConnectionPool, HTTPConnection),
            "https": pool(HTTPSConnectionPool, HTTPSConnection),
        }

        class Adapter(HTTPAdapter):
            def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
                super().init_poolmanager(*args, **kwargs)
                self.poolmanager.pool_classes_by_scheme = pools

            def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
                manager = super().proxy_manager_for(*args, **kwargs)
                manager.pool_classes_by_scheme = pools
                return manager

        return Adapter()

    def _keep(self, opened: socket.socket) -> None:
        self._socket = opened

    @contextlib.contextmanager
    def cut_after(self, seconds: float) -> Iterator[Callable[[], bool]]:
        """
        Cut the connection if the body of the ``with`` statement takes longer.

        :return: function that tells whether the connection was cut.
        """
        cut, over = threading.Event(), threading.Event()

        def watch() -> None:
            wait = seconds
            while not over.wait(wait):
                wait = 1.0  # again, in case there was no connection yet
                cut.set()
                if self._socket is not None:
                    with contextlib.suppress(OSError):
                        # Shut down the plain socket, without the closing handshake of TLS.
                        socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

        threading.Thread(target=watch, daemon=True).start()
        try:
            yield cut.is_set
        finally:
            over.set()

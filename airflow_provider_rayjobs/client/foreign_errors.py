"""
Translates errors of ``requests`` and ``aiohttp`` into those of ``exceptions``, for the two transports.

Originals are not chained: the text of some contains a proxy's URL with its password.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from airflow_provider_rayjobs.client.answers import REFUSED_STATUSES, error_of
from airflow_provider_rayjobs.client.exchange import Response
from airflow_provider_rayjobs.exceptions import (
    RayClusterUnreachableError,
    RayJobsError,
    RayProtocolError,
    RayTLSError,
)

if TYPE_CHECKING:
    import requests
    import urllib3

    from airflow_provider_rayjobs.cluster.connection import ClusterConnection


def unreachable(cluster: ClusterConnection, problem: str, *, maybe_sent: bool = True) -> RayClusterUnreachableError:
    """Return the error for a request that got no usable answer."""
    return RayClusterUnreachableError(f"{cluster.address}: {problem}", maybe_sent=maybe_sent, address=cluster.address)


def answer_timeout(cluster: ClusterConnection, seconds: float) -> RayClusterUnreachableError:
    """Return the error for an answer that was not complete in time."""
    return unreachable(cluster, f"no complete answer within {seconds:g} s; check that the Ray head is healthy")


def _tls_error(cluster: ClusterConnection, cause: object) -> RayTLSError:
    return RayTLSError(
        f"{cluster.address}: the TLS handshake failed ({cause}); check the server's certificate, the connection's "
        "'verify' (a CA file or folder) and that the server speaks https",
        maybe_sent=False,
        address=cluster.address,
    )


def _cause(error: BaseException, kind: type[BaseException]) -> BaseException | None:
    """Return the exception of this kind in the chain of an HTTP library's exception; None if there is none."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None or isinstance(seen, kind):
            return seen
        inner = getattr(seen, "reason", None) or (seen.args[0] if seen.args else None)
        seen = inner if isinstance(inner, BaseException) else (seen.__cause__ or seen.__context__)
    return None


_NAME_HINT = "host name not found; check the connection's host and this machine's DNS"
_REFUSED_HINT = "connection refused; check the connection's host and port, and that the Ray head is running"


def translate_requests(
    cluster: ClusterConnection, error: requests.exceptions.RequestException | urllib3.exceptions.HTTPError
) -> RayJobsError:
    """Translate an error of ``requests``, or one of ``urllib3``, which reading a body raises."""
    import socket

    import requests
    from urllib3.exceptions import NameResolutionError, NewConnectionError, ProtocolError, ReadTimeoutError

    if isinstance(error, requests.exceptions.SSLError):
        return _tls_error(cluster, _cause(error, ssl.SSLError) or error)
    if isinstance(error, requests.exceptions.ConnectTimeout):
        hint = f"no connection within {cluster.connect_timeout:g} s; check the connection's host, port, and firewalls"
        return unreachable(cluster, hint, maybe_sent=False)
    if isinstance(error, requests.exceptions.Timeout | ReadTimeoutError):
        hint = f"no answer within {cluster.read_timeout:g} s; check that the Ray head is healthy"
        return unreachable(cluster, hint)
    if _cause(error, NameResolutionError) or _cause(error, socket.gaierror):
        return unreachable(cluster, _NAME_HINT, maybe_sent=False)
    if isinstance(error, requests.exceptions.ProxyError):
        problem = f"the HTTP proxy of this machine failed ({error}); check HTTP_PROXY, HTTPS_PROXY and NO_PROXY"
        return unreachable(cluster, problem, maybe_sent=False)
    if _cause(error, NewConnectionError):
        return unreachable(cluster, _REFUSED_HINT, maybe_sent=False)
    if isinstance(error, requests.exceptions.ConnectionError | ProtocolError):
        return unreachable(cluster, f"the connection was lost before the answer was complete ({error})")
    return RayProtocolError(
        f"{cluster.address}: the request can't be sent, or its answer not read: {error}", address=cluster.address
    )


class translating_aiohttp:  # noqa: N801 - used like a function
    """Context manager that translates errors of aiohttp into ours."""

    def __init__(self, cluster: ClusterConnection) -> None:
        self._cluster = cluster

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import aiohttp

        if isinstance(error, aiohttp.ClientError | TimeoutError | OSError) and not isinstance(error, RayJobsError):
            raise _translate_aiohttp(self._cluster, error) from None


def _translate_aiohttp(cluster: ClusterConnection, error: Exception) -> RayJobsError:
    import socket

    import aiohttp

    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return _tls_error(cluster, error)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        # The error's text contains the proxy's URL with its password.
        hint = f"the HTTP proxy of this machine refused the connection with HTTP {error.status}"
        return unreachable(cluster, hint, maybe_sent=False)
    if isinstance(error, aiohttp.WSServerHandshakeError):
        if error.status in REFUSED_STATUSES:
            text = ""  # aiohttp does not keep the text
            return error_of(
                Response(error.status, text, cluster.address, conn_id=cluster.conn_id, credentials=cluster.credentials)
            )
        return unreachable(cluster, f"the log stream was refused with HTTP {error.status}")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        hint = f"no connection within {cluster.connect_timeout:g} s; check the connection's host, port, and firewalls"
        return unreachable(cluster, hint, maybe_sent=False)
    if isinstance(error, TimeoutError):
        hint = f"no answer within {cluster.read_timeout:g} s; check that the Ray head is healthy"
        return unreachable(cluster, hint)
    if isinstance(error, aiohttp.ClientConnectorDNSError) or _cause(error, socket.gaierror):
        return unreachable(cluster, _NAME_HINT, maybe_sent=False)
    if isinstance(error, aiohttp.ClientConnectorError):
        return unreachable(cluster, _REFUSED_HINT, maybe_sent=False)
    if isinstance(error, aiohttp.InvalidURL):  # its text shows the URL
        return RayProtocolError(
            f"{cluster.address}: the request can't be sent: its URL is not valid", address=cluster.address
        )
    # Never use repr: for some errors of aiohttp it shows the request's headers, including the token.
    what = f"{type(error).__name__}: {error}"
    return unreachable(cluster, f"the connection was lost before the answer was complete ({what})")

"""
What ``requests`` and ``aiohttp`` raise, translated into errors of ``exceptions``; for the two transports only.

The originals are not chained to ours: some hold the URL of a proxy with its password.
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
    """Return the error for a request without a usable answer."""
    return RayClusterUnreachableError(f"{cluster.address}: {problem}", maybe_sent=maybe_sent)


def no_whole_answer(cluster: ClusterConnection, seconds: float) -> RayClusterUnreachableError:
    """Return the error for an answer that began, or not, and did not come to its end in time."""
    return unreachable(cluster, f"no whole answer within {seconds:g} s; check that the Ray head is healthy")


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


def translate_requests(
    cluster: ClusterConnection, error: requests.exceptions.RequestException | urllib3.exceptions.HTTPError
) -> RayJobsError:
    """Return our error for one of ``requests``, or of ``urllib3`` below it, which the reading of a body raises."""
    import socket

    import requests
    from urllib3.exceptions import NameResolutionError, NewConnectionError, ProtocolError, ReadTimeoutError

    if isinstance(error, requests.exceptions.SSLError):
        return _tls_error(cluster, _cause(error, ssl.SSLError) or error)
    if isinstance(error, requests.exceptions.ConnectTimeout):
        hint = f"no connection within {cluster.connect_timeout:g} s; check host, port and firewall"
        return unreachable(cluster, hint, maybe_sent=False)
    if isinstance(error, requests.exceptions.Timeout | ReadTimeoutError):
        hint = f"no answer within {cluster.read_timeout:g} s; check that the Ray head is healthy"
        return unreachable(cluster, hint)
    if _cause(error, NameResolutionError) or _cause(error, socket.gaierror):
        return unreachable(cluster, _NAME_HINT, maybe_sent=False)
    if isinstance(error, requests.exceptions.ProxyError):
        return unreachable(cluster, f"the HTTP proxy of this machine failed ({error})", maybe_sent=False)
    if _cause(error, NewConnectionError):
        return unreachable(cluster, _REFUSED_HINT, maybe_sent=False)
    if isinstance(error, requests.exceptions.ConnectionError | ProtocolError):
        return unreachable(cluster, f"the connection broke before the whole answer was there ({error})")
    return RayProtocolError(f"{cluster.address}: the request can't be sent or read: {error}")


class translating_aiohttp:  # noqa: N801 - reads as a function where it is used
    """Context manager that turns what aiohttp raises into our errors."""

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
        # Its text holds the proxy's URL, password included.
        hint = f"the proxy of this machine refused the connection with HTTP {error.status}"
        return unreachable(cluster, hint, maybe_sent=False)
    if isinstance(error, aiohttp.WSServerHandshakeError):
        if error.status in REFUSED_STATUSES:
            text = ""  # aiohttp keeps none
            return error_of(
                Response(error.status, text, cluster.address, conn_id=cluster.conn_id, credentials=cluster.credentials)
            )
        return unreachable(cluster, f"the log stream was refused with HTTP {error.status}")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        hint = f"no connection within {cluster.connect_timeout:g} s; check host, port and firewall"
        return unreachable(cluster, hint, maybe_sent=False)
    if isinstance(error, TimeoutError):
        hint = f"no answer within {cluster.read_timeout:g} s; check that the Ray head is healthy"
        return unreachable(cluster, hint)
    if isinstance(error, aiohttp.ClientConnectorDNSError) or _cause(error, socket.gaierror):
        return unreachable(cluster, _NAME_HINT, maybe_sent=False)
    if isinstance(error, aiohttp.ClientConnectorError):
        return unreachable(cluster, _REFUSED_HINT, maybe_sent=False)
    if isinstance(error, aiohttp.InvalidURL):  # which it shows
        return RayProtocolError(f"{cluster.address}: the request can't be sent: its URL is not valid")
    # Never repr: that of some of aiohttp's errors shows the request's headers, the token among them.
    what = f"{type(error).__name__}: {error}"
    return unreachable(cluster, f"the connection broke before the whole answer was there ({what})")

"""HTTP proxies of the environment, and TLS certificates, with the same rules for both HTTP libraries."""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_provider_rayjobs.exceptions import RayConnectionConfigError

if TYPE_CHECKING:
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection

#: The beginning of a URL with a scheme. A password may contain "://", too.
_WITH_SCHEME = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")


def http_proxy(cluster: ClusterConnection) -> str | None:
    """
    Return the proxy that ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` name, as ``requests`` does.

    :raises RayConnectionConfigError: the proxy's scheme is not supported, or its URL is not valid.
    """
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(cluster.address, get_environ_proxies(cluster.address))
    if not proxy:
        return None
    url = proxy if _WITH_SCHEME.match(proxy) else f"http://{proxy.removeprefix('//')}"
    if problem := _proxy_problem(url):
        raise RayConnectionConfigError(
            cluster.conn_id,
            "host",
            f"the proxy for it in the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) {problem}, or add the host to "
            "NO_PROXY",
        )
    return url


def _proxy_problem(url: str) -> str:
    """Return what is wrong with a proxy's URL, without showing it, since it may contain a password."""
    scheme = url.partition("://")[0]
    if scheme.lower() not in ("http", "https"):
        return f"has the scheme {scheme}, but only http and https are supported; use another proxy"
    from urllib3.util import parse_url

    try:
        parse_url(url)  # as requests does, whose error would show the URL
        parts = urlsplit(url)
        valid = (
            bool(parts.hostname) and parts.port != 0 and parts.path in ("", "/") and not parts.query + parts.fragment
        )
    except ValueError:
        valid = False
    return (
        ""
        if valid
        else "is not of the form http://user:password@host:port with special characters percent-encoded; correct it"
    )


def trusted(cluster: ClusterConnection) -> bool | str:
    """Return which certificates to trust: the connection's ``verify``, or the CA bundle of the environment."""
    if cluster.verify is not True:
        return cluster.verify
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True


def ssl_context(cluster: ClusterConnection) -> ssl.SSLContext:
    """
    Return the context for aiohttp, which trusts the same certificates as ``requests``. Takes about 20 ms of CPU.

    :raises RayConnectionConfigError: a file can't be read.
    """
    path = trusted(cluster)
    if path is True:
        from certifi import where  # a dependency of requests

        path = where()
    try:
        if path is False:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        else:
            folder = Path(path).is_dir()
            context = ssl.create_default_context(cafile=None if folder else path, capath=path if folder else None)
    except OSError as e:
        raise RayConnectionConfigError(cluster.conn_id, "verify", f"{path!r} can't be read ({e})") from e
    if cluster.client_cert:
        try:
            context.load_cert_chain(*cluster.client_cert)
        except OSError as e:
            raise RayConnectionConfigError(cluster.conn_id, "client_cert", f"can't be read ({e})") from e
    return context

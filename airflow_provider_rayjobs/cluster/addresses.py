"""
Resolves all forms of a cluster's address to ``http(s)://…``.

The forms are those of ``get_address_for_submission_client`` and ``parse_cluster_info`` (Ray's ``dashboard/utils.py``
and ``dashboard/modules/dashboard_sdk.py``), with one difference: the environment never overrides a connection's
address.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit, urlunsplit

from airflow_provider_rayjobs.cluster.authentication import import_allowed
from airflow_provider_rayjobs.exceptions import RayClusterUnreachableError, RayConnectionConfigError, RayJobsError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

DEFAULT_PORT = 8265
DEFAULT_ADDRESS = f"http://localhost:{DEFAULT_PORT}"

#: Variables that Ray's own client reads if it is given no address, in this order.
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")

#: What to write instead of an invalid address.
ADDRESS_HINT = "write http(s)://host:port, the address of the Ray dashboard"

#: Seconds that the ``ray`` package may take to find a cluster's dashboard.
RESOLVE_TIMEOUT = 60.0

#: Asks ``ray`` for the dashboard's address, and prints it as the last line, after any other output of Ray.
_ASK_RAY = """
import sys
from ray.dashboard import utils
ask = utils.ray_client_address_to_api_server_url if "://" in sys.argv[1] else utils.ray_address_to_api_server_url
print("\\n" + ask(sys.argv[1]), flush=True)
"""


@dataclass(frozen=True)
class GivenAddress:
    """
    An address before it is resolved.

    :param where: the connection's field or the environment variable that it comes from.
    :param text: the address.
    :param port: the connection's port.
    :param schema: the connection's schema.
    """

    where: str
    text: str
    port: int | None = None
    schema: str | None = None

    @property
    def module(self) -> str:
        """The module to ask: the ``module`` of ``module://inner``; empty for other forms."""
        scheme, separator, _ = self.text.partition("://")
        return scheme if separator and scheme.lower() not in ("http", "https", "ray") else ""

    @property
    def needs_ray(self) -> bool:
        """Whether only the ``ray`` package can resolve it."""
        # Ray itself writes the address of its GCS, not of a dashboard, into RAY_ADDRESS.
        bare = self.where == "RAY_ADDRESS" and "://" not in self.text
        return bare or self.text == "auto" or self.text.startswith("ray://")


def given_address(host: str, port: int | None, schema: str | None, environ: Mapping[str, str]) -> GivenAddress:
    """Return the connection's address, or the environment's if the connection has no host and no port."""
    host = host.strip()
    if host:
        return GivenAddress("host", host, port, schema)
    if port:
        return GivenAddress("host", "localhost", port, schema)
    name = next((name for name in ADDRESS_VARIABLES if environ.get(name)), None)
    return GivenAddress(name, environ[name].strip()) if name else GivenAddress("host", DEFAULT_ADDRESS)


def parse(conn_id: str, given: GivenAddress) -> str:
    """
    Build the URL from scheme, host, port and path prefix; parts of a full URL take precedence over defaults.

    :return: ``http(s)://host[:port][/prefix]`` without a slash at the end.
    :raises RayConnectionConfigError: the address is not valid, or contradicts the connection's port or schema.
    """

    def fail(where: str, problem: str) -> NoReturn:
        raise RayConnectionConfigError(conn_id, where, problem)

    text, where, schema = given.text, given.where, given.schema
    if "@" in text:
        fail(where, "must not contain a user or password; put them into the connection's login and password")
    text, query = re.split("[?#]", text + "?", maxsplit=1)  # a query may contain a secret, so messages don't show it
    whole = "://" in text
    scheme = (schema or "http").strip().lower().removesuffix("://")
    try:
        url = urlsplit(text if whole else f"{scheme}://{_bracketed(text)}")
        found_port = url.port
        _check_host_name(url.hostname or "")
    except ValueError as e:
        fail(where, f"{text!r} is not a valid address ({e}); {ADDRESS_HINT}")
    if url.scheme not in ("http", "https"):
        if not whole:  # don't show the schema: if Airflow split a URI wrongly, it may contain a password
            fail("schema", f"must be http or https; {ADDRESS_HINT}")
        fail(where, f"the scheme {url.scheme!r} is not supported; {ADDRESS_HINT}")
    if schema and url.scheme != scheme:
        fail("schema", f"contradicts the host, which begins with {url.scheme}://; remove one of the two")
    if not url.hostname or query.strip("?") or " " in text or not text.isprintable():
        fail(where, f"{text!r} is not a valid address; {ADDRESS_HINT}")
    if found_port and given.port and found_port != given.port:
        fail("port", f"is {given.port}, but the host has port {found_port}; remove one of the two")
    stated_port = given.port if found_port is None else found_port
    port = DEFAULT_PORT if stated_port is None and not whole else stated_port
    if port is not None and not 0 < int(port) < 65536:
        fail("port", f"must be between 1 and 65535, not {port}")
    name = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return urlunsplit((url.scheme, f"{name}:{port}" if port else name, url.path.rstrip("/"), "", ""))


def _check_host_name(name: str) -> None:
    """
    Check that a host name can be looked up.

    :raises ValueError: a part of it is empty or too long.
    """
    if name and ":" not in name:  # not an IPv6 address
        name.encode("idna")


def _bracketed(host: str) -> str:
    """Put a bare IPv6 address into brackets, as URLs require."""
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


def _refuse_parts(conn_id: str, given: GivenAddress) -> None:
    for where in ("port", "schema"):
        if getattr(given, where):
            raise RayConnectionConfigError(
                conn_id, where, "must be empty with this form of host; write it into the host instead"
            )


def ask_ray(conn_id: str, given: GivenAddress) -> str:
    """
    Ask the ``ray`` package for the dashboard of ``ray://host:port``, ``auto`` or a GCS address.

    It runs in a separate process: it connects, starts threads, and may hang or exit, which must not affect the worker.

    :return: an address for :func:`parse`.
    :raises RayConnectionConfigError: ``ray`` is not installed on this machine.
    :raises RayClusterUnreachableError: ``ray`` found no cluster.
    """
    _refuse_parts(conn_id, given)
    if importlib.util.find_spec("ray") is None:
        host = re.split("[:/]", given.text.removeprefix("ray://"))[0]
        head = "HEAD" if host in ("", "auto") else host
        raise RayConnectionConfigError(
            conn_id,
            given.where,
            f"{given.text!r} can only be resolved by the package 'ray', which is not installed here; write "
            f"http://{head}:{DEFAULT_PORT}, the address of the Ray dashboard",
        )
    environ = {name: value for name, value in os.environ.items() if name not in ADDRESS_VARIABLES}
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, and no shell
            [sys.executable, "-c", _ASK_RAY, given.text],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=RESOLVE_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        problem = f"Ray found no cluster within {RESOLVE_TIMEOUT:g} s"
        raise RayClusterUnreachableError(f"{given.text}: {problem}; {ADDRESS_HINT}", maybe_sent=False) from e
    if done.returncode == 0 and (lines := done.stdout.split()):
        return lines[-1]
    errors = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    problem = errors[-1][:500] if errors else f"exit code {done.returncode}"
    raise RayClusterUnreachableError(f"{given.text}: Ray found no cluster: {problem}; {ADDRESS_HINT}", maybe_sent=False)


def ask_module(
    conn_id: str, given: GivenAddress, allowed_modules: Collection[str], create_cluster_if_needed: bool, **pairs: Any
) -> Any:
    """
    Ask the module of a third-party job manager for a cluster's address, cookies, metadata and headers.

    Calls the module's ``get_job_submission_client_cluster_info``, as Ray's client does.

    :param allowed_modules: the modules that may be imported.
    :param create_cluster_if_needed: passed to the function.
    :param pairs: ``cookies``, ``metadata`` and ``headers``, passed to the function.
    :return: an object with ``address``, ``cookies``, ``metadata`` and ``headers``.
    :raises RayConnectionConfigError: the module is not allowed, can't be imported, or lacks the function.
    :raises RayClusterUnreachableError: the function raised.
    """
    _refuse_parts(conn_id, given)
    name, _, inner = given.text.partition("://")
    module = import_allowed(conn_id, given.where, name, allowed_modules)
    function = getattr(module, "get_job_submission_client_cluster_info", None)
    if not callable(function):
        problem = f"{name!r} has no function get_job_submission_client_cluster_info; {ADDRESS_HINT}"
        raise RayConnectionConfigError(conn_id, given.where, problem)
    given_pairs = {key: dict(value) or None for key, value in pairs.items()}
    try:
        return function(inner.rstrip("/"), create_cluster_if_needed=create_cluster_if_needed, **given_pairs)
    except RayJobsError:
        raise  # a kill interrupted the function
    except Exception as e:  # third-party code may raise anything
        problem = f"the module failed to return the cluster's address: {type(e).__name__}: {e}"
        raise RayClusterUnreachableError(f"{name}://: {problem}", maybe_sent=False) from e

"""
Every form in which a cluster's address is given, and the ``http(s)://…`` that it stands for.

The forms are those of ``get_address_for_submission_client`` and ``parse_cluster_info`` (Ray's ``dashboard/utils.py``
and ``dashboard/modules/dashboard_sdk.py``), but for one thing: the environment never overrides an address that is
given.
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

#: What Ray's own client reads when no address is given, in this order.
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")

#: What to write instead of an address that can't be used.
SHAPE = "write http(s)://host:port, the address of the Ray dashboard"

#: Seconds that the ``ray`` package may take to find a cluster's dashboard.
RESOLVE_TIMEOUT = 60.0

#: Asks ``ray`` for the dashboard's address. What Ray prints besides comes before the last line.
_ASK_RAY = """
import sys
from ray.dashboard import utils
ask = utils.ray_client_address_to_api_server_url if "://" in sys.argv[1] else utils.ray_address_to_api_server_url
print("\\n" + ask(sys.argv[1]), flush=True)
"""


@dataclass(frozen=True)
class Given:
    """
    An address as it was given.

    :param where: the connection's field, or the environment variable.
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
        """The module that is to be asked: the ``module`` of ``module://inner``; an empty text when there is none."""
        scheme, separator, _ = self.text.partition("://")
        return scheme if separator and scheme.lower() not in ("http", "https", "ray") else ""

    @property
    def needs_ray(self) -> bool:
        """Whether only the ``ray`` package knows what it stands for."""
        # Ray itself writes the address of its GCS, no dashboard's, into RAY_ADDRESS.
        bare = self.where == "RAY_ADDRESS" and "://" not in self.text
        return bare or self.text == "auto" or self.text.startswith("ray://")


def given_address(host: str, port: int | None, schema: str | None, environ: Mapping[str, str]) -> Given:
    """Return the address that a connection gives, or the environment when the connection's host is empty."""
    host = host.strip()
    if host:
        return Given("host", host, port, schema)
    if port:
        return Given("host", "localhost", port, schema)
    name = next((name for name in ADDRESS_VARIABLES if environ.get(name)), None)
    return Given(name, environ[name].strip()) if name else Given("host", DEFAULT_ADDRESS)


def parse(conn_id: str, given: Given) -> str:
    """
    Put scheme, host, port and path prefix together; a whole URL keeps what it says.

    :return: ``http(s)://host[:port][/prefix]`` without a slash at the end.
    :raises RayConnectionConfigError: the address is none.
    """

    def fail(where: str, problem: str) -> NoReturn:
        raise RayConnectionConfigError(conn_id, where, problem)

    text, where, schema = given.text, given.where, given.schema
    if "@" in text:
        fail(where, "holds a user or password; put them into the connection's login and password")
    text, query = re.split("[?#]", text + "?", maxsplit=1)  # a query may hold a secret, which no message shows
    whole = "://" in text
    scheme = (schema or "http").strip().lower().removesuffix("://")
    try:
        url = urlsplit(text if whole else f"{scheme}://{_bracketed(text)}")
        found_port = url.port
        _check_host_name(url.hostname or "")
    except ValueError as e:
        fail(where, f"{text!r} is no address ({e}); {SHAPE}")
    if url.scheme not in ("http", "https"):
        if not whole:  # a schema is not shown: what Airflow could not split may hold a password
            fail("schema", f"is neither http nor https; {SHAPE}")
        fail(where, f"{url.scheme!r} is not supported; {SHAPE}")
    if schema and url.scheme != scheme:
        fail("schema", f"is another one than {url.scheme}, which the host says; keep one of the two")
    if not url.hostname or query.strip("?") or " " in text or not text.isprintable():
        fail(where, f"{text!r} is no address; {SHAPE}")
    if found_port and given.port and found_port != given.port:
        fail("port", f"is {given.port}, but the host says {found_port}; keep one of the two")
    said = given.port if found_port is None else found_port
    number = DEFAULT_PORT if said is None and not whole else said
    if number is not None and not 0 < int(number) < 65536:
        fail("port", f"{number} is no port")
    name = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return urlunsplit((url.scheme, f"{name}:{number}" if number else name, url.path.rstrip("/"), "", ""))


def _check_host_name(name: str) -> None:
    """
    Check that a name can be looked up.

    :raises ValueError: a part of it is empty or too long.
    """
    if name and ":" not in name:  # of an IPv6 address
        name.encode("idna")


def _bracketed(host: str) -> str:
    """Write a bare IPv6 address as URLs want it."""
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


def _refuse_parts(conn_id: str, given: Given) -> None:
    for where in ("port", "schema"):
        if getattr(given, where):
            raise RayConnectionConfigError(conn_id, where, "is not used with this kind of host; write it into the host")


def ask_ray(conn_id: str, given: Given) -> str:
    """
    Have the ``ray`` package find the dashboard of ``ray://host:port``, ``auto`` or a GCS address.

    Ray is asked in a process of its own: it connects, starts threads and may hang or exit, which a worker must not.

    :return: an address for :func:`parse`.
    :raises RayConnectionConfigError: ``ray`` is not installed here.
    :raises RayClusterUnreachableError: ``ray`` found no cluster.
    """
    _refuse_parts(conn_id, given)
    if importlib.util.find_spec("ray") is None:
        host = re.split("[:/]", given.text.removeprefix("ray://"))[0]
        head = "HEAD" if host in ("", "auto") else host
        raise RayConnectionConfigError(
            conn_id,
            given.where,
            f"{given.text!r} can only be resolved where the package 'ray' is installed, which it is not here; write "
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
        raise RayClusterUnreachableError(f"{given.text}: {problem}; {SHAPE}", maybe_sent=False) from e
    if done.returncode == 0 and (lines := done.stdout.split()):
        return lines[-1]
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    problem = said[-1][:500] if said else f"exit code {done.returncode}"
    raise RayClusterUnreachableError(f"{given.text}: Ray found no cluster: {problem}; {SHAPE}", maybe_sent=False)


def ask_module(
    conn_id: str, given: Given, allowed_modules: Collection[str], create_cluster_if_needed: bool, **pairs: Any
) -> Any:
    """
    Have a third-party job manager say where a cluster is and what it wants to be sent.

    Calls the module's ``get_job_submission_client_cluster_info``, as Ray's client does.

    :param allowed_modules: the modules that may be imported.
    :param create_cluster_if_needed: passed on.
    :param pairs: ``cookies``, ``metadata`` and ``headers``, passed on.
    :return: an object with ``address``, ``cookies``, ``metadata`` and ``headers``.
    :raises RayConnectionConfigError: the module may not, or can't, be used.
    :raises RayClusterUnreachableError: the module failed.
    """
    _refuse_parts(conn_id, given)
    name, _, inner = given.text.partition("://")
    module = import_allowed(conn_id, given.where, name, allowed_modules)
    function = getattr(module, "get_job_submission_client_cluster_info", None)
    if not callable(function):
        problem = f"{name!r} has no function get_job_submission_client_cluster_info; {SHAPE}"
        raise RayConnectionConfigError(conn_id, given.where, problem)
    given_pairs = {key: dict(value) or None for key, value in pairs.items()}
    try:
        return function(inner.rstrip("/"), create_cluster_if_needed=create_cluster_if_needed, **given_pairs)
    except RayJobsError:
        raise  # a kill, which interrupted it
    except Exception as e:  # the job manager's own function raises what it likes
        problem = f"the module could not name the cluster: {type(e).__name__}: {e}"
        raise RayClusterUnreachableError(f"{name}://: {problem}", maybe_sent=False) from e

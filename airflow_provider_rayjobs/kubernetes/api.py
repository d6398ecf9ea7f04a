"""
Makes the calls of flows, with the hooks and the connection of Airflow's Kubernetes provider.

This is the only module that imports this provider, and only when a task runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import os
import re
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from airflow_provider_rayjobs.client.flows import run_flow, run_flow_async
from airflow_provider_rayjobs.client.threads import in_airflows_thread, in_own_thread
from airflow_provider_rayjobs.exceptions import RayKubernetesError, RayKubernetesRefusedError
from airflow_provider_rayjobs.kubernetes.calls import Call, Sleep
from airflow_provider_rayjobs.text.safe_text import one_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractContextManager

    from airflow_provider_rayjobs.kubernetes.calls import Flow

T = TypeVar("T")

#: Seconds for one call.
CALL_TIMEOUT = 30.0

#: Seconds for which a call is repeated while the API server is not reached, or asks to come back later.
PATIENCE = 300.0

#: Seconds before a call is repeated: at first, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0

#: Seconds for which a client of an event loop is used: the connection may change, and a pod's token rotates.
CLIENT_AGE = 60.0

#: Seconds for which a client without users stays open.
LINGER = 5.0

#: Statuses that ask to come back later.
_TRANSIENT = frozenset({429, 500, 502, 503, 504})

#: Statuses that flows handle; all others are errors of the request.
_EXPECTED = frozenset({404, 409, 410})

#: How Kubernetes words a missing right. Other 403s come from admission: a quota, a policy, a namespace that is ending.
_NO_RIGHT = re.compile(r'forbidden: User ".*" cannot ')

#: How its admission of new objects words a quota that is used up.
_QUOTA = "is forbidden: exceeded quota: "

#: Where a pod finds the credentials of its service account (``kubernetes.config.incluster_config``).
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

#: Longest part of an answer to show, in characters.
_MOST_SHOWN = 1000

MISSING_EXTRA = (
    "cluster=… needs Airflow's Kubernetes provider, which is not installed here; install it: "
    "pip install 'airflow-provider-rayjobs[kubernetes]'"
)


@contextlib.contextmanager
def _extra_needed() -> Any:
    """
    Say what to install if the Kubernetes provider is missing.

    :raises RayKubernetesRefusedError: it is missing.
    """
    try:
        yield
    except ImportError as e:
        if (e.name or "").partition(".")[0] not in ("kubernetes", "kubernetes_asyncio", "airflow"):
            raise
        raise RayKubernetesRefusedError(f"{MISSING_EXTRA} ({e})") from e


class KubeApi:
    """
    Runs flows in this thread, by ``KubernetesHook``.

    :param conn_id: Airflow connection of type ``kubernetes``.
    :param log: logger for the loss of contact.
    :param patience: seconds for which a call is repeated while the API server is not reached.
    :param breakable: context manager entered for each call and each pause; within it, a signal handler may interrupt.
    :param timeout: seconds for one call.
    :param connection: the connection, if this process has read it already: outside of tasks, hooks may not find it.
    :raises RayKubernetesRefusedError: if the Kubernetes provider is not installed.
    """

    def __init__(
        self,
        conn_id: str,
        log: Any,
        *,
        patience: float = PATIENCE,
        breakable: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        timeout: float = CALL_TIMEOUT,
        connection: Any = None,
    ) -> None:
        with _extra_needed():
            from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
        self.conn_id = conn_id
        self._hook: Any = KubernetesHook(conn_id=conn_id)
        if connection is not None:
            self._hook.get_connection = lambda _: connection
        self._timeout = timeout
        self._log = log
        self._patience = patience
        self._breakable = breakable
        self._apis: dict[bool, Any] = {}

    def namespace(self) -> str:
        """Return the connection's namespace, or an empty string."""
        with _translated(self.conn_id, None):
            return str(self._hook.get_namespace() or "")

    def configuration(self) -> Any:
        """Return the client's configuration: the API server's address, certificates, and the token."""
        with _translated(self.conn_id, None):
            return self._hook.api_client.configuration

    def run(self, flow: Flow[T]) -> T:
        """
        Run a flow to its end.

        :return: what the flow returns.
        :raises RayKubernetesError: what the flow raises.
        """
        patience = _Patience(self.conn_id, self._log, self._patience)
        return run_flow(flow, partial(self._perform, patience), RayKubernetesError)

    def _perform(self, patience: _Patience, step: Call | Sleep) -> Any:
        if isinstance(step, Sleep):
            self._pause(step.seconds)
            return None
        while True:
            try:
                with self._breakable(), _translated(self.conn_id, step):
                    answer = self._call(step)
            except RayKubernetesError as e:
                self._pause(patience.pause(e))
            else:
                patience.back()
                return answer

    def _pause(self, seconds: float) -> None:
        with self._breakable():
            time.sleep(seconds)

    def _call(self, call: Call) -> Any:
        from kubernetes import client

        api_client = self._hook.api_client
        if call.is_custom not in self._apis:
            self._apis[call.is_custom] = (client.CustomObjectsApi if call.is_custom else client.CoreV1Api)(api_client)
        answer = getattr(self._apis[call.is_custom], call.method)(**call.keywords, _request_timeout=self._timeout)
        return api_client.sanitize_for_serialization(answer)


class AsyncKubeApi:
    """
    Runs flows on an event loop, by ``AsyncKubernetesHook``; made by :func:`async_kube_api`.

    :param conn_id: Airflow connection of type ``kubernetes``.
    :param log: logger for the loss of contact.
    :param patience: seconds for which a call is repeated while the API server is not reached.
    """

    def __init__(self, conn_id: str, log: Any, patience: float = PATIENCE) -> None:
        self.conn_id = conn_id
        self._log = log
        self._patience = patience

    async def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end; returns and raises what :meth:`KubeApi.run` does."""
        patience = _Patience(self.conn_id, self._log, self._patience)
        return await run_flow_async(flow, partial(self._perform, patience), RayKubernetesError)

    async def _perform(self, patience: _Patience, step: Call | Sleep) -> Any:
        if isinstance(step, Sleep):
            await asyncio.sleep(step.seconds)
            return None
        while True:
            try:
                async with _client_of(self.conn_id) as api_client:
                    with _translated(self.conn_id, step):
                        answer = await self._call(api_client, step)
            except RayKubernetesError as e:
                await asyncio.sleep(patience.pause(e))
            else:
                patience.back()
                return answer

    async def _call(self, api_client: Any, call: Call) -> Any:
        from kubernetes_asyncio import client

        api = (client.CustomObjectsApi if call.is_custom else client.CoreV1Api)(api_client)
        # Else this client sends a merge patch as a list of operations; the other one does not know the argument.
        kind = {"_content_type": "application/merge-patch+json"} if call.verb == "patch" else {}
        async with asyncio.timeout(CALL_TIMEOUT):
            answer = await getattr(api, call.method)(**call.keywords, **kind)
        return api_client.sanitize_for_serialization(answer)


@contextlib.asynccontextmanager
async def async_kube_api(conn_id: str, log: Any, patience: float = PATIENCE) -> AsyncIterator[AsyncKubeApi]:
    """
    Provide what runs flows on this event loop; takes and raises what :class:`KubeApi` does.

    All users of a connection share a client: to make one takes some milliseconds for its certificates.
    """
    async with _client_of(conn_id):  # tells at once if the connection can't be used
        pass
    yield AsyncKubeApi(conn_id, log, patience)


class _SharedClient:
    """A client of one connection on one event loop, with the number of its users."""

    def __init__(self, conn_id: str) -> None:
        self._opened = contextlib.AsyncExitStack()
        self.opening = asyncio.create_task(_open(conn_id, self._opened))
        self.opened_at = self.idle_since = time.monotonic()
        self.users = 0
        self.closer: asyncio.Task[None] | None = None

    @property
    def is_usable(self) -> bool:
        """Whether new users may have it."""
        task = self.opening
        failed = task.done() and (task.cancelled() or task.exception() is not None)
        return not failed and time.monotonic() - self.opened_at < CLIENT_AGE

    async def close_when_idle(self, clients: dict[str, _SharedClient], conn_id: str) -> None:
        """Close the client some seconds after the last user has left, or when the event loop ends."""
        try:
            while self.users or time.monotonic() - self.idle_since < LINGER:  # noqa: ASYNC110 - closing is not urgent
                await asyncio.sleep(LINGER)
        finally:
            if clients.get(conn_id) is self:
                del clients[conn_id]
            await self._opened.aclose()


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _SharedClient]] = WeakKeyDictionary()


@contextlib.asynccontextmanager
async def _client_of(conn_id: str) -> AsyncIterator[Any]:
    """Provide the client of a connection on this event loop."""
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    shared = clients.get(conn_id)
    if shared is None or not shared.is_usable:
        shared = clients[conn_id] = _SharedClient(conn_id)
        # Airflow assigns log records to a trigger by its context. This task outlives the trigger: it gets an empty one.
        closing = shared.close_when_idle(clients, conn_id)
        shared.closer = asyncio.get_running_loop().create_task(closing, context=contextvars.Context())
    shared.users += 1
    try:
        # A trigger that is cancelled here must not cancel this for the other triggers.
        yield await asyncio.shield(shared.opening)
    finally:
        shared.users -= 1
        shared.idle_since = time.monotonic()


def _import_clients() -> None:
    """Import what :func:`_open` and :func:`_translated` need; this takes more than a second."""
    with _extra_needed():
        import kubernetes_asyncio.client  # noqa: F401


async def _open(conn_id: str, opened: contextlib.AsyncExitStack) -> Any:
    """
    Open the client of a connection.

    ``AsyncKubernetesHook`` does not look for a pod's own credentials when the connection names none, as
    ``KubernetesHook`` does, and may not find the connection under ``airflow dags test``. So both are done here.

    :param opened: what to close at the end.
    """
    await in_own_thread(_import_clients)
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook
    from kubernetes_asyncio.client import ApiClient, Configuration

    class Hook(AsyncKubernetesHook):  # type: ignore[misc]
        async def get_conn_extras(self) -> dict[str, Any]:
            return extras

    with _translated(conn_id, None):
        extras = dict((await in_airflows_thread(AsyncKubernetesHook.get_connection, conn_id)).extra_dejson)
        configuration = Configuration()
        if str(_field(extras, "disable_verify_ssl")).lower() == "true":
            configuration.verify_ssl = False
        in_cluster = _is_in_pod(extras) or bool(_field(extras, "in_cluster"))
        hook: Any = Hook(conn_id=conn_id, client_configuration=configuration, in_cluster=in_cluster or None)
        api_client = await opened.enter_async_context(hook.get_conn())
        if not in_cluster:
            # Older versions of the hook fill this configuration as well, but open a client without it.
            api_client = await opened.enter_async_context(ApiClient(configuration))
    return api_client


def _field(extras: Mapping[str, Any], name: str) -> Any:
    return extras.get(name) or extras.get(f"extra__kubernetes__{name}")


def _is_in_pod(extras: Mapping[str, Any]) -> bool:
    """Return whether this pod's own credentials are to be used: it has some, and the connection names no others."""
    if any(_field(extras, name) for name in ("in_cluster", "kube_config", "kube_config_path")):
        return False
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and _SERVICE_ACCOUNT.is_file()


class _Patience:
    """Decides how long calls are repeated, and logs the loss of contact once."""

    def __init__(self, conn_id: str, log: Any, seconds: float) -> None:
        self._conn_id = conn_id
        self._log = log
        self._seconds = seconds
        self._lost_at: float | None = None
        self._next = FIRST_PAUSE

    def pause(self, error: RayKubernetesError) -> float:
        """
        Return the seconds until the call is repeated.

        :raises RayKubernetesError: the error itself, if a repetition can't help, or the time is over.
        """
        if isinstance(error, RayKubernetesRefusedError) or (error.status and error.status not in _TRANSIENT):
            raise error
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
            if self._seconds:
                self._log.warning("%s; retrying for up to %.0f s", error, self._seconds)
        if now - self._lost_at >= self._seconds:
            raise error
        pause, self._next = self._next, min(self._next * 2, LONGEST_PAUSE)
        return pause

    def back(self) -> None:
        """Note that the API server answered."""
        if self._lost_at is not None:
            self._log.info("Kubernetes answers again after %.0f s", time.monotonic() - self._lost_at)
        self._lost_at, self._next = None, FIRST_PAUSE


@contextlib.contextmanager
def _translated(conn_id: str, call: Call | None) -> Any:
    """
    Turn the errors of the clients, and of reading the connection, into those of this provider.

    :raises RayKubernetesError: no usable answer, or an error that the flow may handle.
    :raises RayKubernetesRefusedError: the request, the connection or the rights are wrong.
    """
    from aiohttp import ClientError
    from airflow.providers.common.compat.sdk import AirflowException
    from kubernetes.client.exceptions import ApiException
    from kubernetes.config import ConfigException
    from kubernetes_asyncio.client.exceptions import ApiException as AsyncApiException
    from kubernetes_asyncio.config import ConfigException as AsyncConfigException
    from urllib3.exceptions import HTTPError

    where = f"Kubernetes (connection {conn_id!r})"
    try:
        yield
    except (ApiException, AsyncApiException) as e:
        raise _error_of(where, call, e) from None
    except (ConfigException, AsyncConfigException, AirflowException) as e:
        raise RayKubernetesRefusedError(f"{where}: the connection can't be used: {_shown(e)}") from e
    except (HTTPError, ClientError, OSError) as e:  # TimeoutError is an OSError
        what = f"{type(e).__name__}: {_shown(e)}".rstrip(": ")
        raise RayKubernetesError(f"{where} can't be reached{f' to {call}' if call else ''}: {what}") from None


def _error_of(where: str, call: Call | None, error: Any) -> RayKubernetesError:
    status = int(error.status or 0)
    said = _message_in(error)
    message = f"{where}: {call or 'the request'} failed: {f'{status} {said}'.strip()}"
    if status in _TRANSIENT or status in _EXPECTED or not status:
        return RayKubernetesError(message, status=status or None)
    if status == 401:
        message += "; the connection's credentials are missing, wrong or expired"
    elif status == 403 and _QUOTA in said:  # may become free, but not within the patience for one call
        return RayKubernetesError(f"{message}; a retry may find room, or raise the quota", status=status)
    elif status == 403 and call is not None and _NO_RIGHT.search(said):
        message += f"; give the connection's user a Role with the verb {call.verb!r} on {call.resource!r} there"
    return RayKubernetesRefusedError(message, status=status)


def _message_in(error: Any) -> str:
    """Return what the API server said: the ``message`` of its Status object, or the reason of the HTTP answer."""
    body = error.body
    if isinstance(body, bytes):
        body = body.decode(errors="replace")
    try:
        said = json.loads(body)["message"]
    except (TypeError, ValueError, KeyError):
        said = error.reason
    return _shown(said)


def _shown(text: object) -> str:
    return one_line(str(text), _MOST_SHOWN)

"""A scripted Kubernetes API server, for faults that a real one can't be made to have.

It keeps objects in memory and answers as an API server does: with ``Status`` objects, resource versions, finalizers
and watches. It checks neither fields nor rights: `tests/kube` has a real server for these.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import datetime
import json
import re
import secrets
import threading
import uuid
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
from aiohttp import web

from airflow_provider_rayjobs.testing.http_server import ScriptedHttp
from tests.support import answers, wire
from tests.support.answers import Answer, as_json

if TYPE_CHECKING:
    import ssl

    from airflow_provider_rayjobs.testing.http_server import Received

Object = dict[str, Any]

_RAY = "/apis/ray.io/v1"
_PATH = re.compile(
    r"(?P<group>/api/v1|/apis/[^/]+/[^/]+)(/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<kind>[a-z]+)(/(?P<name>[^/]+))?(/(?P<sub>status|proxy)(?P<rest>/.*)?)?"
)
_KINDS = {
    "rayjobs": "RayJob",
    "rayclusters": "RayCluster",
    "pods": "Pod",
    "events": "Event",
    "secrets": "Secret",
    "services": "Service",
}
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}

#: The path of the RayJobs of a namespace, for :meth:`ScriptedKube.script`; with a query or without.
RAYJOBS = rf"{_RAY}/namespaces/[^/]+/rayjobs(\?.*)?"
#: The path of one RayJob.
RAYJOB = rf"{_RAY}/namespaces/[^/]+/rayjobs/[^/]+(\?.*)?"


def refused(status: int, message: str = "the test says so", reason: str = "") -> Answer:
    """
    Return an error of an API server.

    :param status: the HTTP status; 403, 409, 410, 500, 503 or another.
    :param reason: the reason in the ``Status`` object; by default the usual one of the status.
    """
    return as_json(_status(status, message, reason), status)


def too_many(retry_after: int = 1) -> Answer:
    """
    Return the 429 of an API server that has too much to do.

    :param retry_after: seconds.
    """
    answer = refused(429, "Too many requests, please try again later.")
    return answer.but(headers=(("Retry-After", str(retry_after)),))


def etcd_times_out() -> Answer:
    """Return the 500 of an API server whose etcd does not answer: what was asked for may still have happened."""
    return refused(500, "etcdserver: request timed out")


def _status(code: int, message: str, reason: str = "") -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason or _REASONS.get(code, ""),
        "code": code,
    }


@dataclass(frozen=True)
class WatchEnd:
    """How one watch ends before its time.

    :param after: how many events are sent first.
    :param abort: reset the TCP connection; otherwise the response ends as after its time.
    :param hang: keep the connection open without sending anything.
    :param half_a_line: stop in the middle of an event, then reset the connection.
    :param error: send an event of type ``ERROR`` with this HTTP status, such as 410, and end.
    """

    after: int = 0
    abort: bool = False
    hang: bool = False
    half_a_line: bool = False
    error: int = 0


class _RefusedError(Exception):
    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.answer = refused(status, message, reason)


class ScriptedKube(ScriptedHttp):
    """Serves RayJobs, RayClusters, pods, events, secrets and services, except where :meth:`script` says otherwise.

    :param token: accept only requests with this bearer token; an empty string: accept all.
    :param tls: serve https with this context, see :meth:`tests.support.private_ca.PrivateCA.server_context`.
    """

    def __init__(self, token: str = "", tls: ssl.SSLContext | None = None) -> None:
        super().__init__(max_body=3 << 20, tls=tls)
        self.token = token
        #: The fields of a RayJob's spec that the server drops, because its KubeRay is older.
        self.unknown_fields: set[str] = set()
        #: The URLs of heads, by the namespace and the name of the services in front of them.
        self.heads: dict[tuple[str, str], str] = {}
        self._objects: dict[tuple[str, str, str], Object] = {}
        #: All changes: resource version, type, kind, and the object as it was then.
        self._changes: list[tuple[int, str, str, Object]] = []
        self._version = 100
        self._lock = threading.RLock()
        self._watch_ends: deque[WatchEnd] = deque()

    # For tests, from any thread

    @property
    def kubeconfig(self) -> Object:
        """A kubeconfig for this server, without a certificate: use it with plain HTTP."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "scripted", "cluster": {"server": self.url}}],
            "users": [{"name": "airflow", "user": {"token": self.token or "any"}}],
            "contexts": [{"name": "scripted", "context": {"cluster": "scripted", "user": "airflow"}}],
            "current-context": "scripted",
        }

    def put(self, kind: str, namespace: str, body: Object) -> Object:
        """
        Make an object, or change it.

        :param kind: the plural, such as ``rayjobs``.
        :param body: the object; it is merged into the one that is there.
        """
        with self._lock:
            key = (kind, namespace, body["metadata"]["name"])
            if key not in self._objects:
                return self._create(kind, namespace, body, with_status=True)
            return self._change(key, _merged(self._objects[key], body))

    def set_status(self, name: str, namespace: str = "default", **fields: Any) -> Object:
        """Change the status of a RayJob, as its controller does."""
        return self.put("rayjobs", namespace, {"metadata": {"name": name}, "status": fields})

    def find(self, kind: str, name: str, namespace: str = "default") -> Object | None:
        """Return an object; None if there is none."""
        with self._lock:
            return copy.deepcopy(self._objects.get((kind, namespace, name)))

    def all(self, kind: str) -> list[Object]:
        """Return all objects of a kind."""
        with self._lock:
            return [copy.deepcopy(one) for key, one in self._objects.items() if key[0] == kind]

    def remove(self, kind: str, name: str, namespace: str = "default") -> None:
        """Remove an object, whatever its finalizers."""
        with self._lock:
            self._remove((kind, namespace, name))

    def forget_changes(self) -> None:
        """Forget the past, as an API server does after some minutes: a watch from an older version is 410 then."""
        with self._lock:
            self._changes.clear()

    def watches(self, *ends: WatchEnd) -> None:
        """End the next watches in these ways, in order; later ones end at their time."""
        with self._lock:
            self._watch_ends.extend(ends)

    def clear(self) -> None:
        """Remove all scripts."""
        super().clear()
        with self._lock:
            self._watch_ends.clear()

    # Requests

    def default_answer(self, received: Received) -> Answer:
        """Do what an API server does; return its response."""
        if self.token and received.headers.get("authorization") != f"Bearer {self.token}":
            return refused(401, "Unauthorized")
        url = urlsplit(received.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        found = _PATH.fullmatch(url.path)
        if found is None or found["kind"] not in _KINDS:
            return answers.text(404, "404 page not found")
        try:
            with self._lock:
                return as_json(*self._do(received, found, query))
        except _RefusedError as error:
            return error.answer

    def _do(self, received: Received, found: re.Match[str], query: dict[str, str]) -> tuple[object, int]:
        kind, namespace, name = found["kind"], found["namespace"] or "", found["name"]
        if received.method == "POST" and not name:
            return self._create(kind, namespace, received.json), 201
        if received.method == "GET" and not name:
            return self._list(kind, namespace, query), 200
        key = (kind, namespace, name)
        if not name or key not in self._objects:
            raise _RefusedError(404, f'{kind}.ray.io "{name}" not found')
        if received.method == "GET":
            return copy.deepcopy(self._objects[key]), 200
        if received.method == "PATCH":
            if received.headers.get("content-type") != "application/merge-patch+json":
                raise _RefusedError(415, "the scripted server knows merge patches only")
            return self._patch(key, received.json, found["sub"] or ""), 200
        if received.method == "DELETE":
            return self._delete(key, received.json if received.body else {}), 200
        raise _RefusedError(405, "the server does not allow this method on the requested resource", "MethodNotAllowed")

    def _create(self, kind: str, namespace: str, body: Object, with_status: bool = False) -> Object:
        body = copy.deepcopy(body)
        meta = body.setdefault("metadata", {})
        if "name" not in meta:
            meta["name"] = f"{meta['generateName']}{secrets.token_hex(3)[:5]}"
        key = (kind, namespace, meta["name"])
        if key in self._objects:
            raise _RefusedError(409, f'{kind}.ray.io "{meta["name"]}" already exists', "AlreadyExists")
        if not with_status:
            body.pop("status", None)
        if kind == "rayjobs":
            for field in self.unknown_fields:
                body.get("spec", {}).pop(field, None)
        elif kind == "secrets":
            texts = body.pop("stringData", {})
            body.setdefault("data", {}).update(
                {name: base64.b64encode(value.encode()).decode() for name, value in texts.items()}
            )
        meta |= {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": _now(), "generation": 1}
        body |= {"apiVersion": "ray.io/v1" if kind.startswith("ray") else "v1", "kind": _KINDS[kind]}
        return self._store("ADDED", key, body)

    def _list(self, kind: str, namespace: str, query: dict[str, str]) -> Object:
        items = [
            copy.deepcopy(one)
            for key, one in self._objects.items()
            if key[0] == kind and namespace in {"", key[1]} and _is_selected(one, query)
        ]
        version = {"resourceVersion": str(self._version)}
        group = "ray.io/v1" if kind.startswith("ray") else "v1"
        return {"apiVersion": group, "kind": f"{_KINDS[kind]}List", "metadata": version, "items": items}

    def _patch(self, key: tuple[str, str, str], patch: Object, sub: str) -> Object:
        old = self._objects[key]
        for field in ("uid", "resourceVersion"):
            wanted = patch.get("metadata", {}).get(field, old["metadata"][field])
            if wanted != old["metadata"][field]:
                raise _RefusedError(
                    409,
                    f'Operation cannot be fulfilled on {key[0]}.ray.io "{key[2]}": the object has been modified; '
                    "please apply your changes to the latest version and try again",
                )
        allowed = {"status": patch.get("status", {})} if sub == "status" else {**patch, "status": {}}
        return self._change(key, _merged(old, allowed))

    def _change(self, key: tuple[str, str, str], new: Object) -> Object:
        if new.get("spec") != self._objects[key].get("spec"):
            new["metadata"]["generation"] += 1
        if "deletionTimestamp" in new["metadata"] and not new["metadata"].get("finalizers"):
            self._objects[key] = new
            return self._remove(key)
        return self._store("MODIFIED", key, new)

    def _delete(self, key: tuple[str, str, str], options: Object) -> Object:
        old = self._objects[key]
        for field, wanted in options.get("preconditions", {}).items():
            if old["metadata"][field] != wanted:
                raise _RefusedError(
                    409,
                    f'Operation cannot be fulfilled on {key[0]}.ray.io "{key[2]}": Precondition failed: {field} in '
                    f"precondition: {wanted}, {field} in object meta: {old['metadata'][field]}",
                )
        if old["metadata"].get("finalizers"):
            new = copy.deepcopy(old)
            new["metadata"].setdefault("deletionTimestamp", _now())
            return self._store("MODIFIED", key, new)
        self._remove(key)
        details = {"name": key[2], "group": "ray.io", "kind": key[0], "uid": old["metadata"]["uid"]}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def _remove(self, key: tuple[str, str, str]) -> Object:
        gone = self._objects.pop(key)
        self._version += 1
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._changes.append((self._version, "DELETED", key[0], copy.deepcopy(gone)))
        return gone

    def _store(self, change: str, key: tuple[str, str, str], new: Object) -> Object:
        self._version += 1
        new["metadata"]["resourceVersion"] = str(self._version)
        self._objects[key] = new
        self._changes.append((self._version, change, key[0], copy.deepcopy(new)))
        return copy.deepcopy(new)

    # Watches, and the proxy of services

    async def _respond(self, request: web.Request, received: Received, answer: Answer) -> web.StreamResponse:
        found = _PATH.fullmatch(request.path)
        if not answer.default or found is None or answer.drop:
            return await super()._respond(request, received, answer)
        if self.token and received.headers.get("authorization") != f"Bearer {self.token}":
            return await super()._respond(request, received, answer)
        if found["sub"] == "proxy":
            await asyncio.sleep(answer.delay)
            return await self._through_proxy(request, received, found)
        if request.query.get("watch") in {"1", "true"} and request.method == "GET":
            await asyncio.sleep(answer.delay)
            return await self._watch(request, found["kind"], found["namespace"] or "")
        return await super()._respond(request, received, answer)

    async def _watch(self, request: web.Request, kind: str, namespace: str) -> web.StreamResponse:
        with self._lock:
            end = self._watch_ends.popleft() if self._watch_ends else None
        query = dict(request.query)
        until = asyncio.get_running_loop().time() + float(query.get("timeoutSeconds", 1800))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        sent, version = 0, int(query.get("resourceVersion") or 0)
        try:
            while asyncio.get_running_loop().time() < until:
                if end is not None and sent == end.after:
                    await self._end_watch(request, response, end)
                    break
                event = self._next_event(kind, namespace, version, query)
                if event is None:
                    await asyncio.sleep(0.01)
                    continue
                await response.write(json.dumps(event).encode() + b"\n")
                if event["type"] == "ERROR":
                    break
                sent, version = sent + 1, int(event["object"]["metadata"]["resourceVersion"])
            await response.write_eof()
        except ConnectionError:
            pass  # the client has disconnected, or the script did
        return response

    def _next_event(self, kind: str, namespace: str, version: int, query: dict[str, str]) -> Object | None:
        with self._lock:
            if not version:  # first what there is, as of now
                now = [one for key, one in self._objects.items() if key[0] == kind and namespace in {"", key[1]}]
                selected = [one for one in now if _is_selected(one, query)]
                first = min(selected, key=lambda one: int(one["metadata"]["resourceVersion"]), default=None)
                return None if first is None else {"type": "ADDED", "object": copy.deepcopy(first)}
            known_since = self._changes[0][0] - 1 if self._changes else self._version
            if version < known_since:
                message = f"too old resource version: {version} ({known_since})"
                return {"type": "ERROR", "object": _status(410, message)}
            for number, change, of_kind, one in self._changes:
                fits = of_kind == kind and namespace in {"", one["metadata"]["namespace"]}
                if number > version and fits and _is_selected(one, query):
                    return {"type": change, "object": one}
        return None

    async def _end_watch(self, request: web.Request, response: web.StreamResponse, end: WatchEnd) -> None:
        if end.hang:
            while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            raise ConnectionResetError
        if end.error:
            failed = {"type": "ERROR", "object": _status(end.error, "the test says so")}
            await response.write(json.dumps(failed).encode() + b"\n")
        if end.half_a_line:
            await response.write(b'{"type":"MODIFIED","object":{"apiVersion":"ray.io/v1","kind":"RayJ')
        if (end.abort or end.half_a_line) and request.transport is not None:
            await wire.flush(request.transport)
            wire.reset(request.transport)
            raise ConnectionResetError

    async def _through_proxy(
        self, request: web.Request, received: Received, found: re.Match[str]
    ) -> web.StreamResponse:
        service = found["name"].partition(":")[0]
        head = self.heads.get((found["namespace"], service))
        if head is None:
            no_endpoints = refused(503, f'no endpoints available for service "{found["name"]}"')
            return await super()._respond(request, received, no_endpoints)
        url = f"{head}{found['rest'] or '/'}" + (f"?{request.query_string}" if request.query_string else "")
        # An API server keeps the token of Kubernetes to itself.
        left_out = {"host", "authorization", "content-length", "connection", "upgrade", "transfer-encoding"}
        headers = {
            name: value
            for name, value in received.headers.items()
            if name not in left_out and not name.startswith("sec-websocket")
        }
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            if "upgrade" in received.headers:
                return await _carry_websocket(request, session, url, headers)
            try:
                async with session.request(request.method, url, data=received.body or None, headers=headers) as answer:
                    body = await answer.read()
            except aiohttp.ClientError as error:
                return await super()._respond(
                    request, received, refused(503, f"error trying to reach service: {error}")
                )
        kind = answer.headers.get("Content-Type", "application/octet-stream")
        return web.Response(status=answer.status, headers={"Content-Type": kind}, body=body)


async def _carry_websocket(
    request: web.Request, session: aiohttp.ClientSession, url: str, headers: dict[str, str]
) -> web.StreamResponse:
    async with session.ws_connect(url, headers=headers) as inner:
        outer = web.WebSocketResponse()
        await outer.prepare(request)
        client = asyncio.ensure_future(outer.receive())  # the client sends only its close
        try:
            async for message in inner:
                await outer.send_str(str(message.data))
        finally:
            client.cancel()
            await asyncio.gather(client, return_exceptions=True)
        await outer.close(code=inner.close_code or 1000)
    return outer


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _merged(old: Any, patch: Any) -> Any:
    """Return what a JSON merge patch makes of a value."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    new = dict(old) if isinstance(old, dict) else {}
    for name, value in patch.items():
        if value is None:
            new.pop(name, None)
        else:
            new[name] = _merged(new.get(name), value)
    return new


def _is_selected(one: Object, query: dict[str, str]) -> bool:
    """Tell whether an object fits the selectors of a query; these know ``=`` only."""
    labels = one["metadata"].get("labels", {})
    for part in filter(None, query.get("labelSelector", "").split(",")):
        name, _, value = part.replace("==", "=").partition("=")
        if labels.get(name) != value:
            return False
    for part in filter(None, query.get("fieldSelector", "").split(",")):
        path, _, wanted = part.replace("==", "=").partition("=")
        found: Any = one
        for name in path.split("."):
            found = found.get(name, {})
        if found != wanted:
            return False
    return True

"""Answers the calls of flows from objects in memory: what a Kubernetes API server would, for tests without one."""

from __future__ import annotations

import copy
import itertools
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_rayjobs.client.flows import run_flow
from airflow_provider_rayjobs.exceptions import RayKubernetesError
from airflow_provider_rayjobs.kubernetes.calls import Call, Sleep

if TYPE_CHECKING:
    from airflow_provider_rayjobs.kubernetes.calls import Flow

T = TypeVar("T")


class Objects:
    """Objects by kind and name, in one namespace."""

    def __init__(self) -> None:
        self.of: dict[tuple[str, str], dict[str, Any]] = {}
        self.calls: list[Call] = []
        self.slept = 0.0
        #: Errors to answer with, by verb and resource.
        self.errors: dict[tuple[str, str], int] = {}
        #: How often the token of a list's next page has expired.
        self.expired = 0
        #: Namespace of the connection.
        self.own_namespace = ""
        self._uids = itertools.count(1)

    def namespace(self) -> str:
        """Return the connection's namespace."""
        return self.own_namespace

    def run(self, flow: Flow[T]) -> T:
        """Run a flow to its end."""
        return run_flow(flow, self.answer, RayKubernetesError)

    def add(self, resource: str, body: dict[str, Any]) -> dict[str, Any]:
        """Add an object."""
        body = copy.deepcopy(body)
        body["metadata"] |= {"uid": f"uid-{next(self._uids)}", "creationTimestamp": "2026-01-01T00:00:00Z"}
        self.of[resource, body["metadata"]["name"]] = body
        return body

    def answer(self, call: Call | Sleep) -> Any:
        """Answer one call."""
        if isinstance(call, Sleep):
            self.slept += call.seconds
            return None
        self.calls.append(call)
        if status := self.errors.get((call.verb, call.resource)):
            raise RayKubernetesError(f"{call} failed: {status}", status=status)
        return copy.deepcopy(getattr(self, f"_{call.verb}")(call.resource, **call.arguments))

    def _found(self, resource: str, name: str) -> dict[str, Any]:
        if (found := self.of.get((resource, name))) is None:
            raise RayKubernetesError(f"{name} not found", status=404)
        return found

    def _get(self, resource: str, name: str) -> Any:
        return self._found(resource, name)

    def _list(
        self, resource: str, *, limit: int, label_selector: str = "", field_selector: str = "", _continue: str = ""
    ) -> Any:
        if _continue and self.expired:
            self.expired -= 1
            raise RayKubernetesError("The provided continue parameter is too old", status=410)
        wanted = dict(pair.split("=") for pair in label_selector.split(",") if pair)
        items = [
            body
            for (kind, _), body in self.of.items()
            if kind == resource and wanted.items() <= body["metadata"].get("labels", {}).items()
        ]
        about = dict(pair.split("=") for pair in field_selector.split(",") if pair).get("involvedObject.name")
        items = [item for item in items if about in (None, item.get("involvedObject", {}).get("name"))]
        end = int(_continue or 0) + limit
        more = {"continue": str(end)} if end < len(items) else {}
        return {"metadata": more, "items": items[end - limit : end]}

    def _create(self, resource: str, body: dict[str, Any]) -> Any:
        if (resource, body["metadata"]["name"]) in self.of:
            raise RayKubernetesError("AlreadyExists", status=409)
        return self.add(resource, body)

    def _patch(self, resource: str, name: str, body: dict[str, Any]) -> Any:
        found = self._found(resource, name)
        if body["metadata"]["uid"] != found["metadata"]["uid"]:
            raise RayKubernetesError("metadata.uid: field is immutable", status=422)
        found["spec"] |= body["spec"]
        return found

    def _delete(self, resource: str, name: str, body: dict[str, Any]) -> Any:
        if body["preconditions"]["uid"] != self._found(resource, name)["metadata"]["uid"]:
            raise RayKubernetesError("the UID in the precondition does not match", status=409)
        return self.of.pop((resource, name))

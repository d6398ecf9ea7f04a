"""
Calls of the Kubernetes API, as data: flows yield them, and :mod:`~airflow_provider_rayjobs.kubernetes.api` makes them.

So each flow is written once for the worker and for the triggerer, and knows neither of the two clients.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

#: KubeRay's API group and version.
GROUP, VERSION = "ray.io", "v1"

RAYJOBS, RAYCLUSTERS, SECRETS, PODS, EVENTS = "rayjobs", "rayclusters", "secrets", "pods", "events"

#: Most objects in one page of a list.
MOST_LISTED = 200

#: The methods of the clients' ``CustomObjectsApi``, and of their ``CoreV1Api``. Both clients have the same names.
_CUSTOM = {
    "get": "get_namespaced_custom_object",
    "list": "list_namespaced_custom_object",
    "create": "create_namespaced_custom_object",
    "patch": "patch_namespaced_custom_object",
    "delete": "delete_namespaced_custom_object",
}
_CORE = {
    ("get", SECRETS): "read_namespaced_secret",
    ("list", PODS): "list_namespaced_pod",
    ("list", EVENTS): "list_namespaced_event",
}


@dataclass(frozen=True)
class Call:
    """
    One call of the Kubernetes API. Each may be repeated: a name, a uid or a precondition makes that safe.

    :param verb: RBAC's name of what is done.
    :param resource: plural name of the kind of object.
    :param namespace: where the object is.
    :param arguments: the other arguments of the client's method.
    """

    verb: str
    resource: str
    namespace: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_custom(self) -> bool:
        """Whether the object is KubeRay's."""
        return self.resource in (RAYJOBS, RAYCLUSTERS)

    @property
    def method(self) -> str:
        """Name of the client's method."""
        return _CUSTOM[self.verb] if self.is_custom else _CORE[self.verb, self.resource]

    @property
    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of the client's method."""
        kind = {"group": GROUP, "version": VERSION, "plural": self.resource} if self.is_custom else {}
        return {**kind, "namespace": self.namespace, **self.arguments}

    def __str__(self) -> str:
        """Return what RBAC calls it, for messages."""
        resource = f"{self.resource}.{GROUP}" if self.is_custom else self.resource
        name = self.arguments.get("name")
        return f"{self.verb} {resource}{f' {name!r}' if name else ''} in namespace {self.namespace!r}"


@dataclass(frozen=True)
class Sleep:
    """A pause of a flow, in seconds."""

    seconds: float


Flow = Generator[Call | Sleep, Any, T]


def get(resource: str, namespace: str, name: str) -> Call:
    """Return the call that reads one object."""
    return Call("get", resource, namespace, {"name": name})


def listed(resource: str, namespace: str, **selectors: str) -> Call:
    """Return the call that reads the objects with these labels or fields: the first page, or that of ``_continue``."""
    return Call("list", resource, namespace, {"limit": MOST_LISTED, **selectors})


def part(value: Any, *keys: str) -> Any:
    """Return a part of nested dicts, or None if a key is missing."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def text_at(value: Any, *keys: str) -> str:
    """Return a string in nested dicts, or an empty one."""
    found = part(value, *keys)
    return found if isinstance(found, str) else ""


def items_of(value: Any, *keys: str) -> list[Any]:
    """Return the dicts of a list in nested dicts."""
    found = part(value, *keys)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []

"""A small client of the Kubernetes API for the test bench, which shares no code with what it tests."""

from __future__ import annotations

from typing import Any

import requests

Object = dict[str, Any]

#: The API group of KubeRay's objects.
RAY = "/apis/ray.io/v1"
CORE = "/api/v1"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

_GROUPS = {"rayjobs": RAY, "rayclusters": RAY, "roles": "/apis/rbac.authorization.k8s.io/v1"}
_GROUPS["rolebindings"] = _GROUPS["roles"]


class ApiError(Exception):
    """The API server refused a request.

    :param status: the HTTP status.
    :param body: the ``Status`` object, or text.
    """

    def __init__(self, status: int, body: Any) -> None:
        self.status = status
        self.reason = body.get("reason", "") if isinstance(body, dict) else ""
        self.message = body.get("message", "") if isinstance(body, dict) else str(body)
        super().__init__(f"HTTP {status} {self.reason}: {self.message}")


def path_of(kind: str, namespace: str = "", name: str = "", sub: str = "") -> str:
    """
    Return the path of objects or of one object.

    :param kind: the plural, such as ``rayjobs`` or ``pods``.
    :param sub: a subresource, such as ``status``.
    """
    within = f"/namespaces/{namespace}" if namespace else ""
    return "/".join(filter(None, [f"{_GROUPS.get(kind, CORE)}{within}", kind, name, sub]))


class Api:
    """A client with one user's rights.

    :param url: URL of the API server.
    :param token: the user's bearer token.
    :param ca_file: the certificate authority of the server; an empty string for plain HTTP.
    """

    def __init__(self, url: str, token: str, ca_file: str = "") -> None:
        self.url = url
        self.token = token
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = ca_file or True
        self._session.headers["Authorization"] = f"Bearer {token}"

    def close(self) -> None:
        """Close its connections."""
        self._session.close()

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> requests.Response:
        """Send one request; return the response, whatever its status."""
        return self._session.request(method, self.url + path, json=body, params=query, headers=headers, timeout=30)

    def text(self, method: str, path: str) -> str:
        """Send one request; return the text of the response.

        :raises ApiError: if it is refused.
        """
        response = self.send(method, path)
        if not response.ok:
            raise ApiError(response.status_code, response.text)
        return response.text

    def request(self, method: str, path: str, body: object = None, **options: Any) -> Object:
        """Send one request; return the object of the response.

        :raises ApiError: if it is refused.
        """
        response = self.send(method, path, body, **options)
        try:
            data = response.json()
        except ValueError:
            data = response.text
        if not response.ok:
            raise ApiError(response.status_code, data)
        return data if isinstance(data, dict) else {"text": data}

    def get(self, kind: str, namespace: str, name: str) -> Object:
        """Return an object."""
        return self.request("GET", path_of(kind, namespace, name))

    def find(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return an object; None if there is none."""
        try:
            return self.get(kind, namespace, name)
        except ApiError as e:
            if e.status != 404:
                raise
            return None

    def list(self, kind: str, namespace: str = "", **query: str) -> list[Object]:
        """Return the objects of a namespace; by default, of all namespaces."""
        return list(self.request("GET", path_of(kind, namespace), query=query)["items"])

    def create(self, kind: str, namespace: str, body: Object) -> Object:
        """Create an object."""
        return self.request("POST", path_of(kind, namespace), body)

    def patch(self, kind: str, namespace: str, name: str, body: Object, sub: str = "") -> Object:
        """Merge a patch into an object or its subresource."""
        path = path_of(kind, namespace, name, sub)
        return self.request("PATCH", path, body, headers={"Content-Type": "application/merge-patch+json"})

    def delete(self, kind: str, namespace: str, name: str, **options: Any) -> None:
        """Delete an object; it is fine if there is none.

        :param options: fields of ``DeleteOptions``.
        """
        try:
            self.request("DELETE", path_of(kind, namespace, name), options or None)
        except ApiError as e:
            if e.status != 404:
                raise

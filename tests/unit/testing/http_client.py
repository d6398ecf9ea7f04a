"""A client of a scripted server that shows each answer as it comes."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_rayjobs.testing.http_server import ScriptedHttp

JOBS = "/api/jobs/"


class Client:
    """One connection, opened again when it broke."""

    def __init__(self, server: ScriptedHttp) -> None:
        self.connection = http.client.HTTPConnection(server.host, server.port, timeout=5)

    def send(self, method: str, path: str, data: Any = None, **headers: str) -> http.client.HTTPResponse:
        body = data if data is None or isinstance(data, bytes) else json.dumps(data)
        try:
            self.connection.request(method, path, body, headers)
            return self.connection.getresponse()
        except OSError:
            self.connection.close()
            raise

    def ask(self, method: str, path: str, data: Any = None, **headers: str) -> tuple[int, str]:
        response = self.send(method, path, data, **headers)
        return response.status, response.read().decode()

    def job(self, submission_id: str) -> dict[str, Any]:
        status, text = self.ask("GET", JOBS + submission_id)
        assert status == 200
        details: dict[str, Any] = json.loads(text)
        return details

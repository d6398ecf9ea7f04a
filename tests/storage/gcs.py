"""A server with the API of Google Cloud Storage."""

from __future__ import annotations

import json
import re
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any

from tests.storage.server import Server

if TYPE_CHECKING:
    from collections.abc import Sequence

_REQUEST = re.compile(r'^"([A-Z]+) (\S+) HTTP/1.1" \d+', re.MULTILINE)


class GCS(Server):
    """The server. It asks for no credentials, and can't cancel an upload in parts."""

    scheme, needed = "gs", "smart_open[gcs]"
    conn_id = "gcp_x"
    most = 60 * 10**6
    _ready = "/storage/v1/b?project=p"

    def _command(self, port: int) -> Sequence[str]:
        return ["gcp_storage_emulator", "start", "--host=127.0.0.1", f"--port={port}", "--in-memory"]

    @property
    def environment(self) -> dict[str, str]:
        # gcsfs asks for the kind of a bucket by gRPC, which this server does not have.
        return {"STORAGE_EMULATOR_HOST": self.url, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}

    @property
    def connection(self) -> dict[str, Any]:
        return {"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True, "project": "p"}}

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    def new_bucket(self) -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self._ask("/storage/v1/b?project=p", {"name": name})
        return name

    def objects(self, bucket: str) -> dict[str, int]:
        return {item["name"]: int(item["size"]) for item in self._ask(f"/storage/v1/b/{bucket}/o").get("items", [])}

    def requests(self, bucket: str) -> list[str]:
        return [method for method, path in _REQUEST.findall(self.log) if f"/b/{bucket}/o" in path]

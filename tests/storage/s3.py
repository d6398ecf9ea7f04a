"""A server with the API of S3."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

from tests.storage.server import Server

if TYPE_CHECKING:
    from collections.abc import Sequence

_REQUEST = re.compile(r'"([A-Z]+) (\S+) HTTP/1.1" \d+')

#: The server accepts any.
KEY, SECRET, REGION = "key-of-tests", "secret-of-tests", "us-east-1"


class S3(Server):
    """The server."""

    scheme, needed = "s3", "smart_open[s3]"
    conn_id, secret = "aws_x", SECRET
    most = 400 * 10**6
    _ready = "/moto-api/data.json"

    def _command(self, port: int) -> Sequence[str]:
        return ["moto.server", "-H", "127.0.0.1", "-p", str(port)]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
        }

    @property
    def connection(self) -> dict[str, Any]:
        extra = {"endpoint_url": self.url, "region_name": REGION}
        return {"conn_type": "aws", "login": KEY, "password": SECRET, "extra": extra}

    def _client(self) -> Any:
        import boto3

        options = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": REGION}
        return boto3.client("s3", endpoint_url=self.url, **options)

    def new_bucket(self) -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self._client().create_bucket(Bucket=name)
        return name

    def objects(self, bucket: str) -> dict[str, int]:
        found = self._client().list_objects_v2(Bucket=bucket).get("Contents", [])
        return {item["Key"]: item["Size"] for item in found}

    def keep(self, bucket: str, rule: Any) -> None:
        """Set a bucket's lifecycle rules."""
        self._client().put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rule)

    def unfinished(self, bucket: str) -> list[Any]:
        """Return the uploads in parts that have not ended."""
        found: list[Any] = self._client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return found

    def requests(self, bucket: str) -> list[str]:
        return [method for method, path in _REQUEST.findall(self.log) if path.startswith(f"/{bucket}/")]

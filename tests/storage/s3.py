"""A server with S3's API, on the loopback address."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any

from tests.support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

_REQUEST = re.compile(r'"([A-Z]+) (\S+) HTTP/1.1" (\d+)')

#: The server accepts any.
KEY, SECRET, REGION = "key-of-tests", "secret-of-tests", "us-east-1"


class S3:
    """
    The server; it keeps what it gets in memory.

    :param folder: for its log, from which its requests are known.
    """

    def __init__(self, folder: Path) -> None:
        self._log = folder / "s3.log"
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> S3:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{self._log.read_text()}")
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=5).close()
        except OSError:
            return False
        return True

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which boto3 reaches the server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
        }

    @property
    def connection(self) -> dict[str, Any]:
        """Fields of an Airflow connection to the server."""
        extra = {"endpoint_url": self.url, "region_name": REGION}
        return {"conn_type": "aws", "login": KEY, "password": SECRET, "extra": extra}

    def _client(self) -> Any:
        import boto3

        options = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": REGION}
        return boto3.client("s3", endpoint_url=self.url, **options)

    def new_bucket(self) -> str:
        """Make a bucket and return its name."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self._client().create_bucket(Bucket=name)
        return name

    def objects(self, bucket: str) -> dict[str, int]:
        """Return the sizes of a bucket's objects."""
        found = self._client().list_objects_v2(Bucket=bucket).get("Contents", [])
        return {item["Key"]: item["Size"] for item in found}

    def unfinished(self, bucket: str) -> list[Any]:
        """Return the uploads in parts that have not ended."""
        found: list[Any] = self._client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
        return found

    def requests(self, bucket: str) -> list[str]:
        """Return the methods of all requests so far to a bucket's objects."""
        found = _REQUEST.findall(self._log.read_text(errors="replace"))
        return [method for method, path, _ in found if path.startswith(f"/{bucket}/")]

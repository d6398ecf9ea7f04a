"""Code, functions and results that go through object storage: whole, once; and what nodes and workers need for it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.compat.package_folder import PIECE, PackageFolder
from airflow_provider_rayjobs.decorators import RayJobDecoratedOperator
from airflow_provider_rayjobs.exceptions import RayJobFailedError, RayPackageError
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from tests.storage.s3 import S3
from tests.support.tries import Tries

if TYPE_CHECKING:
    from tests.storage.conftest import Bucket
    from tests.support.ray_head import RayHead

# How gcsfs sends the pieces of an upload.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body directly with raw bytes:ResourceWarning")


def connect(monkeypatch: pytest.MonkeyPatch, head: RayHead, url: str) -> None:
    connection = head.connection(extra={"package_folder": url})
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(connection))


def submitted(head: RayHead, path: Path, entrypoint: str) -> tuple[str, dict[str, Any]]:
    """Submit a job with a ``working_dir``; return its log and its runtime_env."""
    hook = RayJobHook("ray_x")
    job = hook.submit_job(entrypoint=entrypoint, runtime_env={"working_dir": str(path)})
    details = head.wait_job(job)
    hook.close()
    assert details["status"] == "SUCCEEDED", (details, head.logs(job))
    return head.logs(job), details["runtime_env"]


def large_file(path: Path, size: int) -> str:
    """Write a file that can't be compressed, and return its digest."""
    content = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(size // 10**6):
            content.update(piece := os.urandom(10**6))
            file.write(piece)
    return content.hexdigest()


def test_large_code(storage_head: RayHead, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """400 MB to S3, 60 MB to the server for Google Cloud Storage."""
    connect(monkeypatch, storage_head, bucket.folder)
    digest = large_file(tmp_path / "weights", bucket.server.most)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    log, runtime_env = submitted(storage_head, tmp_path, "sha256sum weights")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert digest in log
    assert grown < 200, f"{grown} MiB of memory"
    [(key, size)] = bucket.objects.items()
    assert size > bucket.server.most
    assert runtime_env == {"working_dir": f"{bucket.server.scheme}://{bucket.name}/{key}"}

    first = len(bucket.requests)
    log, again = submitted(storage_head, tmp_path, "sha256sum weights")
    assert digest in log
    assert again == runtime_env
    assert set(bucket.requests[first:]) <= {"HEAD", "GET"}
    assert bucket.requests[first:].count("HEAD") <= 2  # ours, and one of a node that has not kept the package


def test_400_mb_through_a_mounted_folder(
    storage_head: RayHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, folder = tmp_path / "code", tmp_path / "packages"
    code.mkdir()
    folder.mkdir()
    connect(monkeypatch, storage_head, f"file://{folder}")
    digest = large_file(code / "weights", 400 * 10**6)
    log, runtime_env = submitted(storage_head, code, "sha256sum weights")
    [package] = folder.iterdir()
    written = package.stat()
    assert digest in log
    assert written.st_size > 400 * 10**6
    log, again = submitted(storage_head, code, "sha256sum weights")
    assert digest in log
    assert again == runtime_env == {"working_dir": f"file://{package}"}
    assert package.stat() == written


def test_a_function_and_its_calls(storage_head: RayHead, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, storage_head, bucket.folder)

    def double(number: int) -> int:
        return 2 * number

    for number in (1, 2):
        operator = RayJobDecoratedOperator(
            task_id="t", python_callable=double, op_args=[number], ray_conn_id="ray_x", deferrable=False
        )
        assert Tries(lambda operator=operator: operator, f"{bucket.name}-{number}").run() == 2 * number
    assert len(bucket.objects) == 3
    assert len([method for method in bucket.requests if method in ("PUT", "POST")]) == 3


def test_a_result_of_more_than_16_mib(storage_head: RayHead, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    if bucket.server.scheme == "s3":
        pytest.skip("s3fs needs another botocore than the nodes have")
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps(storage_head.connection()))
    code = "from airflow_provider_rayjobs.job import report_result as r; [r(x * 17_000_000) for x in 'ab']"
    operator = RaySubmitJobOperator(
        task_id="t",
        entrypoint=["python", "-c", code],
        read_result=True,
        result_path=bucket.folder,
        ray_conn_id="ray_x",
        deferrable=False,
    )
    assert Tries(lambda: operator, bucket.name).run() == "b" * 17_000_000
    [(key, size)] = bucket.objects.items()
    assert (key.split("/")[0], size) == ("ray", 17_000_002)


def test_an_upload_that_is_broken_off_leaves_nothing(bucket: Bucket) -> None:
    class Content:
        def __len__(self) -> int:
            return 3 * PIECE

        def __iter__(self) -> Any:
            yield bytes(2 * PIECE)
            raise KeyboardInterrupt

    store = PackageFolder("ray_x", bucket.folder)
    with pytest.raises(KeyboardInterrupt):
        store.put("a.zip", Content)
    assert bucket.objects == {}
    assert not store.has("a.zip")
    if isinstance(bucket.server, S3):
        assert bucket.server.unfinished(bucket.name) == []


def test_a_bucket_or_a_connection_that_is_absent_is_told(bucket: Bucket) -> None:
    scheme, conn_id = bucket.server.scheme, bucket.server.conn_id
    with pytest.raises(
        RayPackageError,
        match=rf"package_folder '{scheme}://{conn_id}@no-bucket/x' can't be written \(.*{scheme}://conn_id@bucket",
    ):
        PackageFolder("ray_x", f"{scheme}://{conn_id}@no-bucket/x").put("a.zip", lambda: [b"1"])
    with pytest.raises(RayPackageError, match=rf"package_folder '{scheme}://absent@.*check the URL, and its Airflow"):
        PackageFolder("ray_x", f"{scheme}://absent@{bucket.name}/x").has("a.zip")


def test_the_rule_for_old_packages_in_the_documentation_is_valid(s3: S3) -> None:
    page = (Path(__file__).parents[2] / "docs/local-files.md").read_text()
    for_s3, _ = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    s3.keep(s3.new_bucket(), json.loads(for_s3))


def test_nodes_without_smart_open_are_told(
    ray_head: RayHead, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, ray_head, bucket.folder)
    (tmp_path / "main.py").write_text("")
    operator = RaySubmitJobOperator(
        task_id="t",
        entrypoint="true",
        runtime_env={"working_dir": str(tmp_path)},
        ray_conn_id="ray_x",
        deferrable=False,
    )
    with pytest.raises(RayJobFailedError) as caught:
        Tries(lambda: operator, bucket.name).run()
    assert f"install {bucket.server.needed} into the image" in str(caught.value)
    assert not bucket.server.secret or bucket.server.secret not in str(caught.value)

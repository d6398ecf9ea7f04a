"""Code and functions that go through S3: of any size, unchanged, once; and what nodes and workers need for it."""

from __future__ import annotations

import hashlib
import json
import os
import resource
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.compat.package_folder import PIECE, PackageFolder
from airflow_provider_rayjobs.decorators import RayJobDecoratedOperator
from airflow_provider_rayjobs.exceptions import RayJobFailedError, RayPackageError
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from tests.storage.s3 import SECRET
from tests.support.tries import Tries

if TYPE_CHECKING:
    from pathlib import Path

    from tests.storage.s3 import S3
    from tests.support.ray_head import RayHead

SIZE = 400 * 10**6


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


def test_400_mb_of_code(ray_s3: RayHead, s3: S3, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, ray_s3, f"s3://aws_x@{bucket}/ray")
    content = hashlib.sha256()
    with (tmp_path / "weights").open("wb") as file:
        for _ in range(SIZE // 10**6):
            content.update(piece := os.urandom(10**6))
            file.write(piece)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    log, runtime_env = submitted(ray_s3, tmp_path, "sha256sum weights")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert content.hexdigest() in log
    assert grown < 200, f"{grown} MiB of memory"
    [(key, size)] = s3.objects(bucket).items()
    assert size > SIZE
    assert runtime_env == {"working_dir": f"s3://{bucket}/{key}"}

    first = len(s3.requests(bucket))
    log, again = submitted(ray_s3, tmp_path, "sha256sum weights")
    assert content.hexdigest() in log
    assert again == runtime_env
    assert set(s3.requests(bucket)[first:]) <= {"HEAD", "GET"}
    assert s3.requests(bucket)[first:].count("HEAD") <= 2  # ours, and one of a node that has not kept the package


def test_a_function_and_its_calls(ray_s3: RayHead, s3: S3, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, ray_s3, f"s3://aws_x@{bucket}/ray")

    def double(number: int) -> int:
        return 2 * number

    for number in (1, 2):
        operator = RayJobDecoratedOperator(
            task_id="t", python_callable=double, op_args=[number], ray_conn_id="ray_x", deferrable=False
        )
        assert Tries(lambda operator=operator: operator, f"run{number}").run() == 2 * number
    assert len(s3.objects(bucket)) == 3
    assert s3.requests(bucket).count("PUT") == 3


def test_an_upload_that_is_broken_off_leaves_nothing(s3: S3, bucket: str) -> None:
    class Content:
        def __len__(self) -> int:
            return 3 * PIECE

        def __iter__(self) -> Any:
            yield bytes(2 * PIECE)
            raise KeyboardInterrupt

    store = PackageFolder("ray_x", f"s3://aws_x@{bucket}/ray")
    with pytest.raises(KeyboardInterrupt):
        store.put("a.zip", Content)
    assert s3.objects(bucket) == {}
    assert s3.unfinished(bucket) == []
    assert not store.has("a.zip")


def test_a_bucket_or_a_connection_that_is_absent_is_told(bucket: str) -> None:
    with pytest.raises(
        RayPackageError, match=r"package_folder 's3://aws_x@no-bucket/x' can't be written \(.*check the"
    ):
        PackageFolder("ray_x", "s3://aws_x@no-bucket/x").put("a.zip", lambda: [b"1"])
    with pytest.raises(RayPackageError, match=r"package_folder 's3://absent@.*check the URL, and its Airflow"):
        PackageFolder("ray_x", f"s3://absent@{bucket}/x").has("a.zip")


def test_nodes_without_smart_open_are_told(
    s3: S3, ray_head: RayHead, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, ray_head, f"s3://aws_x@{bucket}/ray")
    (tmp_path / "main.py").write_text("")
    operator = RaySubmitJobOperator(
        task_id="t",
        entrypoint="true",
        runtime_env={"working_dir": str(tmp_path)},
        ray_conn_id="ray_x",
        deferrable=False,
    )
    with pytest.raises(RayJobFailedError, match=r"install smart_open\[s3\] into the image") as caught:
        Tries(lambda: operator, "run").run()
    assert SECRET not in str(caught.value)

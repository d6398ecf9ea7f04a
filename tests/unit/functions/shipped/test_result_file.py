"""The file that a job leaves: beside which log, and of which submission."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.functions.result import parse_record
from airflow_provider_rayjobs.functions.shipped import result_file

if TYPE_CHECKING:
    from pathlib import Path

PRINT_LOG = (
    "from airflow_provider_rayjobs.functions.shipped.result_file import job_log; print(job_log(), file=open('{}', 'w'))"
)


@pytest.mark.parametrize("redirect", ["", "> /dev/null", "> /dev/null 2>&1", "2>&1 | cat"])
def test_the_log_is_found_wherever_the_output_goes(tmp_path: Path, redirect: str) -> None:
    log, found = tmp_path / "job-driver-a.b.log", tmp_path / "found"
    command = f'"{sys.executable}" -c "{PRINT_LOG.format(found)}" {redirect}; true'
    with log.open("ab") as output:
        subprocess.run(command, shell=True, stdout=output, stderr=output, check=True)
    assert found.read_text().strip() == str(log)
    assert result_file.result_beside(log) == tmp_path / "job-driver-a.b.result"


def test_no_log_of_a_job_is_an_error(tmp_path: Path) -> None:
    with (tmp_path / "worker-1.out").open("ab") as output:
        command = [sys.executable, "-c", PRINT_LOG.format(tmp_path / "found")]
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert f"the standard output goes to {tmp_path}/worker-1.out, not to the log of a Ray job" in done.stderr


def test_a_result_that_another_process_replaces_meanwhile_is_not_mixed_with_it(tmp_path: Path) -> None:
    output = tmp_path / "job-driver-a.b.result"
    store = result_file.store_for(f"file://{tmp_path}/store", output)
    assert store is not None
    one, two = store('"one"'), store('"two"')
    result_file.write_record(output, "stored", "", of='"two"', key=two.key)
    result_file.write_record(output, "stored", "", of='"one"', key=one.key)
    record = parse_record(output.read_bytes(), "job", None)
    assert (record.key, record.size) == (one.key, 5)
    assert (tmp_path / "store" / f"a.b.{one.key}.json").read_text() == '"one"'
    one.remove()
    assert [file.name for file in (tmp_path / "store").iterdir()] == [f"a.b.{two.key}.json"]


def test_a_worker_from_before_an_upgrade_refuses_a_record_with_a_name_that_it_does_not_know(tmp_path: Path) -> None:
    formats = []
    for key in (None, "0123456789abcdef"):
        result_file.write_record(tmp_path / "file", "stored" if key else "value", "1", key=key)
        formats.append(json.loads((tmp_path / "file").read_text().splitlines()[0])["format"])
    assert formats == [1, 2]  # it knows 1 only


def test_a_result_that_no_worker_can_read_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result_file, "STORED_LIMIT", 10)
    store = result_file.store_for(f"file://{tmp_path}/store", tmp_path / "job-driver-a.result")
    assert store is not None
    with pytest.raises(
        ValueError, match="the value has 11 bytes as JSON, and a task returns at most 10; store it yourself"
    ):
        store("1" * 11)
    assert not (tmp_path / "store").exists()


def test_a_result_that_a_worker_lacks_the_memory_for_is_not_stored(tmp_path: Path) -> None:
    store = result_file.store_for(f"file://{tmp_path}/store", tmp_path / "job-driver-a.result")
    assert store is not None
    with pytest.raises(ValueError, match="100,000,001 bytes as JSON, and a task returns at most 100,000,000"):
        store("1" * 100_000_001)


def test_object_storage_gets_a_result_through_fsspec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    store = result_file.store_for("memory://conn@bucket/results/", tmp_path / "job-driver-a.result")
    assert store is not None
    stored = store('"x"')
    files = fsspec.filesystem("memory")
    assert files.find("/bucket/results") == [f"/bucket/results/a.{stored.key}.json"]
    assert files.cat(f"/bucket/results/a.{stored.key}.json") == b'"x"'
    stored.remove()
    assert files.find("/bucket/results") == []


def test_a_storage_that_a_node_does_not_know_is_named(tmp_path: Path) -> None:
    said = (
        "report can't be stored in result_path odd://bucket: ValueError: .*; the cluster's nodes need fsspec's package"
    )
    with pytest.raises(RuntimeError, match=said):
        result_file.store_for("odd://bucket", tmp_path / "job-driver-a.result", "report")


@pytest.mark.parametrize(
    ("variable", "expected"),
    [(None, None), ("", None), ("{}", None), ('{"metadata": {"airflow_submission": "s1"}}', "s1")],
)
def test_ray_tells_a_job_its_submission(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str | None, expected: str | None
) -> None:
    monkeypatch.delenv(result_file.CONFIG_VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(result_file.CONFIG_VARIABLE, variable)
    result_file.write_record(tmp_path / "file", "value", "1")
    assert json.loads((tmp_path / "file").read_text().splitlines()[0])["submission"] == expected

"""Large results as workers read them from a folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.compat import result_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_what_this_airflow_can_read_needs_no_provider() -> None:
    result_folder.check_installed("file:///results")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("gs://b", "'gs://b' can't be read: install apache-airflow-providers-google on the Airflow workers"),
        (
            "unknown://b",
            "'unknown://b' can't be read: install the Airflow provider for unknown:// on the Airflow workers",
        ),
    ],
)
def test_a_scheme_without_a_provider_is_refused(monkeypatch: pytest.MonkeyPatch, url: str, said: str) -> None:
    monkeypatch.setattr(result_folder, "_has_filesystem", lambda _: False)
    with pytest.raises(ValueError, match=said):
        result_folder.check_installed(url)


def test_no_more_is_read_than_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    assert result_folder.read(f"file://{tmp_path}/file", 4) == b"0123"


@pytest.mark.parametrize("make_it", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, make_it: Callable[[Path], None]) -> None:
    make_it(tmp_path / "file")
    with pytest.raises(IsADirectoryError):
        result_folder.read(f"file://{tmp_path}/file", 4)


def test_the_remedy_for_a_folder_is_to_mount_it() -> None:
    said = result_folder.remedy("file:///results/x.json", PermissionError("x"))
    assert said.startswith("mount the folder of result_path on all Airflow workers")

"""The temporary file of a package: within its limit, and in bounded memory."""

from __future__ import annotations

import logging
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.exceptions import RayPackageTooLargeError
from tests.support.packages import MIB, content, packed

if TYPE_CHECKING:
    from pathlib import Path


def test_too_large_a_package_names_the_largest_files_and_the_remedy(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"part{number}").write_bytes(os.urandom((number + 1) * 10_000))
    with pytest.raises(RayPackageTooLargeError) as caught:
        content(packed(tmp_path), limit=500_000)
    told = str(caught.value)
    assert "more than 488.3 KiB, the limit for uploads" in told
    assert "set 'package_folder' in the connection's extra, or, if the server accepts more, 'max_upload_size'" in told
    assert "The largest of its 12 files (761.7 KiB in all): part11 (117.2 KiB), part10 (107.4 KiB)" in told
    assert "part1 " not in told


def test_a_package_that_is_too_large_at_first_is_compressed_harder(tmp_path: Path) -> None:
    words = [os.urandom(3).hex() for _ in range(3000)]
    text = " ".join(words[i * 7919 % 3000] for i in range(200_000))
    (tmp_path / "text").write_text(text)
    package = packed(tmp_path)
    easy = len(content(package))
    hard = len(content(package, limit=easy - 1))
    assert hard < easy


def test_no_room_for_the_package_is_told(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(MIB))
    code = (
        "import resource, sys, tempfile\n"
        "from airflow_provider_rayjobs.packaging.package import pack_folder\n"
        "from airflow_provider_rayjobs.packaging.spool import spooled\n"
        f"package = pack_folder({str(tmp_path)!r}, [], [], inside=False)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "with spooled(package, 10**9): pass"
    )
    assert resource.RLIMIT_FSIZE  # files of this process may not grow beyond it, as on a full disk
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "RayPackageError" in done.stderr
    assert "can't be written to '/tmp' (File too large); make room there, or set TMPDIR" in done.stderr
    assert "large (1.0 MiB)" in done.stderr


def test_memory_stays_bounded(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(MIB // 2) + b"text" * (MIB // 8))
    code = (
        "import resource\n"
        "from airflow_provider_rayjobs.packaging.package import pack_folder\n"
        "from airflow_provider_rayjobs.packaging.spool import spooled\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"with spooled(pack_folder({str(tmp_path)!r}, [], [], inside=False), 10**9) as spool:\n"
        "    for piece in spool.opened(): pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 32 * 1024  # KiB, of 64 MiB


def test_large_uploads_tell_how_far_they_are(prepare: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with (tmp_path / "large").open("wb") as file:
        for _ in range(21):
            file.write(os.urandom(1_000_000))
    prepare({"working_dir": str(tmp_path)})
    lines = [record.getMessage() for record in caplog.records if "Uploading" in record.getMessage()]
    assert [line.split(": ")[1].split(" of ")[0] for line in lines[1:]] == ["25 %", "50 %", "75 %", "100 %"]
    caplog.clear()
    prepare({"working_dir": str(tmp_path)})
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"The cluster has the files of {tmp_path} already")

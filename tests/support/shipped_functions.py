"""Functions run by the driver in a plain Python without the provider, as on a cluster."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.functions import package as function_package
from airflow_provider_rayjobs.functions import result as result_module
from airflow_provider_rayjobs.functions.package import Task, build_packages, describe_task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow_provider_rayjobs.functions.result import Record

#: Bytes that a package may have.
LIMIT = 100 * 2**20


class Ran:
    """One run of the driver, with its log where Ray has it."""

    def __init__(self, folder: Path, packages: Task, *, before: bytes | None = None) -> None:
        self.log = folder / "logs" / "job-driver-j1.log"
        self.log.parent.mkdir()
        result = self.log.with_suffix(".result")
        if before is not None:
            result.write_bytes(before)
        unpacked = [folder / name for name in Task._fields]
        for path, package in zip(unpacked, packages, strict=True):
            zipfile.ZipFile(io.BytesIO(package)).extractall(path)
        (folder / "work").mkdir()
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(map(str, unpacked)), "PYTHONUNBUFFERED": "1"}
        with self.log.open("ab") as log:
            self.status = subprocess.run(
                [sys.executable, "-m", function_package.LAUNCHER, "f"],
                cwd=folder / "work",
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        self.output = self.log.read_text()
        self.result = result.read_bytes() if result.exists() else None

    @property
    def record(self) -> Record:
        """The result that the driver wrote."""
        assert self.result is not None, self.output
        return result_module.parse_record(self.result, "job")

    @property
    def value(self) -> Any:
        """The value that the function returned."""
        assert self.record.outcome == "value", self.output
        return result_module.value_of(self.record, "job")


def run(folder: Path, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Ran:
    """Run a function with these arguments in a folder."""
    return Ran(folder, build_packages(describe_task(function, args, kwargs), LIMIT))

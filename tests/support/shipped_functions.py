"""Functions and commands run in a plain Python without the provider, as on a cluster."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_rayjobs.functions import package as function_package
from airflow_provider_rayjobs.functions import result as result_module
from airflow_provider_rayjobs.functions.package import Task, build_packages, describe_command, describe_task
from airflow_provider_rayjobs.functions.shipped.driver import CALL_FILE
from airflow_provider_rayjobs.functions.shipped.result_file import CONFIG_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_rayjobs.functions.result import Record

#: Bytes that a package may have.
LIMIT = 100 * 2**20

#: What Ray passes to the process of an entrypoint.
SUBMISSION = "s1"
METADATA = {"airflow_submission": SUBMISSION, "job_submission_id": "j1"}
VARIABLES = {CONFIG_VARIABLE: json.dumps({"runtime_env": {}, "metadata": METADATA})}


def variables_of(packages: Task) -> dict[str, str]:
    """Return what Ray passes to the process that calls a function."""
    call = zipfile.ZipFile(io.BytesIO(packages.call)).read(CALL_FILE)
    metadata = {**METADATA, **function_package.metadata_of(Task(b"", call))}
    return {CONFIG_VARIABLE: json.dumps({"runtime_env": {}, "metadata": metadata})}


class Ran:
    """One run of a command, by default of the driver, with its log where Ray has it."""

    def __init__(
        self,
        folder: Path,
        packages: Task,
        *,
        before: bytes | None = None,
        command: str = f"{sys.executable} -m {function_package.LAUNCHER} f",
        variables: Mapping[str, str] = {},
        files: Mapping[str, bytes] = {},
        metadata_of: Task | None = None,
    ) -> None:
        variables = variables_of(metadata_of or packages) if packages.call else variables
        self.log = folder / "logs" / "job-driver-j1.log"
        self.log.parent.mkdir()
        result = self.log.with_suffix(".result")
        if before is not None:
            result.write_bytes(before)
        unpacked = [folder / name for name in Task._fields]
        for path, package in zip(unpacked, packages, strict=True):
            if package:
                zipfile.ZipFile(io.BytesIO(package)).extractall(path)
        (folder / "work").mkdir()
        self.folder = folder / "work"
        for name, content in files.items():
            (self.folder / name).write_bytes(content)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        modules = os.pathsep.join(map(str, unpacked))
        environment = {"PATH": path, "PYTHONPATH": modules, "PYTHONUNBUFFERED": "1", **variables}
        with self.log.open("ab") as log:
            self.status = subprocess.run(
                command,
                shell=True,
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        self.submission = SUBMISSION if variables else None
        self.output = self.log.read_text()
        self.result = result.read_bytes() if result.exists() else None

    @property
    def record(self) -> Record:
        """The result that the driver wrote."""
        assert self.result is not None, self.output
        return result_module.parse_record(self.result, "job", self.submission)

    @property
    def value(self) -> Any:
        """The value that the function returned."""
        assert self.record.outcome == "value", self.output
        return result_module.value_of(self.record, "job")


def run_command(folder: Path, command: str, *, in_job: bool = True, result_path: str | None = None) -> Ran:
    """
    Run a command whose task has ``read_result``.

    :param in_job: whether it runs as an entrypoint, with Ray's variable; if not, as a Ray task.
    """
    packages = build_packages(describe_command(result_path=result_path), LIMIT)
    return Ran(folder, packages, command=command, variables=VARIABLES if in_job else {})


def run(folder: Path, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Ran:
    """Run a function with these arguments in a folder."""
    return Ran(folder, build_packages(describe_task(function, args, kwargs), LIMIT))

"""The two sides, with the same interface: Ray's SDK in a process of Ray's Python, and the hook in this process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tests.parity.case import Here, answer, submit
from tests.support import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_rayjobs.hooks import RayJobHook
    from tests.parity.case import Case
    from tests.support.ray_head import RayHead

REPO = Path(__file__).parents[2]
CONN_ID = "ray_parity"


class Side(Protocol):
    """One client of the cluster."""

    name: str

    def submit(self, case: Case, here: Here) -> dict[str, Any]:
        """Submit a case; return the id or the error."""

    def ask(self, address: str, verb: str, *arguments: str) -> dict[str, Any]:
        """Call a method; return its result or the error."""

    def close(self) -> None:
        """Release its resources."""


class SdkSide:
    """
    Ray's ``JobSubmissionClient``, in one process for all calls.

    :param head: the cluster, whose Python has Ray.
    :param folder: the working directory of the process.
    """

    name = "sdk"

    def __init__(self, head: RayHead, folder: Path) -> None:
        env = environment.for_programs() | head.client_environment
        self._log = (folder.parent / "sdk.log").open("wb")
        self._process = subprocess.Popen(
            [head.ray_bin.parent / "python", "-m", "tests.parity.sdk_server"],
            cwd=folder,
            env={**env, "PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def submit(self, case: Case, here: Here) -> dict[str, Any]:
        """Submit a case; return the id or the error."""
        where = {"folder": str(here.folder), "address": here.address, "submission_id": here.submission_id}
        return self._call({"case": case.name, **where})

    def ask(self, address: str, verb: str, *arguments: str) -> dict[str, Any]:
        """Call a method; return its result or the error."""
        return self._call({"address": address, "verb": verb, "arguments": arguments})

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
        self._log.close()

    def _call(self, line: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        if not (text := self._process.stdout.readline()):
            raise RuntimeError(f"the SDK's process has ended: {Path(self._log.name).read_text()[-4000:]}")
        answered: dict[str, Any] = json.loads(text)
        return answered


class HookSide:
    """The hook, with an Airflow connection that has the arguments of the SDK's client."""

    name = "hook"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        sys.path.append(str(folder))  # as in the SDK's process

    def submit(self, case: Case, here: Here) -> dict[str, Any]:
        """Submit a case; return the id or the error."""
        with contextlib.chdir(self._folder), self._connections() as connect:
            return answer(lambda: submit(case, here, connect))

    def ask(self, address: str, verb: str, *arguments: str) -> dict[str, Any]:
        """Call a method; return its result or the error."""
        with self._connections() as connect:
            return answer(lambda: _as_json(verb, getattr(connect(address), verb)(*arguments)))

    def close(self) -> None:
        """Restore ``sys.path``."""
        sys.path.remove(str(self._folder))

    @contextlib.contextmanager
    def _connections(self) -> Iterator[Any]:
        from airflow_provider_rayjobs.hooks import RayJobHook

        made: list[RayJobHook] = []

        def connect(address: Any, **client: Any) -> RayJobHook:
            os.environ[f"AIRFLOW_CONN_{CONN_ID.upper()}"] = json.dumps(_connection(address, client))
            made.append(RayJobHook(CONN_ID))
            return made[-1]

        try:
            yield connect
        finally:
            for hook in made:
                hook.close()
            os.environ.pop(f"AIRFLOW_CONN_{CONN_ID.upper()}", None)


def _connection(address: Any, client: dict[str, Any]) -> dict[str, Any]:
    """Return the Airflow connection for a client's arguments."""
    if not address and not client:  # the address of the environment
        return {"conn_type": "ray_jobs"}
    # So that a test with an unreachable cluster ends soon.
    extra = {"unreachable_timeout": 3, **client}
    return {"conn_type": "ray_jobs", "host": address, "extra": extra}


def _as_json(verb: str, made: Any) -> Any:
    if verb == "tail_job_logs":
        return "".join(made)
    if verb == "list_jobs":
        return [asdict(job) for job in made]
    return asdict(made) if verb == "get_job_info" else made

"""A Ray cluster with one node on this machine, for `make demo`. Uses only the standard library."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import socket
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import environment
import processes
from console import ToolError, tail

if TYPE_CHECKING:
    import subprocess

#: Above the ports that Ray uses for its workers, below those that systems use for outgoing connections.
PORTS = range(20000, 32000)
PORT_OPTIONS = (
    "--port",
    "--dashboard-port",
    "--ray-client-server-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--runtime-env-agent-port",
    "--metrics-export-port",
    "--node-manager-port",
    "--object-manager-port",
)
READY_JOB = "ready"
MOST_STARTS = 3
OBJECT_STORE_BYTES = 128 * 2**20  # Ray's default is a third of the machine's memory


class LocalRay:
    """`ray start --head` with its own ports, files and token.

    :param bin_dir: the directory of the `ray` program, and of the `python` that runs the jobs.
    :param num_cpus: how many Ray tasks run at a time.
    """

    def __init__(self, bin_dir: Path, num_cpus: int = 2) -> None:
        self._bin_dir = bin_dir
        self._num_cpus = num_cpus
        self._process: subprocess.Popen[str] | None = None
        self._starts = 0
        self._dir = Path(tempfile.mkdtemp(prefix="ray", dir=environment.SHORT_TMP))
        ports = free_ports(len(PORT_OPTIONS))
        self._ports = dict(zip(PORT_OPTIONS, ports, strict=True))
        self.log = self._dir / "start.log"
        #: The token that every request needs, as with Ray 2.61 and later by default.
        self.token = secrets.token_hex(32)

    @property
    def port(self) -> int:
        """The port of the dashboard and of the Jobs REST API."""
        return self._ports["--dashboard-port"]

    @property
    def url(self) -> str:
        """The address of the dashboard and of the Jobs REST API."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the processes and return at once."""
        self._starts += 1
        command = [str(self._bin_dir / "ray"), "start", "--head", "--block", "--disable-usage-stats"]
        command += ["--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1"]
        command += ["--num-cpus", str(self._num_cpus), "--temp-dir", str(self._dir / "r")]
        command += ["--object-store-memory", str(OBJECT_STORE_BYTES)]
        command += ["--min-worker-port", "0", "--max-worker-port", "0"]
        command += [word for option, port in self._ports.items() for word in (option, str(port))]
        env = environment.for_programs()
        # `python` in a job's entrypoint must be the one of Ray's environment.
        env["PATH"] = f"{self._bin_dir}{os.pathsep}{env.get('PATH', os.defpath)}"
        # Set explicitly: otherwise Ray uses the token in the user's ~/.ray/auth_token, if that file exists.
        env |= {"TMPDIR": str(self._dir), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        with self.log.open("a") as output:
            self._process = processes.start(command, env=env, cwd=self._dir, stdout=output)

    def wait_ready(self, timeout: float) -> None:
        """Wait until a trivial job has succeeded, because Ray answers requests before it can run jobs.

        :param timeout: seconds.
        """
        deadline = time.monotonic() + timeout
        job = {"entrypoint": "true", "submission_id": READY_JOB}
        while time.monotonic() < deadline:
            self._restart_if_dead()
            # Until Ray is up, any request may fail. The fixed id prevents a second job when one is repeated.
            with suppress(OSError):
                found = self.request("GET", "/api/jobs/")
                if not found:
                    self.request("POST", "/api/jobs/", job)
                elif found[0]["status"] == "SUCCEEDED":
                    return
            time.sleep(0.5)
        raise ToolError(f"Ray was not ready within {timeout:.0f} s. Its last output:\n{tail(self.log, 8)}")

    def _restart_if_dead(self) -> None:
        """Restart Ray if it has ended: on a busy machine it exceeds its own time limits and gives up."""
        if self._process is None or self._process.poll() is None:
            return
        if self._starts == MOST_STARTS:
            raise ToolError(f"Ray could not start; is this machine very busy? Its last output:\n{tail(self.log, 8)}")
        processes.end(self._process, 0)
        self.start()

    def jobs(self) -> dict[str, str]:
        """Return the status of each submitted job by submission id, except the job of `wait_ready`."""
        found = {job["submission_id"]: job["status"] for job in self.request("GET", "/api/jobs/")}
        return {key: status for key, status in found.items() if key not in (None, READY_JOB)}

    def request(self, method: str, path: str, body: dict[str, str] | None = None) -> Any:
        """Send one request without a proxy, and return the decoded JSON of the response."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=15) as answer:
            return json.load(answer)

    def stop(self, timeout: float = 20) -> None:
        """Stop all processes and remove all files.

        :param timeout: seconds until they are killed.
        """
        if self._process is not None:
            processes.end(self._process, timeout)
            self._process = None
        shutil.rmtree(self._dir, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Return distinct free ports."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            found.append(port)
        if len(found) == count:
            return found
    raise ToolError(f"There are no {count} free ports between {PORTS.start} and {PORTS.stop}.")

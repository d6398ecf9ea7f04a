"""A real Ray head for tests: started with ``ray start``, observed through its REST API."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import environment
from tests.support.ports import free_port
from tests.support.processes import Process, family, kill_all, wait_gone
from tests.support.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_REPO = Path(__file__).resolve().parents[2]
_MARK = "RAYJOBS_TEST_HEAD"

#: With the value "token", heads require a token by default, as Ray 2.61 and later do.
AUTH_VARIABLE = "RAYJOBS_TEST_AUTH"

#: The first Ray releases with features that tests need, found by trial.
LABEL_SELECTOR_SINCE = (2, 54)
TOKEN_MODE_SINCE = (2, 52)
#: Ray's copy of cloudpickle can read pickles of cloudpickle 3.0 and later.
CLOUDPICKLE_3_SINCE = (2, 30)
#: Ray unpacks files with their modes.
MODES_SINCE = (2, 53)

#: The Ray whose client defines how a runtime_env is packed. Older clients have other rules (for example, no .rayignore
#: before 2.53), which clusters do not see.
CLIENT_FOLLOWED = (2, 60)

# Every port that a head binds; two heads with default ports would collide.
_PORT_OPTIONS = (
    "--port",
    "--object-manager-port",
    "--node-manager-port",
    "--ray-client-server-port",
    "--dashboard-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--runtime-env-agent-port",
    "--metrics-export-port",
)
_PORT_VARIABLES = ("DASHBOARD_METRIC_PORT",)


def find_ray() -> Path | None:
    """Return the ``ray`` executable for the tests; None if there is none."""
    path = Path(os.environ.get("RAYJOBS_RAY_BIN") or _REPO / ".envs" / "ray-2.60" / "bin" / "ray")
    return path if path.is_file() else None


def require_ray() -> Path:
    """Return the ``ray`` executable; if there is none, skip the test, or fail it in CI."""
    path = find_ray()
    if path is None:
        reason = "no ray executable: set RAYJOBS_RAY_BIN, or install ray[default] into .envs/ray-2.60"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def ray_version(ray_bin: Path) -> tuple[int, ...]:
    """Return the version of the Ray that a ``ray`` executable belongs to."""
    folders = ray_bin.parent.parent.glob("lib/python*/site-packages")
    (installed,) = distributions(name="ray", path=list(map(str, folders)))
    return tuple(int(part) for part in installed.version.split(".")[:3])


def require_ray_since(since: tuple[int, int], why: str) -> Path:
    """
    Return the ``ray`` executable; skip the test if it belongs to an older Ray.

    :param since: the first release that supports the test.
    :param why: what older releases lack.
    """
    ray_bin = require_ray()
    if (found := ray_version(ray_bin)) < since:
        pytest.skip(f"{why} (Ray {since[0]}.{since[1]} and later; this is {'.'.join(map(str, found))})")
    return ray_bin


def default_token() -> str:
    """Return a new token if heads must require one, else an empty string."""
    return secrets.token_hex(32) if os.environ.get(AUTH_VARIABLE) == "token" else ""


class RayHead(Witness):
    """One head on the loopback address, with its own ports, files and processes.

    :param num_cpus: CPUs for jobs; a job's driver uses none unless it requests them.
    :param env: environment variables for the head and its jobs.
    :param extra_args: additional arguments for ``ray start``.
    :param ray_bin: the ``ray`` executable; default :func:`require_ray`.
    :param folder: for its files, which are kept when it ends; by default each start has a temporary one.
    :param token: the token that the head requires (Ray 2.52 and later), and that this object's requests send; with an
        empty string, the head requires none. By default :data:`AUTH_VARIABLE` decides.

    :param monitor: whether the head runs Ray's autoscaler, which also reports the cluster's resources.

    Another process can use a pickled copy for requests, but not to end the head.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        num_cpus: int = 2,
        env: Mapping[str, str] | None = None,
        extra_args: Sequence[str] = (),
        ray_bin: Path | None = None,
        token: str | None = None,
        folder: Path | None = None,
        monitor: bool = False,
    ) -> None:
        self.ray_bin = (ray_bin or require_ray()).absolute()  # the head runs in another working directory
        self.num_cpus = num_cpus
        self.extra_env = dict(env or {})
        self.extra_args = tuple(extra_args)
        self.folder = folder
        self.monitor = monitor
        self.ports = {name: free_port() for name in (*_PORT_OPTIONS, *_PORT_VARIABLES)}
        super().__init__(f"http://{self.host}:{self.port}", default_token() if token is None else token)
        # The token of the head's processes stays the same if a test changes this object's token.
        self._demanded = self.token
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._mark = ""
        self._dir: Path | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_process": None, "_guard": None, "_dir": None}

    def __enter__(self) -> RayHead:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port of the REST API (the dashboard's)."""
        return self.ports["--dashboard-port"]

    @property
    def pid(self) -> int:
        """The pid of the ``ray start --block`` process."""
        if self._process is None:
            raise RuntimeError("the head is not started")
        return self._process.pid

    @property
    def version(self) -> tuple[int, ...]:
        """The version of Ray."""
        return ray_version(self.ray_bin)

    @property
    def client_environment(self) -> dict[str, str]:
        """Variables that Ray's own programs need for access. Set in each case, or Ray would read the user's files."""
        if not self._demanded:
            return {"RAY_AUTH_MODE": "disabled"}
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._demanded}

    def connection(self, url: str = "", **fields: Any) -> dict[str, Any]:
        """
        Return the fields of an Airflow connection to this head.

        :param url: URL of a proxy in front of the head.
        :param fields: other fields.
        """
        password = {"password": self._demanded} if self._demanded else {}
        return {"conn_type": "ray_jobs", "host": url or self.url, **password, **fields}

    # Start and stop

    def start(self) -> None:
        """Start the processes and return at once; :meth:`wait_ready` waits for them."""
        if self._process is not None:
            raise RuntimeError("the head is already started")
        self._dir = self.folder or Path(tempfile.mkdtemp(prefix="rj", dir=environment.SHORT_TMP))
        # A killed head leaves this file. If other nodes of the cluster run on this machine, Ray then assumes that the
        # head still runs.
        (self._dir / "r" / "ray_current_cluster").unlink(missing_ok=True)
        self._mark = f"{_MARK}={uuid.uuid4().hex}"
        with (self._dir / "start.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command(self._dir),
                env=self._environment(),
                cwd=self._dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        # A killed test run can't clean up. The pipe is then closed, and this guard ends the head and its children.
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -TERM "$1"', "guard", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_ready(self, timeout: float = 280.0) -> float:
        """Wait until a trivial job has succeeded; return how many seconds that took.

        On a busy machine ``ray start`` may give up; it is then started again, at most twice.
        """
        begin = time.monotonic()
        deadline = begin + timeout
        job_id = f"ready-{uuid.uuid4().hex[:12]}"
        starts_left = 2
        # Refused connections, 500 "No available agent" and timeouts are normal during a start. The id is always the
        # same, so that a lost response does not lead to a second job.
        while not self._accepts(job_id):
            self._write_agent_port()
            if self._process is not None and self._process.poll() is not None:
                log = self.start_log()
                self.kill()
                if not starts_left:
                    raise RuntimeError(f"ray start gave up:\n{log}")
                starts_left -= 1
                self.start()
            if time.monotonic() > deadline:
                raise TimeoutError(f"the head does not accept jobs after {timeout} s:\n{self.start_log()}")
            time.sleep(0.2)
        self.wait_job(job_id, timeout=deadline - time.monotonic(), until={"SUCCEEDED"})
        # Tests that list jobs should see only their own.
        self.request("DELETE", f"/api/jobs/{job_id}")
        return time.monotonic() - begin

    def stop(self, timeout: float = 20.0) -> None:
        """Stop the head gracefully, or kill it after ``timeout`` seconds; remove its files."""
        if self._process is not None:
            members = self._family()
            self._disarm_guard()
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
            # Drivers of jobs have their own session and end about a second after their parents.
            wait_gone(members, 3.0)
        self.kill()

    def kill(self) -> set[Process]:
        """Crash: send SIGKILL to all processes of this head, jobs included; return them. Remove its temporary files."""
        killed: set[Process] = set()
        if self._process is not None:
            self._disarm_guard()
            killed = kill_all(self._family)
            self._process.wait(10)
            self._process = None
        if self._dir is not None:
            if self._dir != self.folder:
                shutil.rmtree(self._dir, ignore_errors=True)
            self._dir = None
        return killed

    def restart(self, graceful: bool = False) -> float:
        """Kill (or stop) it and start it again at the same address; it forgets jobs and packages.

        :return: seconds until the new head was ready.
        """
        if graceful:
            self.stop()
        else:
            self.kill()
        self.start()
        return self.wait_ready()

    def start_log(self) -> str:
        """Return the last output of ``ray start``."""
        if self._dir is None:
            return ""
        return (self._dir / "start.log").read_text(errors="replace")[-4000:]

    # Internals

    def _write_agent_port(self) -> None:
        """Write the file from which the raylet reads its dashboard agent's port, before the agent does.

        The raylet aborts the start if the file does not exist after 15 s, although ``ray start`` knows the port; no
        option changes this, and a busy machine takes longer. Does nothing for Ray versions without such files.
        """
        if self._dir is None:
            return
        for known in (self._dir / "r").glob("session_2*/gcs_server_port_*"):
            node_id = known.name.rpartition("_")[2]
            file = known.with_name(f"dashboard_agent_listen_port_{node_id}")
            if not file.exists():
                file.write_text(str(self.ports["--dashboard-agent-listen-port"]))

    def _accepts(self, job_id: str) -> bool:
        """Submit a job unless it exists; return whether it exists then."""
        try:
            if self.job(job_id) is None:
                self.submit("true", submission_id=job_id)
        except (OSError, http.client.HTTPException, RuntimeError):
            return False
        return True

    def _command(self, directory: Path) -> list[str]:
        command = [str(self.ray_bin), "start", "--head", "--block", "--disable-usage-stats"]
        command += ["--node-ip-address", self.host, "--dashboard-host", self.host]
        command += ["--temp-dir", str(directory / "r"), "--num-cpus", str(self.num_cpus)]
        # Port 0: workers use any free port, instead of a range that all heads would share.
        command += ["--min-worker-port", "0", "--max-worker-port", "0"]
        # The autoscaler takes 3 s of CPU to start, and there is nothing to scale.
        command += [] if self.monitor else ["--no-monitor"]
        command += ["--object-store-memory", str(128 * 2**20)]
        for option in _PORT_OPTIONS:
            command += [option, str(self.ports[option])]
        return [*command, *self.extra_args]

    def _environment(self) -> dict[str, str]:
        env = environment.for_programs() | self.client_environment
        # So that ``python`` in an entrypoint is the one of Ray's environment.
        env["PATH"] = f"{self.ray_bin.parent}{os.pathsep}{env.get('PATH', os.defpath)}"
        env.update({name: str(self.ports[name]) for name in _PORT_VARIABLES})
        # By default, SIGTERM waits up to 30 s for running jobs before anything ends.
        env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "0"
        env.update(self.extra_env)
        name, _, value = self._mark.partition("=")
        env[name] = value
        return env

    def _family(self) -> set[Process]:
        return family(self.pid, self._mark)

    def _disarm_guard(self) -> None:
        if self._guard is not None:
            self._guard.send_signal(signal.SIGKILL)
            self._guard.communicate()
            self._guard = None

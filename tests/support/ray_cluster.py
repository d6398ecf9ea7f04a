"""A real Ray cluster of a head and more nodes, all on this machine."""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import environment
from tests.support.ray_head import RayHead

if TYPE_CHECKING:
    from typing import Any

    from tests.support.redis_server import Redis

# Every port that a node binds on its own, as in a head.
_PORT_OPTIONS = (
    "--object-manager-port",
    "--node-manager-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--runtime-env-agent-port",
    "--metrics-export-port",
)


class RayNode(RayHead):
    """
    A node that joins the cluster of a head, lives and dies as a head does, and is asked through the head.

    :param head: the head, started.
    :param name: of a resource that no other node has.
    """

    def __init__(self, head: RayHead, name: str) -> None:
        self.head = head
        self.name = name
        super().__init__(num_cpus=1, ray_bin=head.ray_bin, token=head.token)

    @property
    def port(self) -> int:
        """The port of the REST API, which is the head's."""
        return self.head.port

    @property
    def placed(self) -> dict[str, Any]:
        """The fields of a submission that have its driver run on this node."""
        return {"entrypoint_resources": {self.name: 0.1}}

    def submit(self, entrypoint: str, **fields: Any) -> str:
        """Submit a job whose driver runs on this node; return its submission id."""
        return super().submit(entrypoint, **self.placed, **fields)

    def _command(self, directory: Path) -> list[str]:
        # It has no --temp-dir of its own: nodes of one machine share the head's.
        command = [str(self.ray_bin), "start", "--block", "--disable-usage-stats"]
        command += ["--address", f"{self.host}:{self.head.ports['--port']}", "--node-ip-address", self.host]
        command += ["--num-cpus", str(self.num_cpus), "--resources", json.dumps({self.name: 1})]
        command += ["--min-worker-port", "0", "--max-worker-port", "0", "--object-store-memory", str(128 * 2**20)]
        for option in _PORT_OPTIONS:
            command += [option, str(self.ports[option])]
        return command


class RayCluster:
    """
    A head that runs drivers only where nothing else is asked for, and two worker nodes.

    As a context manager it starts, and at the end all is stopped and its files are removed.

    :param redis: where the head keeps its jobs, so that it knows them after a restart; None: it forgets them.
    """

    def __init__(self, redis: Redis | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="rj", dir=environment.SHORT_TMP))
        env = {"RAY_REDIS_ADDRESS": redis.address} if redis else {}
        arguments = ["--redis-password", redis.password] if redis else []
        # Other nodes have files below the head's folder: it stays when the head is killed.
        self.head = RayHead(num_cpus=1, env=env, extra_args=arguments, folder=self._folder)
        self.nodes: list[RayNode] = []
        self.forget()

    def __enter__(self) -> RayCluster:
        try:
            self.head.__enter__()
            self.nodes = [RayNode(self.head, "node1"), RayNode(self.head, "node2")]
            for node in self.nodes:  # one by one: two that start together take the same names below the head's folder
                node.start()
                node.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def forget(self) -> None:
        """Have the head's next start find nothing of its jobs."""
        self.head.extra_env["RAY_external_storage_namespace"] = f"rj{uuid.uuid4().hex}"

    def __exit__(self, *_: object) -> None:
        for one in (*self.nodes, self.head):
            one.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

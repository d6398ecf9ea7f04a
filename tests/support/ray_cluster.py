"""A real Ray cluster with a head and worker nodes, all on this machine."""

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

# Every port that a node binds; two nodes with default ports would collide.
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
    A worker node. It is started and killed like a head; its REST API is the head's.

    :param head: the head, which is already started.
    :param name: name of a resource that no other node has.
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
        """The fields of a submission that place its driver on this node."""
        return {"entrypoint_resources": {self.name: 0.1}}

    def submit(self, entrypoint: str, **fields: Any) -> str:
        """Submit a job whose driver runs on this node; return its submission id."""
        return super().submit(entrypoint, **self.placed, **fields)

    def _command(self, directory: Path) -> list[str]:
        # No --temp-dir: nodes on one machine share the head's.
        command = [str(self.ray_bin), "start", "--block", "--disable-usage-stats"]
        command += ["--address", f"{self.host}:{self.head.ports['--port']}", "--node-ip-address", self.host]
        command += ["--num-cpus", str(self.num_cpus), "--resources", json.dumps({self.name: 1})]
        command += ["--min-worker-port", "0", "--max-worker-port", "0", "--object-store-memory", str(128 * 2**20)]
        for option in _PORT_OPTIONS:
            command += [option, str(self.ports[option])]
        return command


class RayCluster:
    """
    A head and two worker nodes. The head runs the drivers that request no resources of another node.

    The context manager starts the cluster, and at the end stops it and removes its files.

    :param redis: stores the head's jobs, so that they survive its restart; None: a restart forgets them.
    """

    def __init__(self, redis: Redis | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="rj", dir=environment.SHORT_TMP))
        env = {"RAY_REDIS_ADDRESS": redis.address} if redis else {}
        arguments = ["--redis-password", redis.password] if redis else []
        # Other nodes have files below the head's folder, so it is kept when the head is killed.
        self.head = RayHead(num_cpus=1, env=env, extra_args=arguments, folder=self._folder)
        self.nodes: list[RayNode] = []
        self.forget()

    def __enter__(self) -> RayCluster:
        try:
            self.head.__enter__()
            self.nodes = [RayNode(self.head, "node1"), RayNode(self.head, "node2")]
            for node in self.nodes:  # one by one: nodes that start together use the same names in the head's folder
                node.start()
                node.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def forget(self) -> None:
        """Make the head's next start forget its jobs."""
        self.head.extra_env["RAY_external_storage_namespace"] = f"rj{uuid.uuid4().hex}"

    def __exit__(self, *_: object) -> None:
        for one in (*self.nodes, self.head):
            one.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

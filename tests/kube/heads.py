"""Where the RayClusters of the bench get their heads from."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from tests.support.ray_head import RayHead
from tests.support.witness import Witness

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kube.api import Object
    from tests.support.scripted_server import ScriptedRay


class Head(Protocol):
    """The head of one RayCluster."""

    #: The token that it requires, or an empty string.
    token: str

    @property
    def port(self) -> int:
        """The port of its dashboard on the loopback address."""

    def is_ready(self) -> bool:
        """Return whether it accepts jobs."""

    def end(self, jobs: set[str]) -> None:
        """End it with its jobs; return at once.

        :param jobs: the ids of jobs that the controller knows of.
        """

    def wait_ended(self) -> None:
        """Wait until nothing of it runs any more."""


class Heads(Protocol):
    """The machines on which heads run."""

    #: The token of all heads that require one; empty if each may have its own.
    token: str

    def take(self, cluster: Object, token: str) -> Head | None:
        """Start the head of a cluster, and return at once; return None if there is no room for it now."""


class _Ended(Exception):  # noqa: N818  an instruction, not an error
    """The head is to end before it is ready."""


class _OwnHead(RayHead):
    """A real head of one RayCluster. It starts in a thread of its own."""

    def __init__(self, num_cpus: int, token: str, freed: Callable[[], object]) -> None:
        super().__init__(num_cpus=num_cpus, token=token)
        self._freed = freed
        self._to_end = threading.Event()
        self._up = threading.Event()
        self.failure = ""
        self._starter = threading.Thread(target=self._start, name="head-starts", daemon=True)
        self._ender = threading.Thread(target=self._end, name="head-ends", daemon=True)
        self.start()
        self._starter.start()

    def is_ready(self) -> bool:
        return self._up.is_set()

    def end(self, jobs: set[str]) -> None:
        self._to_end.set()
        if not self._ender.ident:
            self._ender.start()

    def wait_ended(self) -> None:
        self._ender.join()

    def _accepts(self, job_id: str) -> bool:
        if self._to_end.is_set():
            raise _Ended
        return super()._accepts(job_id)

    def _start(self) -> None:
        try:
            self.wait_ready()
        except _Ended:
            return
        except (OSError, RuntimeError, AssertionError) as e:
            self.failure = str(e)
            return
        self._up.set()

    def _end(self) -> None:
        self._starter.join()  # two threads must not end it at once
        self.kill()
        self._freed()


class OwnHeads:
    """A real head for each RayCluster.

    :param most: how many run at the same time; a further cluster waits until one has ended, as in a full cluster.
    """

    token = ""

    def __init__(self, most: int = 2) -> None:
        self._room = threading.Semaphore(most)
        #: How many heads were started.
        self.started = 0

    def take(self, cluster: Object, token: str) -> Head | None:
        if not self._room.acquire(blocking=False):
            return None
        self.started += 1
        params = cluster["spec"]["headGroupSpec"].get("rayStartParams", {})
        return _OwnHead(int(params.get("num-cpus", 2)), token, self._room.release)


class _SharedHead:
    def __init__(self, port: int, token: str, seconds: float, end_job: Callable[[str], object]) -> None:
        self.port = port
        self.token = token
        self._ready_at = time.monotonic() + seconds
        self._end_job = end_job

    def is_ready(self) -> bool:
        return time.monotonic() >= self._ready_at

    def end(self, jobs: set[str]) -> None:
        for job_id in jobs:
            with contextlib.suppress(OSError, RuntimeError):
                self._end_job(job_id)

    def wait_ended(self) -> None:
        pass


class SharedHeads:
    """One real head that stands for the heads of all RayClusters, so that many clusters cost little.

    Unlike with heads of their own, a job that the controller does not know of outlives its cluster.

    :param head: the head.
    :param seconds: how long a cluster takes to become ready.
    """

    def __init__(self, head: RayHead, seconds: float = 0.3) -> None:
        self._head = head
        self._seconds = seconds
        self.token = head.token

    def take(self, cluster: Object, token: str) -> Head:
        return _SharedHead(self._head.port, self._head.token, self._seconds, self._head.stop_job)


class ScriptedHeads:
    """A scripted head for each RayCluster, which runs nothing.

    :param make: makes one, for the token that it requires.
    :param seconds: how long a cluster takes to become ready.
    """

    token = ""

    def __init__(self, make: Callable[[str], ScriptedRay], seconds: float = 0.1) -> None:
        self._make = make
        self._seconds = seconds
        #: The heads, by the names of their RayClusters; also of those that were deleted.
        self.of: dict[str, ScriptedRay] = {}

    def take(self, cluster: Object, token: str) -> Head:
        server = self._make(token)
        server.start()
        self.of[cluster["metadata"]["name"]] = server
        return _Scripted(server, self._seconds)


class _Scripted:
    def __init__(self, server: ScriptedRay, seconds: float) -> None:
        self.port = server.port
        self.token = server.token
        self._server = server
        self._ready_at = time.monotonic() + seconds

    def is_ready(self) -> bool:
        return time.monotonic() >= self._ready_at

    def end(self, jobs: set[str]) -> None:
        self._server.stop()

    def wait_ended(self) -> None:
        pass


def witness_of(head: Head) -> Witness:
    """Return a client of a head's REST API."""
    return Witness(f"http://127.0.0.1:{head.port}", head.token)


def job_of(head: Head, job_id: str) -> dict[str, Any] | None:
    """Return the details of a job; None if the head does not know it.

    :raises OSError: if the head does not answer.
    :raises RuntimeError: if it answers with an error.
    """
    return witness_of(head).job(job_id)

"""A StatsD server that keeps what it receives."""

from __future__ import annotations

import socket
import threading
from typing import NamedTuple, Self


class Sample(NamedTuple):
    """One received value, of a line such as ``airflow.ray_jobs.submitted,conn_id=ray_default:1|c``."""

    name: str
    tags: dict[str, str]
    value: float
    kind: str


class StatsDServer:
    """Listens on a UDP port of the loopback address."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._receive, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(5)
        self._socket.close()

    def _receive(self) -> None:
        while packet := self._socket.recv(65536):
            self._lines += packet.decode().splitlines()

    def received(self, prefix: str = "airflow.ray_jobs.") -> list[Sample]:
        """Return what has arrived, of the names that begin with the prefix."""
        return [_parsed(line) for line in list(self._lines) if line.startswith(prefix)]


def _parsed(line: str) -> Sample:
    name, _, rest = line.partition(":")
    value, _, kind = rest.partition("|")
    name, *tags = name.split(",")
    pairs = (tag.partition("=") for tag in tags)
    return Sample(name.removeprefix("airflow."), {key: text for key, _, text in pairs}, float(value), kind)

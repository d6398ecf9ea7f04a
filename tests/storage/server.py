"""A server with the API of object storage, on the loopback address."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Server(ABC):
    """
    The server; it keeps what it gets in memory.

    :param folder: for its log, from which its requests are known.
    """

    #: The scheme of its URLs, and what nodes need to read them.
    scheme: ClassVar[str]
    needed: ClassVar[str]
    #: Id of the Airflow connection to it, and a secret of that.
    conn_id: ClassVar[str]
    secret: ClassVar[str] = ""
    #: Most bytes that it can be given in reasonable time.
    most: ClassVar[int]

    def __init__(self, folder: Path) -> None:
        self._log = folder / f"{self.scheme}.log"
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", *self._command(self._port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{self._log.read_text()}")
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}{self._ready}", timeout=5).close()
        except OSError:
            return False
        return True

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    #: A path that it answers when it is ready.
    _ready: ClassVar[str]

    @abstractmethod
    def _command(self, port: int) -> Sequence[str]:
        """Return the module that serves, and its arguments."""

    @property
    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """Variables by which the clients of its vendor reach it."""

    @property
    @abstractmethod
    def connection(self) -> dict[str, Any]:
        """Fields of an Airflow connection to it."""

    @abstractmethod
    def new_bucket(self) -> str:
        """Make a bucket and return its name."""

    @abstractmethod
    def objects(self, bucket: str) -> dict[str, int]:
        """Return the sizes of a bucket's objects."""

    @abstractmethod
    def requests(self, bucket: str) -> list[str]:
        """Return the methods of all requests so far to a bucket's objects."""

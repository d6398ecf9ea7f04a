"""The Redis of other tests: it asks for its password, keeps its data, freezes, and dies with the one who started it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import Process, wait_gone
from tests.support.redis_server import HOST, Redis

if TYPE_CHECKING:
    from collections.abc import Callable

REPO = Path(__file__).parents[3]

# Starts a server, says where it is, and waits.
PROGRAM = """
import sys
from tests.support.redis_server import Redis
with Redis() as server:
    (process,) = server._family()
    print(process.pid, process.start_ticks, server.folder, flush=True)
    sys.stdin.read()
"""


def ask(server: Redis, *commands: str, timeout: float = 5.0) -> list[str]:
    """Send commands; return the first line of each answer."""
    with socket.create_connection((HOST, server.port), timeout=timeout) as client, client.makefile("rb") as answers:
        client.sendall("".join(f"{command}\r\n" for command in commands).encode())
        return [answers.readline().decode().strip() for _ in commands]


@pytest.mark.parametrize("end", [Redis.stop, Redis.kill])
def test_data_outlives_the_server(end: Callable[[Redis], None]) -> None:
    with Redis() as server:
        login = f"AUTH {server.password}"
        assert ask(server, "GET kept")[0].startswith("-NOAUTH")
        assert ask(server, login, "INCRBY kept 7") == ["+OK", ":7"]
        ran = server._family()
        end(server)
        assert not wait_gone(ran, 0)
        with pytest.raises(OSError, match="refused"):
            ask(server, "PING")
        server.start()
        assert ask(server, login, "INCR kept") == ["+OK", ":8"]
    assert not server.folder.exists()


def test_a_frozen_server_takes_connections_and_says_nothing() -> None:
    with Redis() as server:
        server.freeze()
        with pytest.raises(TimeoutError):
            ask(server, "PING", timeout=0.5)
        server.resume()
        assert ask(server, "PING")[0].startswith("-NOAUTH")
        server.freeze()  # it is stopped all the same


def test_it_ends_with_the_process_that_started_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=REPO, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        pid, start_ticks, folder = starter.stdout.readline().split()
        starter.send_signal(signal.SIGKILL)
    assert not wait_gone({Process(int(pid), int(start_ticks))}, 10)
    deadline = time.monotonic() + 10
    while Path(folder).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)

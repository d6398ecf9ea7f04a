"""Free TCP ports for servers that need to know their port before they start."""

from __future__ import annotations

import random
import socket

# Below Linux' range for outgoing connections (32768 on), so that no client socket of another process can
# take a port between the moment it is chosen and the moment it is bound, nor while a server is down for a
# while; above 19999, because older Ray gives 10002-19999 to its workers and refuses a port from there.
FIRST, LAST = 20000, 32000

_chosen: set[int] = set()


def free_port() -> int:
    """Return a port free on all addresses that this process has not been given before."""
    for _ in range(1000):
        # The system's own source, since tests may seed the shared one: two processes that try the same
        # ports in the same order would meet.
        port = random.SystemRandom().randint(FIRST, LAST)
        if port not in _chosen and _bindable(port):
            _chosen.add(port)
            return port
    raise RuntimeError(f"no free port between {FIRST} and {LAST}")


def _bindable(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True

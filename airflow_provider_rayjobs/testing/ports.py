"""Free TCP ports for servers that need to know their port before they start."""

from __future__ import annotations

import random
import socket

# Below Linux' range for outgoing connections (from 32768), so that no client socket can take a port before the server
# binds it, or while the server is down. Above 19999, because older Ray versions use 10002-19999 for their workers and
# reject ports in this range.
FIRST, LAST = 20000, 32000

_chosen: set[int] = set()


def free_port() -> int:
    """Return a port that is free on all addresses, a different one for each call in this process."""
    for _ in range(1000):
        # SystemRandom, because tests may seed the shared generator: two processes that try the same ports in the
        # same order would collide.
        port = random.SystemRandom().randint(FIRST, LAST)
        if port not in _chosen and _bindable(port):
            _chosen.add(port)
            return port
    raise RuntimeError(f"no free port between {FIRST} and {LAST}")


def _bindable(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - nothing listens on it
        except OSError:
            return False
    return True

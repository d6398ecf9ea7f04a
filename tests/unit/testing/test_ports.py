"""Ports are free, and no two calls return the same one."""

from __future__ import annotations

import socket

from airflow_provider_rayjobs.testing.ports import FIRST, LAST, free_port


def test_ports_differ_and_can_be_bound() -> None:
    ports = {free_port() for _ in range(5)}
    assert len(ports) == 5
    for port in ports:
        assert FIRST <= port <= LAST
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))

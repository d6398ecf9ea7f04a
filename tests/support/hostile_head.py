"""
A malicious head: each of its jobs is a test case with unusual or unlimited responses.

    python -m tests.support.hostile_head     prints its port, and serves until stdin is closed
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
import zlib
from typing import TYPE_CHECKING, Any

from aiohttp import web

from airflow_provider_rayjobs.testing.loop_thread import LoopThread
from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 2**20
PIECE = b" " * MIB


def _job(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "SUBMISSION", "submission_id": name, "status": "RUNNING", "start_time": 1, **fields}


def _failed(name: str, **fields: Any) -> dict[str, Any]:
    fields = {"status": "FAILED", "end_time": 2, "message": "it failed", "driver_node_id": "ab", **fields}
    return _job(name, **fields)


#: Jobs whose details are JSON of limited size, with unusual content.
DETAILS: dict[str, Callable[[], Any]] = {
    "deep JSON": lambda: _Raw('{"type": "S", "status": "RUNNING", "runtime_env": ' + "[" * 20_000),
    "deep enough JSON": lambda: _Raw(
        '{"type": "S", "status": "RUNNING", "runtime_env": {"a": ' + "[" * 900 + "]" * 900 + "}}"
    ),
    "many keys": lambda: {f"k{n}": 0 for n in range(300_000)},
    "metadata a list": lambda: _job("metadata a list", metadata=["x"]),
    "message a number": lambda: _job("message a number", message=1),
    "time 1e300": lambda: _job("time 1e300", start_time=1e300),
    "time a text": lambda: _job("time a text", end_time="soon"),
    "env_vars a list": lambda: _failed("env_vars a list", runtime_env={"env_vars": ["A"]}),
    "half a surrogate pair": lambda: _failed("half a surrogate pair", entrypoint="\ud800", error_type="\udcff"),
    "another job": lambda: _job("of somebody else"),
    "long status": lambda: _job("long status", status=f"S{time.monotonic_ns()}" + "X" * 100_000),
    "new statuses": lambda: _job("new statuses", status=f"S{time.monotonic_ns()}"),
    "800 secret lines": lambda: _failed(
        "800 secret lines",
        runtime_env={"env_vars": {"A_PASSWORD": "\n".join(f"line {n} of a key" for n in range(800))}},
    ),
    "100,000 secret lines": lambda: _failed(
        "100,000 secret lines",
        runtime_env={"env_vars": {"A_PASSWORD": "\n".join(f"line {n} of a key" for n in range(100_000))}},
    ),
    "secret words": lambda: _failed(
        "secret words", runtime_env={"env_vars": {"A_PASSWORD": "Traceback", "B_TOKEN": "SUCCEEDED"}}
    ),
    "nearly secret lines": lambda: _failed(
        "nearly secret lines",
        message="a" * 3_000_000,
        runtime_env={"env_vars": {"A_PASSWORD": "\n".join(f"{'a' * 40}{n:03}{'a' * 40}" for n in range(900))}},
    ),
    "secret of line ends": lambda: _failed(
        "secret of line ends", runtime_env={"env_vars": {"A_PASSWORD": "\n" * 2_000_000}}
    ),
    "nearly URLs": lambda: _failed(
        "nearly URLs",
        message="://a" * 12_000,
        runtime_env={"working_dir": "a" * 60_000, "env_vars": {"A": "ab" * 64_000, "B": "://b@" * 20_000}},
    ),
    "commas in a string": lambda: _job("commas in a string", entrypoint="," * 1_000_000),
    "tail without end": lambda: _failed("tail without end"),
    "log of line ends": lambda: _failed("log of line ends"),
    "log of pairs": lambda: _failed("log of pairs"),
    "log of CRLF": lambda: _failed("log of CRLF"),
    "log in one line": lambda: _failed("log in one line"),
    "log too large for a message": lambda: _failed("log too large for a message"),
    "log of deep progress": lambda: _failed("log of deep progress"),
    "log of large progress": lambda: _failed("log of large progress"),
    "log of an endless escape": lambda: _failed("log of an endless escape", driver_node_id=None),
    "log of empty messages": lambda: _job("log of empty messages"),
    "log of short messages": lambda: _job("log of short messages"),
    "log of pings": lambda: _job("log of pings"),
}

#: The message of a job's log.
MESSAGES = {
    "log of line ends": lambda: "\n" * 5_000_000,
    "log of pairs": lambda: "a\n" * 2_500_000,
    "log of CRLF": lambda: "\r\n" * 2_500_000,
    "log in one line": lambda: "x" * 5_000_000,
    "log too large for a message": lambda: "\n" * (15 * MIB),
    "log of deep progress": lambda: (
        _frame('{"done": 1, "a": ' + "[" * 30_000) + _frame('{"done": 1, "a": ' + "[" * 1_900)
    ),
    "log of large progress": lambda: _frame(json.dumps({"done": 10**40})),
}

#: The WebSocket frames that are sent without end as a job's log.
FRAMES = {
    "log of empty messages": b"\x81\x00",
    "log of short messages": b"\x81\x02a\n",
    "log of pings": b"\x89\x00",
}

#: Prefix of jobs of one cluster whose logs never end.
TALKATIVE = "50 logs without end"

#: Jobs whose details are huge, never end, or never arrive.
ENDLESS = ("gzip bomb", "1 GiB of JSON", "dribbled body", "dribbled headers", "silence")

CASES = (*DETAILS, *ENDLESS)


def _frame(body: str) -> str:
    return f"\x1erayjobs-progress {zlib.crc32(body.encode()):08x} {body}\x1e\n"


class _Raw(str):
    """JSON that is sent unchanged."""


class HostileHead:
    """Serves on the loopback address, in its own thread."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://{self.host}:{self.port}"
        #: The jobs whose details, and whose logs, were requested.
        self.asked: set[str] = set()
        self.followed: set[str] = set()
        self._thread = LoopThread("hostile-head")
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> HostileHead:
        self._thread.call(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        if self._runner is not None:
            self._thread.call(self._runner.cleanup())
        self._thread.stop()

    async def _listen(self) -> None:
        app = web.Application()
        app.router.add_get("/api/version", self._version)
        app.router.add_get("/api/jobs/", self._list)
        app.router.add_get("/api/jobs/{name}", self._details)
        app.router.add_post("/api/jobs/{name}/stop", self._details)
        app.router.add_get("/api/jobs/{name}/logs/tail", self._tail)
        app.router.add_get("/api/jobs/{name}/logs", self._without_end)
        app.router.add_get("/api/v0/logs/file", self._without_end)
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port).start()

    async def _version(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"ray_version": "2.60.0", "session_name": "s" * 50})

    async def _list(self, request: web.Request) -> web.StreamResponse:
        return await _send(request, b'[{"submission_id": "', (PIECE for _ in range(1024)))

    async def _details(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        self.asked.add(name)
        if name in DETAILS:
            found = DETAILS[name]()
            return web.Response(
                text=found if isinstance(found, _Raw) else json.dumps(found), content_type="application/json"
            )
        if name == "gzip bomb":
            packer = zlib.compressobj(wbits=31)
            pieces = (packer.compress(PIECE) for _ in range(1024))
            return await _send(request, b"", pieces, packer.flush, {"Content-Encoding": "gzip"})
        if name == "1 GiB of JSON":
            return await _send(request, b"", (PIECE for _ in range(1024)))
        if name.startswith(TALKATIVE):
            return web.json_response(_job(name))
        if name == "silence":
            await asyncio.sleep(3600)
        if name.startswith("dribbled"):
            return await _dribble(request, b"HTTP/1.1 200 OK\r\n" + (b"\r\n{" if name == "dribbled body" else b"X: "))
        return web.Response(status=404, text=f"Job {name} does not exist")

    async def _tail(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        name = request.match_info["name"]
        self.followed.add(name)
        text = "Traceback SUCCEEDED\n"
        if name in MESSAGES:
            text = MESSAGES[name]()
        elif name.endswith("lines"):
            text = "".join(f"line {n} of a key\n" for n in range(800))
        with contextlib.suppress(ConnectionError):
            while name.startswith(TALKATIVE):
                await socket.send_str("a line of a job\n" * 1000)
            if name in FRAMES:
                await _flood(request, FRAMES[name] * 10_000)
            if name == "log of an endless escape":
                await socket.close(code=1011)
                return socket
            await socket.send_str(text)
            await asyncio.sleep(1)  # a natural close
            await socket.close()
        return socket

    async def _without_end(self, request: web.Request) -> web.StreamResponse:
        name = request.query.get("filename", "")
        if request.match_info.get("name") == "log of an endless escape":
            return await _send(request, b'{"logs": "\\uZZZZ', (PIECE for _ in range(1024)))
        if "tail without end" not in name:
            return web.Response(status=500, text="A file is not found")
        return await _send(request, b"", (b"\n" * MIB for _ in range(1024)))


async def _send(
    request: web.Request,
    begin: bytes,
    pieces: Any,
    end: Callable[[], bytes] = bytes,
    headers: dict[str, str] | None = None,
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", **(headers or {})})
    await response.prepare(request)
    try:
        await response.write(begin)
        for piece in pieces:
            if piece:
                await response.write(piece)
            await asyncio.sleep(0)
        await response.write(end())
        await response.write_eof()
    except (ConnectionError, RuntimeError):
        pass  # the client has disconnected
    return response


async def _flood(request: web.Request, data: bytes) -> None:
    """Send bytes repeatedly, as fast as the client reads them."""
    transport = request.transport
    assert isinstance(transport, asyncio.WriteTransport)
    while not transport.is_closing():
        if transport.get_write_buffer_size() < MIB:
            transport.write(data)
        await asyncio.sleep(0)
    raise ConnectionError


async def _dribble(request: web.Request, begin: bytes) -> web.StreamResponse:
    transport = request.transport
    assert isinstance(transport, asyncio.WriteTransport)
    transport.write(begin)
    while not transport.is_closing():
        transport.write(b" ")
        await asyncio.sleep(0.5)
    raise asyncio.CancelledError


def main() -> None:
    """Serve until stdin is closed."""
    with HostileHead() as head:
        print(head.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()

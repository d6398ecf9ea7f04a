"""
Runs a scripted Ray head for benchmarks, in its own process; it counts its requests and their cost.

    python benchmarks/head.py --jobs 1000 --old 100000

It has the jobs of `timetable`, whose status depends on the time. A request costs what was measured on Ray 2.60 (1.7 ms
for one job, 0.32 ms for each job on record for the list, 0.1 ms for each actor that is alive). Like a real head, it
handles one request at a time: an answer waits for all answers before it. Its first line of output is its port.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import sys
import time
from typing import NamedTuple

from timetable import Timetable

#: Seconds that each request takes a real head (Ray 2.60, 2 cores).
COST = {"look": 0.0017, "version": 0.0016, "actors": 0.0017, "submit": 0.018, "stop": 0.0017}
COST_PER_JOB_LISTED = 0.00032
COST_PER_ACTOR_LISTED = 0.0001

LINE = b"%099d\n"
MESSAGE = 200  # lines


class Request(NamedTuple):
    """One request."""

    method: str
    path: str
    headers: bytes
    body: bytes


class Account:
    """Numbers and cost of the requests."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {}
        self.cost = 0.0
        self.free_at = 0.0

    def enter(self, kind: str, cost: float) -> float:
        """Record a request; return the seconds until a real head would have answered it."""
        now = time.monotonic()
        self.number[kind] = self.number.get(kind, 0) + 1
        self.cost += cost
        self.free_at = max(self.free_at, now) + cost
        return self.free_at - now


class Head:
    """The jobs and the answers."""

    def __init__(self, times: Timetable, old: int, log_bytes: int) -> None:
        self.times = times
        self.log_bytes = log_bytes
        self.account = Account()
        self.old_number = old
        self._old = b""
        self.submitted: set[str] = set()
        self.streamed = False

    def answer(self, request: Request) -> tuple[float, int, bytes]:
        """Return the seconds to wait, the HTTP status and the body."""
        path = request.path.partition("?")[0]
        if path == "/bench":
            return 0.0, 200, json.dumps({"number": self.account.number, "cost": self.account.cost}).encode()
        if request.method == "POST":
            return self._post(path, request.body)
        if path == "/api/jobs/":
            return self._list()
        if path.startswith("/api/jobs/"):
            return self._job(path.removeprefix("/api/jobs/"))
        if path == "/api/version":
            version = {"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "session_1"}
            return self.account.enter("version", COST["version"]), 200, json.dumps(version).encode()
        if path == "/api/v0/actors" and "filter_values=ALIVE" in request.path:
            return self._actors()
        if path == "/api/v0/actors":
            number = len(self.times.begun_by(time.time())) + self.old_number
            total = {"data": {"result": {"total": number, "result": []}}}
            return self.account.enter("actors", COST["actors"]), 200, json.dumps(total).encode()
        return 0.0, 404, b"404: Not Found"

    def _post(self, path: str, body: bytes) -> tuple[float, int, bytes]:
        if path != "/api/jobs/":
            return self.account.enter("stop", COST["stop"]), 200, b'{"stopped": true}'
        name = json.loads(body).get("submission_id") or f"raysubmit_{len(self.submitted)}"
        self.submitted.add(name)
        done = {"job_id": name, "submission_id": name}
        return self.account.enter("submit", COST["submit"]), 200, json.dumps(done).encode()

    def _job(self, name: str) -> tuple[float, int, bytes]:
        wait = self.account.enter("look", COST["look"])
        if (secret := secret_of(name)) is not None:
            return wait, 200, details(name, "SUCCEEDED", secret)
        if name == "log":  # a job that ends with its log
            return wait, 200, details(name, "SUCCEEDED" if self.streamed else "RUNNING")
        if name in self.submitted:
            return wait, 200, details(name, "RUNNING")
        status = self.times.status(name, time.time() + wait)
        if status is None:
            return wait, 404, f"Job {name} does not exist".encode()
        return wait, 200, details(name, status)

    def _actors(self) -> tuple[float, int, bytes]:
        """Return the actors of the jobs that run."""
        now = time.time()
        names = [name for name in self.times.begun_by(now) if self.times.status(name, now) == "RUNNING"]
        wait = self.account.enter("live actors", COST["actors"] + COST_PER_ACTOR_LISTED * len(names))
        return wait, 200, b'{"data": {"result": {"result": [' + b", ".join(map(actor, names)) + b"]}}}"

    def _list(self) -> tuple[float, int, bytes]:
        now = time.time()  # a list shows the jobs as they were when it began
        names = self.times.begun_by(now)
        wait = self.account.enter("list", COST_PER_JOB_LISTED * (len(names) + self.old_number))
        if self.old_number and not self._old:
            self._old = b", ".join(details(f"old{n}", "SUCCEEDED") for n in range(self.old_number)) + b", "
        jobs = b", ".join(details(name, status) for name in names if (status := self.times.status(name, now)))
        return wait, 200, b"[" + self._old + jobs + b"]"


def secret_of(name: str) -> str | None:
    """Return the secret of a job that has ended and has told it: `own-7` has one of its own, `same-7` a common one."""
    kind, _, number = name.partition("-")
    return {"own": f"secret-of-job-{number:>08}", "same": "secret-of-all-jobs"}.get(kind)


def details(name: str, status: str, secret: str | None = None) -> bytes:
    """Return a job's details as from a real head, of about the same size."""
    ended = status != "RUNNING"
    message = "Job is currently running." if secret is None else f"ValueError: {secret} was refused"
    runtime_env = "{}" if secret is None else json.dumps({"env_vars": {"API_TOKEN": secret, "STEP": "training"}})
    return (
        f'{{"type": "SUBMISSION", "job_id": "01000000", "submission_id": "{name}", "driver_info": {{"id": "01000000", '
        f'"node_ip_address": "127.0.0.1", "pid": "1234"}}, "status": "{status}", "entrypoint": "python train.py", '
        f'"message": "{message}", "error_type": null, "start_time": 1700000000000, '
        f'"end_time": {"1700000001000" if ended else "null"}, "metadata": {{"airflow_try_number": "1"}}, '
        f'"runtime_env": {runtime_env}, "driver_agent_http_address": "http://127.0.0.1:52365", '
        f'"driver_node_id": "{"ab" * 28}", "driver_exit_code": {"0" if ended else "null"}}}'
    ).encode()


def actor(name: str) -> bytes:
    """Return the actor of a job as from a real head, of about the same size."""
    return (
        f'{{"actor_id": "{"ab" * 16}", "class_name": "JobSupervisor", "state": "ALIVE", "job_id": "01000000", '
        f'"name": "_ray_internal_job_actor_{name}", "node_id": "{"ab" * 28}", "pid": 1234, '
        f'"ray_namespace": "SUPERVISOR_ACTOR_RAY_NAMESPACE"}}'
    ).encode()


class Connection(asyncio.Protocol):
    """Connection of one client: HTTP/1.1 with keep-alive, and WebSockets for logs."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self.buffer = b""
        self.flowing = asyncio.Event()
        self.flowing.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self.transport = transport

    def pause_writing(self) -> None:
        """Wait for a slow client."""
        self.flowing.clear()

    def resume_writing(self) -> None:
        """Continue sending."""
        self.flowing.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake up a waiting stream, so that it ends."""
        self.flowing.set()

    def data_received(self, data: bytes) -> None:
        """Handle all complete requests in the buffer."""
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            lower = head.lower()
            at = lower.find(b"content-length:")
            length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            self.serve(Request(method, path, head, body))

    def serve(self, request: Request) -> None:
        """Answer one request after its delay."""
        if request.path.endswith("/logs/tail"):
            self.task = asyncio.ensure_future(self.stream(request))
            return
        wait, status, body = self.head.answer(request)
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        asyncio.get_running_loop().call_later(wait, self.transport.write, head.encode() + body)

    async def stream(self, request: Request) -> None:
        """Send the log as Ray does, in messages of 20,000 characters, then close as at a job's end."""
        key = next(line for line in request.headers.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
        digest = hashlib.sha1(key.split(b":", 1)[1].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11")  # noqa: S324
        accept = base64.b64encode(digest.digest()).decode()
        lines = ["HTTP/1.1 101 X", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}"]
        self.transport.write("\r\n".join([*lines, "", ""]).encode())
        if (secret := secret_of(request.path.split("/")[3])) is not None:
            text = "".join(f"{number:099d}\n" for number in range(40)) + f"token={secret}\n"
            self.transport.write(b"\x81\x7e" + len(text).to_bytes(2, "big") + text.encode())
            await asyncio.sleep(1.0)
            self.transport.write(b"\x88\x02\x03\xe8")
            return
        payload = b"".join(LINE % number for number in range(MESSAGE))
        message = b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload
        for _ in range(self.head.log_bytes // len(payload)):
            self.transport.write(message)
            await self.flowing.wait()
            if self.transport.is_closing():
                return
        await asyncio.sleep(1.0)
        self.head.streamed = True
        self.transport.write(b"\x88\x02\x03\xe8")


async def main() -> None:
    """Serve until the parent closes the standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--old", type=int, default=0)
    parser.add_argument("--begin", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--age", type=float, default=0.0)
    parser.add_argument("--log-bytes", type=int, default=0)
    args = parser.parse_args()
    head = Head(Timetable(args.jobs, args.begin, args.seconds, args.age), args.old, args.log_bytes)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(head), "127.0.0.1", 0, backlog=10_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # the parent keeps it open


if __name__ == "__main__":
    asyncio.run(main())

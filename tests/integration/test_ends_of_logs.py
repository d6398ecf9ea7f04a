"""The end of a job's log, on a real head: every line is shown once, and soon after the job's end."""

from __future__ import annotations

import asyncio
import logging
import shlex
import statistics
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
from airflow_provider_rayjobs.client.log_files import log_file_path
from airflow_provider_rayjobs.cluster.connection import ClusterConnection
from airflow_provider_rayjobs.following.poller import Poller
from airflow_provider_rayjobs.following.watcher import JobWatcher, Watch

if TYPE_CHECKING:
    from tests.support.ray_head import RayHead
pytestmark = pytest.mark.timeout(900)

#: Python programs; "w" writes bytes at once.
WRITE = "import os, sys, time; w = lambda data: [os.write(1, data[n:n + 65536]) for n in range(0, len(data), 65536)]; "
LINES = "w(b''.join(b'line %07d of the last moment\\n' % n for n in range({})))"
PROGRAMS = {
    "nothing": "pass",
    "one line": "w(b'only\\n')",
    "one line, no break": "w(b'only')",
    "empty lines": "w(b'\\n\\n\\n')",
    "one empty line more": "w(b'last\\n\\n')",
    **{f"{number} lines": LINES.format(number) for number in (10, 1000, 20_000, 200_000)},
    **{f"{number} lines, no break": LINES.format(number) + "; w(b'last')" for number in (10, 1000, 20_000)},
    "carriage returns": "w(b'10%\\r20%\\r30%\\rdone\\r\\n')",
    "carriage returns, no break": "w(b'10%\\r20%\\r30%\\r')",
    "a pause in a line end": "w(b'one\\r'); time.sleep(2.5); w(b'\\ntwo\\r'); time.sleep(2.5); w(b'\\n\\nthree')",
    "a pause in a character": "w(b'caf\\xc3'); time.sleep(2.5); w(b'\\xa9\\nlast')",
    "not UTF-8": "w(b'caf\\xe9\\n' * 10)",
    "not UTF-8 at the end": "w(b'fine\\n'); time.sleep(2.5); w(b'last \\xff\\xfe')",
    "not UTF-8, many lines": LINES.format(20_000) + "; w(b'\\xff\\n')",
    "others than ASCII": "w('☃ naïve 😀\\u2028\\n'.encode() * 5000 + 'ende 😀'.encode())",
    "a long line": "w(b'x' * 100_000 + b'\\nlast\\n')",
    "a line that breaks the stream": "w(b'first\\n' + b'x' * 5_000_000 + b'\\nlast')",
    "the last moment of a longer job": "w(b'first\\n'); time.sleep(3); " + LINES.format(5000),
    "now and then": "[(w(b'line %d\\n' % n), time.sleep(0.2)) for n in range(20)]; w(b'last')",
    "a failure": LINES.format(1000) + "; sys.exit(3)",
    "a failure, no break": "w(b'Traceback'); sys.exit(3)",
    "killed": LINES.format(100) + "; os.kill(os.getpid(), 9)",
    "through a pipe": "os.execvp('bash', ['bash', '-c', 'seq 1 50000 > >(cat)'])",
    "of a child": "os.execvp('sh', ['sh', '-c', 'seq 1 3000; seq 1 3000 | cat; printf last'])",
}


class Task:
    """One followed job, and what its task log has."""

    def __init__(self, name: str) -> None:
        self.id = f"end-{uuid.uuid4().hex[:12]}"
        self.name = name
        self.lines: list[str] = []
        self.late = 0.0  # seconds from the job's end to the task's
        self.node_id = ""

    async def run(self, head: RayHead, poller: Poller) -> None:
        command = f"python -c {shlex.quote(WRITE + PROGRAMS[self.name])}"
        await asyncio.to_thread(head.submit, command, submission_id=self.id)
        log = logging.getLogger("tests.ends")
        watcher = JobWatcher(poller, Watch(self.id, time.time()), log, write=self.lines.append)
        event = await watcher.run()
        details = await asyncio.to_thread(head.job, self.id)
        assert details is not None
        self.late, self.node_id = event.ended_at - details["end_time"] / 1000, details["driver_node_id"]


@pytest.fixture(scope="module")
def tasks(ray_head: RayHead) -> dict[str, Task]:
    """Run all jobs, a few at a time."""
    tasks = {name: Task(name) for name in PROGRAMS}

    async def main() -> None:
        few = asyncio.Semaphore(6)

        async def one(task: Task) -> None:
            async with few:
                await task.run(ray_head, poller)

        headers = {"Authorization": f"Bearer {ray_head.token}"} if ray_head.token else {}
        async with Poller(AiohttpTransport(ClusterConnection("ray", ray_head.url, headers))) as poller:
            await asyncio.gather(*map(one, tasks.values()))

    asyncio.run(main())
    return tasks


def final_text(head: RayHead, task: Task) -> str:
    """Return the text of the job's log file."""
    status, text = head.request("GET", log_file_path(task.id, task.node_id))
    assert status == 200
    return text.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_line_is_shown_once_and_in_order(name: str, tasks: dict[str, Task], ray_head: RayHead) -> None:
    task = tasks[name]
    text = final_text(ray_head, task)
    expected = text.removesuffix("\n").split("\n")
    shown = "\n".join(task.lines)
    if name.startswith("a pause in a line end"):
        # Ray's stream has two line ends where the file has one.
        shown, expected = "\n".join(filter(None, task.lines)), list(filter(None, expected))
    if name.startswith("a l"):
        shown, expected = shown.replace("\n", ""), ["".join(expected)]
    assert shown == "\n".join(expected)


def test_a_small_log_delays_the_end_by_little(tasks: dict[str, Task]) -> None:
    late = {name: task.late for name, task in tasks.items() if "000 lines" not in name}
    # A job's end is noticed within 1.35 s; Ray closes its stream 3-4 s after it.
    assert statistics.median(late.values()) < 2.0, late

"""The last line of each of 100 logs, from nothing to 300 MB, is the last line shown, on a real head."""

from __future__ import annotations

import asyncio
import itertools
import logging
import shlex
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
from airflow_provider_rayjobs.cluster.connection import ClusterConnection
from airflow_provider_rayjobs.following.poller import Poller
from airflow_provider_rayjobs.following.watcher import JobWatcher, Watch

if TYPE_CHECKING:
    from airflow_provider_rayjobs.following.events import JobEvent
    from tests.support.ray_head import RayHead

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

LINE = "x" * 99 + "\n"
SIZES = (1, 60, 1000, 16_000, 65_536, 70_000, 300_000, 1_000_000, 5_000_000, 30_000_000, 100_000_000, 300_000_000)

#: Writes lines of 100 characters, then what is given as hexadecimal digits; then it fails. It waits first, because Ray
#: may write its own first lines behind those of a quick job.
PROGRAM = """
import os, sys, time
time.sleep(0.5)
size, last = int(sys.argv[1]), bytes.fromhex(sys.argv[2])
def write(data):
    while data:
        data = data[os.write(1, data):]
lines = size // 100
while lines:
    part = min(lines, 10_000)
    write((b"x" * 99 + b"\\n") * part)
    lines -= part
write(b"x" * (size % 100) + last)
sys.exit(3)
"""

#: Lines that Ray writes first: that the runtime environment is being set up, and the command.
FIRST_LINES = PROGRAM.count("\n") + 2


class Log(NamedTuple):
    """
    A job's log.

    :param size: bytes before the last line.
    :param last: the last line, and what stands behind it.
    :param streamed: whether the log is shown while the job runs; else only its end, because the job fails.
    """

    size: int
    last: bytes
    streamed: bool

    def lines(self) -> list[str]:
        """Return the lines; what is not UTF-8 is shown as U+FFFD."""
        whole, rest = divmod(self.size, 100)
        text = (LINE * whole) + "x" * rest + self.last.decode(errors="replace")
        return text.removesuffix("\n").split("\n") if text else []


ENDS = (
    "café, the last line\n".encode(),
    "café, the last line".encode(),
    b"caf\xe9, the last line\n",
    b"caf\xe9, the last",
)
LOGS = [
    *(Log(*given) for given in itertools.product(SIZES, ENDS, (True, False))),
    *(Log(0, last, streamed) for last in (b"", b"\n") for streamed in (True, False)),
]


async def follow(head: RayHead, poller: Poller, log: Log, number: int) -> tuple[JobEvent, list[str]]:
    """Run a job and follow it; return the event and the lines that were shown."""
    submission_id = f"last-{number}-{time.time_ns()}"
    command = shlex.join(["python", "-c", PROGRAM, str(log.size), log.last.hex()])
    await asyncio.to_thread(head.submit, command, submission_id=submission_id)
    records: list[str] = []
    watch = Watch(submission_id, time.time(), stream_logs=log.streamed)
    event = await JobWatcher(poller, watch, logging.getLogger("tests.ends"), write=records.append).run()
    return event, [line for record in records for line in record.split("\n")]


def test_the_last_line_of_a_log_is_the_last_line_shown(ray_head: RayHead) -> None:
    wrong = []

    async def main() -> None:
        few = asyncio.Semaphore(3)

        async def one(number: int, log: Log) -> None:
            async with few:
                event, shown = await follow(ray_head, poller, log, number)
                expected, tail = log.lines(), list(event.log_tail)
                end = expected[-50:]
                right = not end or tail[-len(end) :] == end
                if log.streamed:
                    right &= shown[FIRST_LINES:] == expected
                if not right:
                    wrong.append((log, len(expected), len(shown), shown[-2:], tail[-2:], event.detail))

        headers = {"Authorization": f"Bearer {ray_head.token}"} if ray_head.token else {}
        async with Poller(AiohttpTransport(ClusterConnection("ray", ray_head.url, headers))) as poller:
            await asyncio.gather(*(one(number, log) for number, log in enumerate(LOGS)))

    assert len(LOGS) == 100
    asyncio.run(main())
    assert not wrong

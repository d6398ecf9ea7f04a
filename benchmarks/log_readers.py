"""
Reads a job's log of any size and measures; run by `log_stream`, in the environment of its subject.

    python log_readers.py ours --url http://127.0.0.1:1234
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import resource
import sys
import time
from typing import Any

SUBMISSION_ID = "log"
GOAL = 0


class Sink:
    """Stands in for the task log, and counts the characters."""

    def __init__(self) -> None:
        self.characters = 0
        self.goal = GOAL  # characters of the whole log
        self.complete = self.cpu = 0.0  # times at which it was complete
        self.warnings: list[str] = []

    def info(self, text: str, *args: object) -> None:
        """Take a line."""
        if not args:
            self.characters += len(text) + 1
            if self.characters >= self.goal:
                self.complete, self.cpu = time.perf_counter(), time.process_time()
                self.goal = sys.maxsize

    def warning(self, text: str, *args: object) -> None:
        """Take a warning."""
        self.warnings.append(text)

    debug = error = warning


async def ours(url: str, submission_id: str) -> Sink:
    """Follow the job as the operator does; each line goes to the log."""
    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.following.poller import Poller
    from airflow_provider_rayjobs.following.watcher import JobWatcher, Watch

    sink = Sink()
    async with Poller(AiohttpTransport(ClusterConnection("bench", url))) as poller:
        await JobWatcher(poller, Watch(submission_id, time.time()), sink).run()
    return sink


async def lines(url: str, submission_id: str) -> Sink:
    """Read the WebSocket to its end; each line goes to the log."""
    import aiohttp

    sink, rest = Sink(), ""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/api/jobs/{submission_id}/logs/tail", max_msg_size=0) as socket,
    ):
        async for message in socket:
            *found, rest = (rest + message.data).split("\n")
            for line in found:
                sink.info(line)
    return sink


async def bare(url: str, submission_id: str) -> Sink:
    """Read the WebSocket to its end; each message goes to the log."""
    import aiohttp

    sink = Sink()
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/api/jobs/{submission_id}/logs/tail", max_msg_size=0) as socket,
    ):
        async for message in socket:
            sink.info(message.data)
    return sink


SUBJECTS = {"ours": ours, "lines": lines, "bare": bare}


def main() -> None:
    """Print the figures as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--submission-id", default=SUBMISSION_ID)
    parser.add_argument("--characters", type=int, required=True)
    args = parser.parse_args()
    global GOAL  # noqa: PLW0603
    GOAL = args.characters
    import aiohttp  # noqa: F401
    import tenacity  # noqa: F401

    if args.subject == "ours":
        import airflow_provider_rayjobs.following.watcher  # noqa: F401
    logging.disable(logging.CRITICAL)
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, began = time.process_time(), time.perf_counter()
    sink: Any = asyncio.run(SUBJECTS[args.subject](args.url, args.submission_id))
    seconds = sink.complete - began
    result = {
        "characters": sink.characters,
        "seconds": seconds,
        "cpu_s": sink.cpu - cpu,
        "mb_per_cpu_s": sink.characters / 1e6 / (sink.cpu - cpu),
        "mb_per_s": sink.characters / 1e6 / seconds,
        "memory_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024,
        "warnings": sink.warnings,
    }
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

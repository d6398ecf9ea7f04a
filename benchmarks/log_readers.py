"""
Reads a job's log of any size into a task log's file and measures; run by `log_stream`.

    python log_readers.py ours --url http://127.0.0.1:1234 --file /tmp/task.log
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import task_log

SUBMISSION_ID = "log"


async def ours(url: str, submission_id: str, log: Any) -> None:
    """Follow the job as the operator does."""
    from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
    from airflow_provider_rayjobs.cluster.connection import ClusterConnection
    from airflow_provider_rayjobs.compat import masking
    from airflow_provider_rayjobs.following.poller import Poller
    from airflow_provider_rayjobs.following.watcher import JobWatcher, Watch

    async with Poller(AiohttpTransport(ClusterConnection("bench", url))) as poller:
        await JobWatcher(poller, Watch(submission_id, time.time()), log, masking.public_for).run()


async def lines(url: str, submission_id: str, log: Any) -> None:
    """Read the WebSocket to its end; each line is a record."""
    import aiohttp

    rest = ""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/api/jobs/{submission_id}/logs/tail", max_msg_size=0) as socket,
    ):
        async for message in socket:
            *found, rest = (rest + message.data).split("\n")
            for line in found:
                log.info(line)


async def bare(url: str, submission_id: str, log: Any) -> None:
    """Read the WebSocket to its end; each message is a record."""
    import aiohttp

    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/api/jobs/{submission_id}/logs/tail", max_msg_size=0) as socket,
    ):
        async for message in socket:
            log.info(message.data)


SUBJECTS = {"ours": ours, "lines": lines, "bare": bare}


def main() -> None:
    """Print the figures as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--submission-id", default=SUBMISSION_ID)
    parser.add_argument("--file", type=Path, required=True)
    args = parser.parse_args()
    import aiohttp  # noqa: F401
    import tenacity  # noqa: F401

    if args.subject == "ours":
        import airflow_provider_rayjobs.compat.masking
        import airflow_provider_rayjobs.following.watcher  # noqa: F401
    began = time.time()

    def work(log: Any) -> None:
        asyncio.run(SUBJECTS[args.subject](args.url, args.submission_id, log))

    result: dict[str, Any] = dict(task_log.run_logged(work, args.file))
    characters, records = task_log.content(args.file)
    seconds = result["complete"] - began
    spent = result["reader_cpu_s"] + result["supervisor_cpu_s"]
    result |= {
        "characters": characters,
        "records": records,
        "seconds": seconds,
        "mb_per_cpu_s": characters / 1e6 / spent,
        "mb_per_s": characters / 1e6 / seconds,
    }
    sys.stdout.write("\n" + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

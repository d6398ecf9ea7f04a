"""
Records the responses of real heads to each request that the provider makes, including failed ones.

    python -m tests.samples.record .envs/ray-2.60/bin/ray [...]

It starts a head for each ``ray``; its responses replace those in ``tests/samples/<its version>/``. A second run with
the same version changes no file, so ``git diff --no-index`` between two folders shows what a new release changes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp

from airflow_provider_rayjobs.client import cluster_status, listing, log_files, package_store, verbs
from airflow_provider_rayjobs.client.exchange import Request
from airflow_provider_rayjobs.client.submission import Submission
from tests.samples.stable import stable, stable_text
from tests.support import samples
from tests.support.ray_head import RayHead
from tests.support.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_rayjobs.client.exchange import Flow

#: One job for each way in which a job can end.
WHOLE = Submission(
    "sleep 2; echo first; sleep 5; echo last; sleep 3",
    "whole",
    runtime_env={"env_vars": {"GREETING": "hello"}},
    metadata={"team": "a"},
    entrypoint_num_cpus=0.5,
    entrypoint_num_gpus=0,
    entrypoint_memory=2**20,
    entrypoint_resources={"here": 0.5},
)
FAILS = Submission("sleep 2; echo boom; exit 3", "fails")
SLEEPS = Submission("sleep 1000", "sleeps")
WAITS = Submission("true", "waits", entrypoint_resources={"nowhere": 1})
NO_CODE = Submission("true", "no-code", runtime_env={"working_dir": "gcs://_ray_pkg_missing.zip"})
#: Connects to Ray, then starts a driver that was not submitted, which does the same.
CONNECTS = Submission(
    "python -c 'import ray; ray.init()' && env -u RAY_JOB_CONFIG_JSON_ENV_VAR python -c 'import ray; ray.init()'",
    "connects",
)
LABELLED = Submission("true", "labelled", entrypoint_label_selector={"zone": "!b"})

#: Submissions that Ray rejects, and that the provider would not send.
REFUSED: dict[str, dict[str, Any]] = {
    "submit_duplicate": {"entrypoint": "true", "submission_id": "fails"},
    "submit_no_entrypoint": {"submission_id": "x"},
    "submit_bad_cpus": {"entrypoint": "true", "entrypoint_num_cpus": "one"},
    "submit_bad_resources": {"entrypoint": "true", "entrypoint_resources": ["here"]},
    "submit_bad_metadata": {"entrypoint": "true", "metadata": {"team": 1}},
    "submit_bad_runtime_env": {"entrypoint": "true", "runtime_env": "x"},
    "submit_unknown_field": {"entrypoint": "true", "of_a_later_ray": 1},
}

PACKAGE = "_ray_pkg_0123456789abcdef.zip"
#: More than the head's limit of 100 MiB.
TOO_LARGE = 101 * 2**20


class MonitoredHead(RayHead):
    """A head with the monitor, which reports nodes and free CPUs; other tests don't need it."""

    def _command(self, directory: Path) -> list[str]:
        return [word for word in super()._command(directory) if word != "--no-monitor"]


class Recorder:
    """
    Sends requests to a head and records its responses.

    :param url: address of the head.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url
        self.samples: dict[str, Sample] = {}

    async def ask(self, request: Request, data: bytes | None = None, **headers: str) -> tuple[int, str, str]:
        """Send a request; return status, content type and body."""
        async with self._session.request(
            request.method, self._url + request.path, json=request.json, data=data, headers=headers
        ) as answer:
            return answer.status, answer.headers.get("Content-Type", ""), await answer.text()

    async def keep(self, name: str, asked: Request | Flow[Any], data: bytes | None = None) -> None:
        """Send a request, or the first one of a flow, and record the response."""
        request = asked if isinstance(asked, Request) else next(asked)
        self._keep(name, request, await self.ask(request, data))

    def _keep(self, name: str, request: Request, answer: tuple[int, str, str]) -> None:
        status, content_type, text = answer
        line = stable_text(f"{request.method} {request.path}")
        if "json" in content_type:
            body = stable(json.loads(text))
            if isinstance(body, list):  # jobs, in any order
                body = sorted(filter(_is_on_all, body), key=lambda job: job["submission_id"] or "")
            self.samples[name] = Sample(line, status, content_type, json=body)
        else:
            self.samples[name] = Sample(line, status, content_type, text=stable_text(text).split("\n"))

    async def keep_stream(self, name: str, path: str) -> None:
        """Open a WebSocket; record its first and last line and how it was closed, or the response that refused it."""
        try:
            async with self._session.ws_connect(self._url + path) as socket:
                messages = [str(message.data) async for message in socket]
                # How many lines one message has depends on timing.
                ends = [messages[0].splitlines(keepends=True)[0], messages[-1].splitlines(keepends=True)[-1]]
                lines = [stable_text(line) for line in ends]
                self.samples[name] = Sample(f"GET {path}", 101, frames=lines, close_code=socket.close_code)
        except aiohttp.WSServerHandshakeError:
            upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
            request = Request("GET", path)
            answer = await self.ask(request, **upgrade, **{"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
            self._keep(name, request, answer)

    async def until(self, submission_id: str, *statuses: str) -> dict[str, Any]:
        """Wait until a job has one of these statuses; return its details."""
        request = next(verbs.get_job_info(submission_id))
        return await self.wait_for(request, lambda job: job["status"] in statuses)

    async def wait_for(self, request: Request, suits: Callable[[Any], object]) -> Any:
        """Repeat a request until the JSON of the response meets a condition; return it."""
        async with asyncio.timeout(120):
            while True:
                status, _, text = await self.ask(request)
                with suppress(ValueError, KeyError, TypeError):
                    if status == 200 and suits(data := json.loads(text)):
                        return data
                await asyncio.sleep(0.2)


def _is_on_all(job: dict[str, Any]) -> bool:
    """Return whether each Ray lists a job: not the head's first job, and not the labelled one."""
    submission_id = job["submission_id"] or ""
    return submission_id != LABELLED.submission_id and not submission_id.startswith("ready-")


async def record_submissions(recorder: Recorder) -> None:
    """Submit all jobs, then those that are rejected."""
    await recorder.keep("version", verbs.get_version())
    await recorder.keep("submit", WHOLE.request())
    for submission in (FAILS, SLEEPS, WAITS, NO_CODE, CONNECTS):
        status, _, text = await recorder.ask(submission.request())
        if status != 200:
            raise RuntimeError(f"{submission.submission_id}: {status} {text}")
    await recorder.keep("submit_label_selector", LABELLED.request())
    await recorder.until("fails", "FAILED")
    for name, body in REFUSED.items():
        await recorder.keep(name, Request("POST", "/api/jobs/", json=body))
    await recorder.keep("no_such_route", Request("GET", "/api/nowhere"))


async def record_jobs(recorder: Recorder) -> None:
    """Read, stop and delete jobs in each status, and list all."""
    await recorder.until("sleeps", "RUNNING")
    await recorder.keep("get_running", verbs.get_job_info("sleeps"))
    await recorder.keep("get_pending", verbs.get_job_info("waits"))
    await recorder.keep("delete_running", verbs.delete_job("sleeps"))
    await recorder.keep("stop_running", verbs.stop_job("sleeps"))
    for name, submission_id in {
        "succeeded": "whole",
        "failed": "fails",
        "failed_setup": "no-code",
        "stopped": "sleeps",
        "connected": "connects",
    }.items():
        await recorder.until(submission_id, "SUCCEEDED", "FAILED", "STOPPED")
        await recorder.keep(f"get_{name}", verbs.get_job_info(submission_id))
    await recorder.keep("get_unknown", verbs.get_job_info("unknown"))
    await recorder.keep("list", listing.list_jobs())
    await recorder.keep("stop_ended", verbs.stop_job("fails"))
    await recorder.keep("stop_unknown", verbs.stop_job("unknown"))
    await recorder.keep("delete_ended", verbs.delete_job("fails"))
    await recorder.keep("delete_unknown", verbs.delete_job("unknown"))
    await recorder.keep("stop_pending", verbs.stop_job("waits"))


async def record_logs(recorder: Recorder) -> None:
    """Read logs in each way."""
    await recorder.keep_stream("tail", f"{verbs.job_path('whole')}/logs/tail")
    await recorder.keep_stream("tail_unknown", f"{verbs.job_path('unknown')}/logs/tail")
    job = await recorder.until("whole", "SUCCEEDED")
    await recorder.keep("logs", log_files.get_job_logs("whole"))
    await recorder.keep("logs_unknown", log_files.get_job_logs("unknown"))
    for name, filename in {"log_file": "job-driver-whole.log", "log_file_missing": "job-driver-whole.result"}.items():
        query = {"node_id": job.get("driver_node_id") or "", "filename": filename, "lines": -1}
        request = Request("GET", f"/api/v0/logs/file?{urlencode(query)}")
        await recorder.keep(name, request)
        while not recorder.samples[name].body:  # older Ray versions sometimes send no error text
            await recorder.keep(name, request)


async def record_packages(recorder: Recorder) -> None:
    """Look up a package before and after its upload, and upload one that is too large."""
    exists, put = package_store.has_package(PACKAGE), Request("PUT", f"/api/packages/gcs/{PACKAGE}")
    await recorder.keep("package_missing", exists)
    await recorder.keep("package_put", put, b"PK\x05\x06" + bytes(18))
    await recorder.keep("package_there", package_store.has_package(PACKAGE))
    await recorder.keep("package_too_large", put, bytes(TOO_LARGE))


async def record_cluster(recorder: Recorder) -> None:
    """Read the dashboard's status of the cluster."""
    request = next(cluster_status.describe_resources())
    assert isinstance(request, Request)
    # The monitor reports every 5 s; wait until no job has a CPU.
    await recorder.wait_for(
        request, lambda answer: answer["data"]["clusterStatus"]["loadMetricsReport"]["usage"]["CPU"][0] == 0
    )
    await recorder.keep("cluster_status", request)
    await recorder.keep("actors", listing.count_actors())


async def record(url: str) -> dict[str, Sample]:
    """Record all responses of a head that has not run any job yet."""
    # Each request uses a new connection, because the head closes the connection when it rejects a body.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(60)) as session:
        recorder = Recorder(session, url)
        await record_submissions(recorder)
        async with asyncio.TaskGroup() as group:
            for part in (record_logs, record_jobs, record_packages):
                group.create_task(part(recorder))
        await record_cluster(recorder)
        return recorder.samples


def main(rays: list[str]) -> None:
    """Record the responses of each ``ray``."""
    if not rays:
        sys.exit("Name the `ray` programs to record.")
    for ray in rays:
        with MonitoredHead(extra_args=["--resources", '{"here": 1}'], ray_bin=Path(ray), token="") as head:
            found = asyncio.run(record(head.url))
        version = found["version"].json["ray_version"]
        samples.write(version, found)
        print(f"tests/samples/{version}: {len(found)} responses")


if __name__ == "__main__":
    main(sys.argv[1:])

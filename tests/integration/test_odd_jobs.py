"""Jobs that print arbitrary bytes, print a lot, or can't be started; on each Ray.

Set RAYJOBS_RAY_BIN to test another Ray than the newest one.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_rayjobs.client import log_files
from airflow_provider_rayjobs.client.aiohttp_transport import AiohttpTransport
from airflow_provider_rayjobs.exceptions import RayJobFailedError
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from tests.support.command_line import call
from tests.support.tries import Tries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.ray_head import RayHead

BOTH = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])

#: Python programs that write these bytes.
NOT_UTF8 = r"import os; os.write(1, b'before\n'); os.write(1, b'caf\xe9\n'); os.write(1, b'after\n')"
FAILS = r"import os, sys; os.write(1, b'before\nna\xefve \0\n'); os.write(2, b'ValueError: the reason\n'); sys.exit(3)"
MIXED = r"import os; os.write(1, b'one\r\ntwo\rthree \xff\xfe\nfour')"


@pytest.fixture(autouse=True)
def _connection(ray_head: RayHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(ray_head.connection()))


@pytest.fixture
def hook() -> Iterator[RayJobHook]:
    hook = RayJobHook()
    yield hook
    hook.close()


def tries(code: str, **arguments: Any) -> Tries:
    def make() -> RaySubmitJobOperator:
        return RaySubmitJobOperator(task_id="odd", entrypoint=["python", "-c", code], **arguments)

    return Tries(make, f"odd-{uuid.uuid4().hex[:8]}")


def own_lines(lines: list[str]) -> list[str]:
    """Return the lines that the job printed, without Ray's own."""
    return [line for line in lines if line in {"before", "caf�", "after", "one", "two", "three ��", "four"}]


@BOTH
def test_lines_that_are_not_utf8_arrive(deferrable: bool, hook: RayJobHook) -> None:
    task = tries(NOT_UTF8, deferrable=deferrable)
    task.run()
    assert own_lines(task.lines) == ["before", "caf�", "after"]


@BOTH
@pytest.mark.parametrize("stream_logs", [True, False], ids=["streamed", "quiet"])
def test_the_error_of_a_failed_job_has_its_last_lines_whatever_bytes_they_are(
    stream_logs: bool, deferrable: bool, ray_head: RayHead
) -> None:
    task = tries(FAILS, deferrable=deferrable, stream_logs=stream_logs)
    with pytest.raises(RayJobFailedError) as caught:
        task.run()
    text = str(caught.value)
    # Older Ray versions read the log as UTF-8 for their message, which fails, so the exit code is lost.
    assert ("exit code 3" if ray_head.version >= (2, 60) else "UnicodeDecodeError") in text
    # On a busy machine, Ray's own line about the entrypoint may come after them.
    last = "\nbefore\nna�ve \\x00\nValueError: the reason"
    assert last in "\n".join(["", *caught.value.log_tail])
    if stream_logs:  # the task log has them already
        assert "Last line of the job's log: ValueError: the reason" in text
    else:
        assert last in text
    assert "\\u0000" not in json.dumps(task.events)


def test_each_way_to_read_a_log_has_the_same_lines(hook: RayJobHook, ray_head: RayHead) -> None:
    job = hook.submit_job(entrypoint=["python", "-c", MIXED])
    ray_head.wait_job(job, until={"SUCCEEDED"})
    wanted = ["one", "two", "three ��", "four"]
    assert own_lines(hook.get_job_logs(job).splitlines()) == wanted
    printed = call(ray_head, "logs", job)
    assert (printed.code, own_lines(printed.out.splitlines())) == (0, wanted)
    followed = call(ray_head, "logs", "--follow", job)
    assert (followed.code, own_lines(followed.out.splitlines())) == (0, wanted)


@pytest.mark.timeout(300)
def test_the_last_lines_of_a_long_log_cost_little(hook: RayJobHook, ray_head: RayHead) -> None:
    # Prints 300 MB, as fast as possible.
    lines = "'\\n'.join(f'line {i * 1000 + n:094d}' for n in range(1000))"
    code = f"import sys\nfor i in range(3000): print({lines})\nsys.exit(3)"
    task = tries(code, stream_logs=False)
    with pytest.raises(RayJobFailedError) as caught:
        task.run()
    last = [line for line in str(caught.value).splitlines() if line.startswith("line ")]
    assert [int(line.split()[1]) for line in last[-50:]] == list(range(2_999_950, 3_000_000))
    job = hook.get_job_info(task.ti.xcoms["submission_id"])
    read = 0

    def count(text: str) -> None:
        nonlocal read
        read += len(text)

    async def tail() -> float:
        transport = AiohttpTransport(hook.cluster)
        try:
            await transport.run(log_files.get_version())
            began = time.monotonic()
            flow = log_files.read_file(str(job.submission_id), str(job.driver_node_id), lambda: count, lines=50)
            await transport.run(flow)
            return time.monotonic() - began
        finally:
            await transport.close()

    seconds = asyncio.run(tail())
    assert read < 10_000
    assert seconds < 5
    print(f"{read} characters in {seconds * 1000:.0f} ms", file=sys.stderr)


@BOTH
def test_credentials_in_urls_of_a_set_up_that_fails_are_not_shown(deferrable: bool, ray_head: RayHead) -> None:
    def make() -> RaySubmitJobOperator:
        return RaySubmitJobOperator(
            task_id="odd",
            entrypoint="echo never",
            runtime_env={"working_dir": "https://bob:hunter4secret@127.0.0.1:39990/x.zip?sig=abcdefghijklmnopqrst"},
            deferrable=deferrable,
        )

    task = Tries(make, f"odd-{uuid.uuid4().hex[:8]}")
    with pytest.raises(RayJobFailedError) as caught:
        task.run()
    job = task.ti.xcoms["submission_id"]
    printed = [call(ray_head, *words) for words in (("status", job), ("logs", "--follow", job), ("list",))]
    shown = "\n".join([str(caught.value), *task.lines, json.dumps(task.events), *(p.out + p.err for p in printed)])
    assert "127.0.0.1:39990" in shown
    assert "hunter4secret" not in shown
    assert "abcdefghijklmnopqrst" not in shown


def test_jobs_that_fit_into_a_process_run_and_larger_ones_are_rejected(hook: RayJobHook, ray_head: RayHead) -> None:
    fits = {"A": "x" * 65_000, "B": "y" * 64_000}
    job = hook.submit_job(
        entrypoint="true #" + "x" * 131_065, runtime_env={"env_vars": fits}, metadata={"note": "z" * 500}
    )
    ray_head.wait_job(job, until={"SUCCEEDED"})
    too_large: tuple[dict[str, Any], ...] = (
        {"entrypoint": "true #" + "x" * 131_066},
        {"entrypoint": "true", "runtime_env": {"env_vars": {"A": "x" * 131_070}}},
        {"entrypoint": "true", "runtime_env": {"env_vars": fits | {"C": "z" * 2_000}}},
        {"entrypoint": "true", "metadata": {"a": "x" * 1_100_000}},
    )
    for arguments in too_large:
        with pytest.raises(ValueError, match=r"131,071|130,047"):
            hook.submit_job(submission_id="too-large", **arguments)
        assert ray_head.job("too-large") is None

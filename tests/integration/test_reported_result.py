"""``read_result`` on a real head: scripts and shell commands that report a value, and what becomes of it."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from airflow_provider_rayjobs.exceptions import RayJobFailedError, RayJobResultError
from airflow_provider_rayjobs.hooks import RayJobHook
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from tests.support.tries import Tries

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.ray_head import RayHead

BOTH = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])

TRAIN = """
import os, sys, time
import mine, own
from airflow_provider_rayjobs.job import progress, report_result

for epoch in range(1, 6):
    progress(epoch, 5, "epochs")
    report_result({"epoch": epoch, "loss": 1 / epoch})
    print("epoch", epoch)
if "--fail" in sys.argv:
    sys.exit("no more memory")
"""


@pytest.fixture(autouse=True)
def _connection(ray_head: RayHead, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(ray_head.connection()))


@pytest.fixture
def runtime_env(tmp_path: Path) -> dict[str, Any]:
    """The environment of a user who has modules in a working_dir, in py_modules and on a PYTHONPATH."""
    files = {"work/train.py": TRAIN, "mine/__init__.py": "", "path/own.py": ""}
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir()
        file.write_text(text)
    return {
        "working_dir": str(tmp_path / "work"),
        "py_modules": [str(tmp_path / "mine")],
        "env_vars": {"PYTHONPATH": str(tmp_path / "path")},
    }


def task(entrypoint: str, **kwargs: Any) -> Tries:
    def make() -> RaySubmitJobOperator:
        return RaySubmitJobOperator(task_id="task", entrypoint=entrypoint, read_result=True, retries=3, **kwargs)

    return Tries(make, uuid.uuid4().hex)


def python(code: str) -> str:
    return f"python -c 'from airflow_provider_rayjobs.job import report_result\n{code}'"


@BOTH
def test_a_script_returns_its_metric(runtime_env: dict[str, Any], deferrable: bool) -> None:
    tries = task("python train.py", runtime_env=runtime_env, deferrable=deferrable)
    assert tries.run() == {"epoch": 5, "loss": 0.2}
    assert tries.ti.xcoms["progress"] == {"done": 5, "total": 5, "message": "epochs"}
    assert [line for line in tries.lines if line.startswith("epoch ")] == [f"epoch {epoch}" for epoch in range(1, 6)]
    assert not [line for line in tries.lines if "\x1e" in line]
    assert len(tries.events) == int(deferrable)


@BOTH
def test_a_script_that_fails_leaves_its_last_report(runtime_env: dict[str, Any], deferrable: bool) -> None:
    tries = task("python train.py --fail", runtime_env=runtime_env, deferrable=deferrable)
    with pytest.raises(RayJobFailedError, match="no more memory"):
        tries.run()
    assert tries.ti.xcoms["return_value"] == {"epoch": 5, "loss": 0.2}


def test_a_shell_reports(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("1\n2\n3\n")
    report = "python -m airflow_provider_rayjobs.job report_result"
    script = f'bash -ec \'rows=$(wc -l < data.csv); echo "{{\\"rows\\": $rows}}" | {report} | tee out.txt\''
    assert task(script, runtime_env={"working_dir": str(tmp_path)}).run() == {"rows": 3}
    assert task(f"{report} '[1, null]' > /dev/null 2>&1; true").run() == [1, None]
    with pytest.raises(RayJobFailedError, match="the value is not valid JSON: Expecting value"):
        task(f"{report} none").run()


def test_a_megabyte_comes_back() -> None:
    assert task(python('report_result(["ü" * 100_000, "x" * 400_000])')).run() == ["ü" * 100_000, "x" * 400_000]


def test_a_result_of_more_than_16_mib_goes_through_the_result_path(tmp_path: Path) -> None:
    report = python('report_result("x" * 17_000_000)')
    with pytest.raises(RayJobFailedError, match=r"17,000,002 bytes as JSON, .*give the operator a result_path"):
        task(report).run()
    assert task(report, result_path=f"file://{tmp_path}/results").run() == "x" * 17_000_000


def test_a_job_without_a_report_returns_none() -> None:
    tries = task("true")
    assert tries.run() is None
    assert "The job has reported no result, so the task returns None" in tries.lines


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("text[:-1]", "11 bytes received are not the 12"),
        ('text.replace("0.5", "0.9")', "12 bytes received are not the 12"),
        ('text.replace("submission", "other")', "that of another job"),
        ('"x" * 20_000_000', "it has more than"),
    ],
    ids=["truncated", "changed", "of another job", "too large"],
)
def test_a_file_that_was_tampered_with_is_refused(change: str, said: str) -> None:
    code = f"""
from airflow_provider_rayjobs.functions.shipped.result_file import job_log, result_beside
report_result({{"loss": 0.5}})
file = result_beside(job_log())
text = file.read_text()
file.write_text({change})
"""
    with pytest.raises(RayJobResultError) as raised:
        task(python(code)).run()
    assert said in str(raised.value)


def wait_for_end_of_actor(head: RayHead, submission_id: str) -> None:
    """Wait until a job's actor is dead: a new job with this id could get it, and fail with it."""
    wanted = [("name", "=", f"_ray_internal_job_actor_{submission_id}"), ("state", "!=", "DEAD")]
    keys, predicates, values = map(list, zip(*wanted, strict=True))
    query = {"filter_keys": keys, "filter_predicates": predicates, "filter_values": values}
    deadline = time.monotonic() + 60
    while '"actor_id"' in head.request("GET", f"/api/v0/actors?{urlencode(query, doseq=True)}")[1]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_result_of_a_deleted_job_is_not_that_of_the_next_one_with_its_id(ray_head: RayHead) -> None:
    name = f"reused-{uuid.uuid4().hex[:8]}"
    assert task(python("report_result(1)"), submission_id=name).run() == 1
    hook = RayJobHook()
    hook.delete_job(name)
    hook.close()
    wait_for_end_of_actor(ray_head, name)
    with pytest.raises(RayJobResultError, match="that of another job, which had this id before"):
        task("true", submission_id=name).run()


def test_a_retry_returns_the_result_of_the_job_of_the_lost_try(ray_head: RayHead) -> None:
    tries = task(python("import time; report_result(time.time())"))
    first = tries.run()
    assert tries.run() == first  # as if the first try's worker had been lost after the job's end
    assert len([job for job in ray_head.jobs() if (job["metadata"] or {}).get("airflow_run_id") == tries.run_id]) == 1


def test_a_ray_task_is_told_where_to_report() -> None:
    code = "import ray\n@ray.remote\ndef part(): report_result(1)\nray.get(part.remote())"
    with pytest.raises(RayJobFailedError, match="not in a Ray task or actor; return the value to that process"):
        task(python(code)).run()

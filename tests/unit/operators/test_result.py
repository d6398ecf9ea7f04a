"""A job's result as Airflow sees it: the value, its lack, and files of a head that lies."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, ObjectStoragePath

from airflow_provider_rayjobs.compat import result_folder
from airflow_provider_rayjobs.exceptions import RayJobError, RayJobFailedError, RayJobResultError
from airflow_provider_rayjobs.following.events import JobEvent, Outcome
from airflow_provider_rayjobs.functions import result as result_module
from airflow_provider_rayjobs.functions.shipped.result_file import TASK_FILE
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from tests.support.tries import Tries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.scripted_server import ScriptedRay

RESULT_FILE = "/api/v0/logs/file.*result.*"
BOTH = pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])


#: What a large value has in its name.
KEY = "0123456789abcdef"


def make(**kwargs: Any) -> RaySubmitJobOperator:
    return RaySubmitJobOperator(
        **{"task_id": "task", "entrypoint": "python train.py", "retries": 3, "read_result": True, **kwargs}
    )


def tries(**kwargs: Any) -> Tries:
    return Tries(lambda: make(**kwargs), "run")


def file_of(text: str, **changes: Any) -> Callable[[str], bytes]:
    """Return the file with this value of the submission that it is called with."""

    def made(submission: str) -> bytes:
        body = text.encode()
        header = {"format": 1, "submission": submission, "outcome": "value", "progress": None}
        described = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        return json.dumps({**header, **described, **changes}).encode() + b"\n" + body

    return made


@pytest.fixture(autouse=True)
def _connection(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "ray_jobs", "host": scripted_ray.url, "extra": {"unreachable_timeout": 1}}
    monkeypatch.setenv("AIRFLOW_CONN_RAY_DEFAULT", json.dumps(connection))
    monkeypatch.setattr(result_module, "_PAUSE", 0.01)
    scripted_ray.new_job_reads = ["SUCCEEDED"]


@BOTH
def test_the_task_returns_what_the_job_reported(scripted_ray: ScriptedRay, deferrable: bool) -> None:
    scripted_ray.new_job_reads = ["RUNNING", "SUCCEEDED"]
    scripted_ray.new_job_result = file_of('{"loss":0.5}')
    task = tries(deferrable=deferrable)
    assert task.run() == {"loss": 0.5}
    assert task.ti.xcoms["submission_id"] in scripted_ray.jobs


def test_the_module_travels_beside_the_users_own(scripted_ray: ScriptedRay) -> None:
    scripted_ray.new_job_result = file_of("1")
    env = {"working_dir": "s3://b/work.zip", "py_modules": ["s3://b/lib.zip"], "env_vars": {"PYTHONPATH": "/own"}}
    tries(runtime_env=env, result_path="file:///results").run()
    (request,) = scripted_ray.received_on("POST", "/api/jobs/")
    *theirs, package = request.json["runtime_env"]["py_modules"]
    assert theirs == env["py_modules"]
    assert request.json["entrypoint"] == "python train.py"
    assert {**request.json["runtime_env"], "py_modules": theirs} == env
    content = zipfile.ZipFile(io.BytesIO(scripted_ray.packages[package.removeprefix("gcs://")]))
    assert "airflow_provider_rayjobs/job.py" in content.namelist()
    assert json.loads(content.read(TASK_FILE)) == {"limit": 16 * 2**20, "result_path": "file:///results"}


def test_without_the_argument_nothing_is_uploaded_or_read(scripted_ray: ScriptedRay) -> None:
    scripted_ray.new_job_result = file_of("1")
    task = tries(read_result=False)
    assert task.run() == task.ti.xcoms["submission_id"]
    paths = [request.path for request in scripted_ray.received]
    assert not [path for path in paths if "packages" in path or ".result" in path]


@BOTH
def test_a_job_that_reports_nothing_is_none_with_a_warning(scripted_ray: ScriptedRay, deferrable: bool) -> None:
    task = tries(deferrable=deferrable)
    assert task.run() is None
    assert "The job has reported no result, so the task returns None" in task.lines
    assert len(scripted_ray.received_on("GET", RESULT_FILE)) == 1


LIES = {
    "truncated": (lambda submission: file_of('{"loss":0.5}')(submission)[:-1], "11 bytes received are not the 12"),
    "longer": (lambda submission: file_of("1")(submission) + b"0", "2 bytes received are not the 1"),
    "other submission": (file_of("1", submission="other"), "that of another job, which had this id before"),
    "no submission": (file_of("1", submission=None), "that of another job"),
    "wrong digest": (file_of("1", sha256="0" * 64), "1 bytes received are not the 1"),
    "too large": (file_of(json.dumps("x" * 200_000)), "more than 66,536 bytes"),
    "pickle": (file_of("1", outcome="pickle"), "unknown outcome 'pickle'"),
    "unknown kind": (file_of('{"__rayjobs__":"pickle","value":"x"}'), "unknown kind 'pickle'"),
    "not JSON": (file_of("{'a': 1}"), "damaged"),
    "stored nowhere": (file_of("1", outcome="stored", key=KEY), "result_path, which is no longer set"),
    "stored without a name": (file_of("1", outcome="stored", format=2), "it does not say where the value is stored"),
    "stored elsewhere": (file_of("1", outcome="stored", key="../../../x"), "it does not say where the value is stored"),
    "error": (file_of('"Traceback"', outcome="error"), "ended SUCCEEDED, but its function failed"),
}
EACH_LIE = pytest.mark.parametrize(("result", "said"), LIES.values(), ids=LIES)


@EACH_LIE
def test_a_file_that_lies_is_an_error_and_no_value(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch, result: Callable[[str], bytes], said: str
) -> None:
    monkeypatch.setattr(result_module, "RESULT_LIMIT", 1000)
    scripted_ray.new_job_result = result
    task = tries()
    with pytest.raises(RayJobResultError) as raised:
        task.run()
    assert said in str(raised.value)
    assert "return_value" not in task.ti.xcoms


@BOTH
def test_what_a_failed_job_had_reported_is_an_xcom(scripted_ray: ScriptedRay, deferrable: bool) -> None:
    scripted_ray.new_job_reads = ["RUNNING", "FAILED"]
    scripted_ray.new_job_result = file_of('{"epoch":3}')
    task = tries(deferrable=deferrable)
    with pytest.raises(RayJobFailedError, match="exit code 1"):
        task.run()
    assert task.ti.xcoms["return_value"] == {"epoch": 3}


def test_a_task_without_xcoms_has_none_of_a_failed_job(scripted_ray: ScriptedRay) -> None:
    scripted_ray.new_job_reads = ["FAILED"]
    scripted_ray.new_job_result = file_of("1")
    task = tries(do_xcom_push=False)
    with pytest.raises(RayJobFailedError):
        task.run()
    assert "return_value" not in task.ti.xcoms


@EACH_LIE
def test_a_lie_about_a_failed_job_does_not_replace_its_error(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch, result: Callable[[str], bytes], said: str
) -> None:
    monkeypatch.setattr(result_module, "RESULT_LIMIT", 1000)
    scripted_ray.new_job_reads = ["FAILED"]
    scripted_ray.new_job_result = result
    task = tries()
    with pytest.raises(RayJobFailedError, match="exit code 1"):
        task.run()
    assert "return_value" not in task.ti.xcoms
    if "function failed" not in said:
        assert [line for line in task.lines if "reported before it failed can't be passed on" in line and said in line]


def test_a_job_that_failed_without_a_report_is_not_warned_about(scripted_ray: ScriptedRay) -> None:
    scripted_ray.new_job_reads = ["FAILED"]
    task = tries()
    with pytest.raises(RayJobFailedError):
        task.run()
    assert not [line for line in task.lines if "reported" in line]
    assert "return_value" not in task.ti.xcoms


def test_a_job_that_never_started_has_no_file_to_be_read(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("j1", "FAILED", driver_node_id=None)
    event = JobEvent("j1", scripted_ray.url, Outcome.FAILED, message="no room").to_json()
    with pytest.raises(RayJobFailedError, match="no room"):
        make().execute_complete(tries().context(), event)
    assert scripted_ray.received_on("GET", RESULT_FILE) == []


def test_the_last_progress_is_an_xcom(scripted_ray: ScriptedRay) -> None:
    scripted_ray.add_job("j1", "SUCCEEDED")
    report = {"done": 3, "total": 4, "message": "x"}
    event = JobEvent("j1", scripted_ray.url, Outcome.SUCCEEDED, progress=report).to_json()
    for read_result, expected in ((True, report), (False, None)):
        context = tries().context()
        make(read_result=read_result).execute_complete(context, event)
        assert context["ti"].xcoms.get("progress") == expected


def test_a_retry_returns_the_result_of_the_job_that_it_takes_over(scripted_ray: ScriptedRay) -> None:
    scripted_ray.new_job_result = file_of('"of the first"')
    task = tries()
    assert task.run() == "of the first"  # and its worker dies before Airflow knows
    scripted_ray.new_job_result = file_of('"of the second"')
    assert task.run() == "of the first"
    assert len(scripted_ray.jobs) == 1


def test_a_damaged_result_of_a_job_that_was_taken_over_makes_a_new_one(scripted_ray: ScriptedRay) -> None:
    scripted_ray.new_job_result = file_of("1", sha256="0" * 64)
    task = tries()
    with pytest.raises(RayJobResultError):
        task.run()
    scripted_ray.new_job_result = file_of("2")
    assert task.run() == 2
    assert len(scripted_ray.jobs) == 2


def test_a_task_that_does_not_wait_has_no_result_to_return() -> None:
    with pytest.raises(ValueError, match="read_result=True needs wait_for_completion=True"):
        make(wait_for_completion=False)


def test_a_folder_for_all_tasks_of_a_dag_does_no_harm() -> None:
    with DAG("dag", schedule=None, default_args={"result_path": "s3://b"}):
        assert not RaySubmitJobOperator(task_id="task", entrypoint="true").read_result


def test_a_large_value_of_a_job_from_before_an_upgrade_is_read(scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    text = '"xxxxxxxx"'
    digest = hashlib.sha256(text.encode()).hexdigest()
    scripted_ray.new_job_result = file_of("", outcome="stored", bytes=len(text), sha256=digest)
    (tmp_path / "j1.json").write_text(text)
    assert tries(submission_id="j1", result_path=f"file://{tmp_path}").run() == "x" * 8


STORED_LIES = {
    "gone": (None, "its result is no longer at file://"),
    "shorter": ('"' + "x" * 8, r"its result is damaged: the 9 bytes received are not the 10 bytes that the job wrote"),
    "longer": ('"' + "x" * 9_999, r"damaged: the 11 bytes received are not the 10 bytes that the job wrote"),
    "other": ('"' + "y" * 8 + '"', r"damaged: the 10 bytes received are not the 10 bytes that the job wrote"),
}


def stored(text: str, **changes: Any) -> Callable[[str], bytes]:
    """Return the file that describes a value which is stored elsewhere."""
    described = {"outcome": "stored", "key": KEY, "bytes": len(text), **changes}
    return file_of("", sha256=hashlib.sha256(text.encode()).hexdigest(), **described)


@BOTH
def test_a_large_value_is_read_from_its_folder(scripted_ray: ScriptedRay, tmp_path: Path, deferrable: bool) -> None:
    scripted_ray.new_job_result = stored('"xxxxxxxx"')
    (tmp_path / f"j1.{KEY}.json").write_text('"xxxxxxxx"')
    task = tries(submission_id="j1", result_path=f"file://{tmp_path}", deferrable=deferrable)
    assert task.run() == "x" * 8


@pytest.mark.parametrize(("found", "said"), STORED_LIES.values(), ids=STORED_LIES)
def test_a_large_value_that_is_not_what_the_job_wrote_is_refused(
    scripted_ray: ScriptedRay, tmp_path: Path, found: str | None, said: str
) -> None:
    scripted_ray.new_job_result = stored('"xxxxxxxx"')
    if found is not None:
        (tmp_path / f"j1.{KEY}.json").write_text(found)
    task = tries(submission_id="j1", result_path=f"file://{tmp_path}")
    with pytest.raises(RayJobResultError, match=said):
        task.run()
    assert "return_value" not in task.ti.xcoms


@pytest.mark.parametrize(
    ("claimed", "said"),
    [
        (100_000_001, "its result has 100,000,001 bytes, and a task returns at most 100,000,000"),
        (0, "its result is damaged: no value has 0 bytes"),
    ],
)
def test_a_value_of_an_impossible_size_is_not_looked_for(
    scripted_ray: ScriptedRay, tmp_path: Path, claimed: int, said: str
) -> None:
    scripted_ray.new_job_result = stored("", bytes=claimed)
    with pytest.raises(RayJobResultError, match=said):  # not: it is no longer there
        tries(submission_id="j1", result_path=f"file://{tmp_path}").run()


def test_of_a_longer_value_only_one_byte_more_is_read(scripted_ray: ScriptedRay, tmp_path: Path) -> None:
    scripted_ray.new_job_result = stored('"xxxxxxxx"')
    with (tmp_path / f"j1.{KEY}.json").open("wb") as sparse:
        sparse.truncate(2**33)
    with pytest.raises(RayJobResultError, match="the 11 bytes received are not the 10 bytes that the job wrote"):
        tries(submission_id="j1", result_path=f"file://{tmp_path}").run()


@pytest.mark.parametrize("make_it", [os.mkfifo, os.mkdir])
def test_only_a_regular_file_is_read(
    scripted_ray: ScriptedRay, tmp_path: Path, make_it: Callable[[Path], None]
) -> None:
    scripted_ray.new_job_result = stored('"xxxxxxxx"')
    make_it(tmp_path / f"j1.{KEY}.json")
    with pytest.raises(RayJobResultError, match=r"its result at file://.* is not a regular file"):
        tries(submission_id="j1", result_path=f"file://{tmp_path}").run()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError("Forbidden"),
            r"\(PermissionError: Forbidden\); let the Airflow connection in result_path read",
        ),
        (ImportError("no gcsfs"), r"\(ImportError: no gcsfs\); install apache-airflow-providers-google on the Airflow"),
        (
            OSError("at gs://me:secret@x"),
            r"\(OSError: at gs://\*\*\*@x\); check result_path, and its Airflow connection",
        ),
    ],
)
def test_an_error_of_the_storage_names_the_remedy_and_costs_no_job(
    scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(url: str, most: int) -> bytes:
        raise error

    monkeypatch.setattr(result_folder, "_has_filesystem", lambda _: True)
    monkeypatch.setattr(result_folder, "_stored", fail)
    scripted_ray.new_job_result = stored('"xxxxxxxx"')
    task = tries(submission_id="j1", result_path="gs://conn@bucket/results")
    for _ in range(2):
        with pytest.raises(RayJobError, match=rf"its result at gs://conn@bucket/results/j1\S+ can't be read {said}"):
            task.run()
    assert len(scripted_ray.jobs) == 1


def test_a_folder_whose_provider_is_not_installed_is_refused_before_anything_is_sent(scripted_ray: ScriptedRay) -> None:
    said = r"Nothing was submitted: result_path 'gs://b' can't be read: install apache-airflow-providers-google on the"
    with pytest.raises(AirflowFailException, match=said):
        tries(result_path="gs://b").run()
    assert scripted_ray.received == []


def test_a_folder_without_a_result_to_read_is_refused() -> None:
    with pytest.raises(ValueError, match="result_path needs read_result=True: the result is not read without it"):
        make(read_result=False, result_path="s3://b")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (PurePosixPath("/tmp/x"), "result_path must be a string, the URL of a folder, not PurePosixPath"),
        (7, "result_path must be a string, the URL of a folder, not int"),
        ("/tmp/x", "result_path must be a URL such as s3://…, gs://… or file://…, not '/tmp/x'"),
        ("file://results", "result_path must have an absolute path, as in file:///mounted/folder"),
        ("file://node/results", "result_path must have an absolute path, as in file:///mounted/folder"),
        ("FILE:///results", "result_path must be a URL such as s3://…, gs://… or file://…, not 'FILE:///results'"),
        ("s3://", "result_path must have a bucket, as in s3://conn_id@bucket/prefix"),
        ("abfs://conn@/results", "result_path must have a bucket, as in abfs://conn_id@bucket/prefix"),
        ("s3://key:secret@bucket", "result_path must not contain a password; write the id of an Airflow connection"),
    ],
)
def test_a_folder_that_is_none_is_refused_when_the_dag_is_read(value: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        make(result_path=value)


@pytest.mark.parametrize("value", ["", " ", "None"])
def test_a_folder_that_is_rendered_to_nothing_is_not_given(scripted_ray: ScriptedRay, value: str) -> None:
    scripted_ray.new_job_result = file_of("1")
    assert tries(result_path=value).run() == 1
    (package,) = scripted_ray.packages.values()
    assert json.loads(zipfile.ZipFile(io.BytesIO(package)).read(TASK_FILE))["result_path"] is None


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"result_path": ObjectStoragePath("file:///x")}, "result_path must be a string, the URL of a folder, not"),
        ({"result_path": "{{ x }}"}, r"result_path must be a URL such as s3://…, gs://… or file://…, not '{{ x }}'"),
        ({"runtime_env": {"image_uri": "x"}}, r"runtime_env\['image_uri'\] can't be used with read_result"),
    ],
)
def test_what_is_wrong_at_run_time_is_refused_before_anything_is_sent(
    scripted_ray: ScriptedRay, kwargs: Any, said: str
) -> None:
    with pytest.raises(AirflowFailException, match=f"Nothing was submitted: {said}"):
        tries(**kwargs).run()
    assert scripted_ray.received == []


def test_it_can_be_mapped_and_its_folder_is_a_template() -> None:
    with DAG("dag", schedule=None) as dag:
        RaySubmitJobOperator.partial(task_id="task", read_result=True, result_path="s3://b/{{ ds }}").expand(
            entrypoint=["a", "b"]
        )
    mapped: Any = dag.get_task("task")
    made = mapped.unmap({"entrypoint": "b"})
    made.render_template_fields({"ds": "2026-01-02"})
    assert (made.read_result, made.result_path, made.entrypoint) == (True, "s3://b/2026-01-02", "b")

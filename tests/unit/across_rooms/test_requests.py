"""How many requests a short job costs, to the head and to Airflow. ``docs/tuning.md`` says what each is for."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_rayjobs import links
from airflow_provider_rayjobs.decorators import RayJobDecoratedOperator
from airflow_provider_rayjobs.functions.result import FORMAT
from airflow_provider_rayjobs.operators import RaySubmitJobOperator
from tests.support.tries import TaskInstance, Tries

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.scripted_server import ScriptedRay

VERSION = "GET /api/version"
SUBMISSION = "POST /api/jobs/"
POLL = "GET /api/jobs/{id}"
STREAM = "GET /api/jobs/{id}/logs/tail"
FILE = "GET /api/v0/logs/file"
LOOK = "GET /api/packages/gcs/{name}"
UPLOAD = "PUT /api/packages/gcs/{name}"

#: What the task asks Airflow for, beside what each task of Airflow does.
TO_AIRFLOW = ["connection ray_x", "push submission_id", "push _link_RayJobLink"]


def seven() -> int:
    return 7


@pytest.fixture
def to_airflow(scripted_ray: ScriptedRay, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of Airflow."""
    monkeypatch.setenv("AIRFLOW_CONN_RAY_X", json.dumps({"conn_type": "ray_jobs", "host": scripted_ray.url}))
    asked: list[str] = []
    read, push, pull = BaseHook.get_connection, TaskInstance.xcom_push, TaskInstance.xcom_pull

    def read_noted(conn_id: str) -> Any:
        asked.append(f"connection {conn_id}")
        return read(conn_id)

    def push_noted(ti: TaskInstance, key: str, value: Any) -> None:
        asked.append(f"push {key}")
        push(ti, key, value)

    def pull_noted(ti: TaskInstance, *, key: str, **where: Any) -> Any:
        asked.append(f"pull {key}")
        return pull(ti, key=key, **where)

    monkeypatch.setattr(BaseHook, "get_connection", staticmethod(read_noted))
    monkeypatch.setattr(TaskInstance, "xcom_push", push_noted)
    monkeypatch.setattr(TaskInstance, "xcom_pull", pull_noted)
    return asked


def submit(run_id: str = "run", **arguments: Any) -> Tries:
    given = {"task_id": "task", "ray_conn_id": "ray_x", "stream_logs": False, **arguments}
    return Tries(lambda: RaySubmitJobOperator(entrypoint="true", **given), run_id)


def routes(server: ScriptedRay) -> Counter[str]:
    """Count what the server has received, by route."""
    found: Counter[str] = Counter()
    for request in server.received:
        path = re.sub(r"(?<=^/api/jobs/)[^/]+", "{id}", request.path.partition("?")[0])
        found[f"{request.method} {re.sub('(?<=^/api/packages/gcs/).+', '{name}', path)}"] += 1
    return found


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferred"])
def test_a_job_that_ends_at_the_first_poll(deferrable: bool, scripted_ray: ScriptedRay, to_airflow: list[str]) -> None:
    scripted_ray.new_job_reads = ["SUCCEEDED"]
    submit(deferrable=deferrable).run()
    assert routes(scripted_ray) == {VERSION: 1, SUBMISSION: 1, POLL: 1}
    assert to_airflow == [
        *TO_AIRFLOW,
        *(["connection ray_x"] if deferrable else []),
    ]  # the triggerer is another process


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferred"])
def test_a_job_whose_log_is_shown(deferrable: bool, scripted_ray: ScriptedRay, to_airflow: list[str]) -> None:
    scripted_ray.new_job_reads, scripted_ray.new_job_log = ["RUNNING", "SUCCEEDED"], ["hello\n"]
    submit(deferrable=deferrable, stream_logs=True).run()
    found = routes(scripted_ray)
    assert found[SUBMISSION] == found[STREAM] == 1
    assert found <= Counter({VERSION: 2, SUBMISSION: 1, POLL: 2, STREAM: 1, FILE: 1})
    assert len(to_airflow) == len(TO_AIRFLOW) + deferrable


def test_the_link_of_a_task_that_has_ended_is_not_read_back(
    scripted_ray: ScriptedRay, to_airflow: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3 stores it again at the end, as the link's ``get_link`` returns it."""
    scripted_ray.new_job_reads = ["SUCCEEDED"]
    operator = RaySubmitJobOperator(task_id="task", ray_conn_id="ray_x", entrypoint="true", stream_logs=False)
    tries = Tries(lambda: operator, "run")
    tries.run()
    assert to_airflow == TO_AIRFLOW
    monkeypatch.delattr(links, "XCom")
    key: Any = None
    assert links.RayJobLink().get_link(operator, ti_key=key) == tries.ti.xcoms[links.JOB_PAGE_XCOM]


def test_a_folder_is_looked_for_because_that_may_save_its_upload(
    scripted_ray: ScriptedRay, to_airflow: list[str], tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text("print(1)")
    scripted_ray.new_job_reads = ["SUCCEEDED"]
    submit(runtime_env={"working_dir": str(tmp_path)}).run()
    assert routes(scripted_ray) == {VERSION: 1, LOOK: 1, UPLOAD: 1, SUBMISSION: 1, POLL: 1}
    submit("next run", runtime_env={"working_dir": str(tmp_path)}).run()
    assert routes(scripted_ray) == {VERSION: 2, LOOK: 2, UPLOAD: 1, SUBMISSION: 2, POLL: 2}
    assert to_airflow == TO_AIRFLOW * 2


def result(submission: str) -> bytes:
    """Return the file of a job whose result is 7."""
    described = {"outcome": "value", "bytes": 1, "sha256": hashlib.sha256(b"7").hexdigest()}
    return json.dumps({"format": FORMAT, "submission": submission, **described}).encode() + b"\n7"


@pytest.mark.parametrize("deferrable", [False, True], ids=["worker", "deferred"])
def test_a_function_is_sent_once_its_calls_each_time_and_its_value_read_once(
    deferrable: bool, scripted_ray: ScriptedRay, to_airflow: list[str]
) -> None:
    scripted_ray.new_job_reads, scripted_ray.new_job_result = ["SUCCEEDED"], result

    def make() -> RayJobDecoratedOperator:
        return RayJobDecoratedOperator(
            task_id="task",
            ray_conn_id="ray_x",
            python_callable=seven,
            op_args=[],
            op_kwargs={},
            stream_logs=False,
            deferrable=deferrable,
        )

    assert Tries(make, "run").run() == 7
    in_other_processes = ["connection ray_x"] * 2  # the triggerer, and the worker that the task resumes on
    assert to_airflow == [*TO_AIRFLOW, *(in_other_processes if deferrable else [])]
    once = {VERSION: 1, LOOK: 1, UPLOAD: 1, SUBMISSION: 1, POLL: 2, FILE: 1}
    assert routes(scripted_ray) == {**once, UPLOAD: 2}
    assert Tries(make, "next run").run() == 7
    assert routes(scripted_ray) == {**{route: 2 * number for route, number in once.items()}, UPLOAD: 3}


def test_what_a_command_needs_to_report_a_result_is_sent_once(scripted_ray: ScriptedRay, to_airflow: list[str]) -> None:
    scripted_ray.new_job_reads, scripted_ray.new_job_result = ["SUCCEEDED"], result
    assert submit(read_result=True).run() == 7
    assert routes(scripted_ray) == {VERSION: 1, LOOK: 1, UPLOAD: 1, SUBMISSION: 1, POLL: 2, FILE: 1}
    assert submit("next run", read_result=True).run() == 7
    assert routes(scripted_ray) == {VERSION: 2, LOOK: 2, UPLOAD: 1, SUBMISSION: 2, POLL: 4, FILE: 2}
    assert to_airflow == TO_AIRFLOW * 2
